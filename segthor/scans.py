"""The one door through which a scan or contours are read, be they NIfTI or DICOM.

A scan is a NIfTI file, or a place of DICOM images (`segthor.dicom.places`): a folder, FOLDER#SERIES
or one file *.dcm. Contours are a NIfTI label map, or a structure set on a DICOM scan. `among`, of
some functions, are the patient's own files in a folder of many (`Patient.ct_files`).
"""

from dataclasses import dataclass

import numpy as np

from segthor import audit, files, nifti
from segthor.errors import InputError
from segthor.nifti import Grid, Scan
from segthor.organs import SEGTHOR, Organs
from segthor.patients import Patient


@dataclass(frozen=True)
class LabelMap:
    """The organs' labels in memory: `array` is uint8 [X, Y, Z] in the file's order.

    warnings: what the reader had to make of the file, in words for people. organs: those that are
    contoured, where the file itself says so, as structure sets do.
    """

    array: np.ndarray
    grid: Grid
    warnings: tuple[str, ...] = ()
    organs: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Contours:
    """Contours as a file holds them, in values of its own; organs: as those of `LabelMap`.

    findings: (code, message) of what deserves a warning.
    """

    stored: Scan
    organs: tuple[str, ...] | None = None
    findings: tuple[tuple[str, str], ...] = ()


def is_dicom(path: str) -> bool:
    """Whether it names a place of DICOM images; opens no file."""
    if nifti.is_nifti(path) or not path or path.lower().endswith(".csv"):
        return False
    return "#" in path or path.lower().endswith(".dcm") or files.is_dir(path)


def dicom_patients(root: str, contoured, kept: str = "", series: str | tuple = "") -> list[Patient]:
    """Every patient of a DICOM tree; see `segthor.dicom.trees.patients`."""
    return _trees().patients(root, contoured, kept, series)


def drawn_on(root: str, scans) -> list[Patient]:
    """The structure sets in `root` of scans elsewhere; see `segthor.dicom.trees.drawn_on`."""
    return _trees().drawn_on(root, scans)


def dicom_listing(root: str, organs: Organs, roi_names=(), descriptions: bool = False) -> str:
    """What lies in a DICOM tree, for people; see `segthor.dicom.listing.of_folder`."""
    _dicom()
    from segthor.dicom import listing

    return listing.of_folder(root, organs, roi_names, descriptions)


def read(path: str, digest=None, most_bytes: int | None = None, among=()) -> Scan:
    """A scan in HU.

    Args:
      path: A NIfTI file or a place of DICOM images.
      digest: A hashlib object, fed with the files' bytes as they are read.
      most_bytes: How much memory the scan may fill; by default `segthor.memory.scan_limit`.

    Raises:
      ReadError: files that cannot be read as one volume.
    """
    if not is_dicom(path):
        return nifti.read(path, digest, most_bytes)
    return _dicom().read(path, digest, most_bytes, among)


def read_grid(path: str, among=()) -> Grid:
    """Where a scan's voxels lie; raises as `read` does."""
    if not is_dicom(path):
        return nifti.read_grid(path)
    return _dicom().stack(path, among).grid


def stamp(path: str, among=()) -> str:
    """A mark that changes when one of a scan's or contours' files does; OSError without any."""
    if not is_dicom(path):
        return files.stamp(path)
    return _dicom().stamp(path, among)


def size(path: str, among=()) -> int:
    """Bytes of a scan's files; 0 where there is none."""
    if not is_dicom(path):
        return files.size(path) if files.exists(path) else 0
    return _dicom().size(path, among) if _dicom().exists(path) else 0


def exists(path: str) -> bool:
    """Whether the scan's file or folder is there."""
    if not is_dicom(path):
        return files.exists(path)
    return _dicom().exists(path)


def read_contours(
    path: str,
    ct: str,
    organs: Organs = SEGTHOR,
    roi_names=(),
    digest=None,
    most_bytes: int | None = None,
    among=(),
) -> Contours:
    """Contours in the file's own values; a structure set's are already the table's labels.

    ct: the scan that a structure set was drawn on. roi_names: (organ, ROI name) beyond the table's
    synonyms. The others: as `read` has them. Raises as `read` does.
    """
    if nifti.is_nifti(path) or not is_dicom(ct):
        return Contours(nifti.read(path, digest, most_bytes))
    found = _dicom().read_contours(path, ct, organs, roi_names, among)
    if digest:
        digest.update(files.read_bytes(path))
    return Contours(Scan(found.labels.array, found.labels.grid), found.organs, found.findings)


def write_dicom(
    ct: str, labels, organs: Organs, paths: dict, made: dict, margin=None, among=()
) -> dict:
    """Writes a label map as structure set or SEG of a scan; see `segthor.dicom.places.write`.

    made: the fields of `segthor.dicom.origin.Origin`.

    Raises:
      InputError: the scan is no DICOM, or what `read` raises.
    """
    if not is_dicom(ct):
        raise InputError(f"{ct}: {', '.join(paths)} refer to DICOM images; this scan has none")
    return _dicom().write(ct, labels, organs, paths, made, margin, among)


def read_labels(
    path: str,
    like: tuple[str, Grid] | None = None,
    label_values=(),
    most_bytes: int | None = None,
    organs: Organs = SEGTHOR,
    ct: str = "",
    roi_names=(),
    among=(),
) -> LabelMap:
    """A label map in the labels of a table of organs.

    like: path and grid of the scan that it must lie on. label_values: (organ, value in the file),
    where they are not the table's. most_bytes: as in `read`. ct: the scan of a structure set;
    roi_names: its (organ, ROI name) beyond the table's synonyms.

    Raises:
      InputError: a file that cannot be read, that lies on another grid, or that holds anything but
        the organs' labels.
    """
    found = read_contours(path, ct, organs, roi_names, None, most_bytes, among)
    if like is not None:
        for finding in audit.pair_findings(like[1], found.stored.grid):
            raise InputError(f"{path} against {like[0]}: {finding.message}")
    values = () if found.organs is not None else label_values
    labels, doubts = audit.to_labels(found.stored.array, values, organs)
    if labels is None:
        raise InputError(f"{path}: {doubts[-1].message}")
    told = [message for _, message in found.findings] + [one.message for one in doubts]
    warnings = tuple(f"{path}: {message}" for message in told)
    return LabelMap(labels, found.stored.grid, warnings, found.organs)


def _dicom():
    """`segthor.dicom.places`; only who has DICOM needs the packages behind it."""
    try:
        from segthor.dicom import places
    except ModuleNotFoundError as error:
        raise InputError(
            f"DICOM needs the package {error.name}; install it with pip install segthor[dicom]"
        ) from error
    return places


def _trees():
    """`segthor.dicom.trees`, as `_dicom` has it."""
    _dicom()
    from segthor.dicom import trees

    return trees
