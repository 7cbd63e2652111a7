"""The one door through which a scan or contours are read, be they NIfTI or DICOM.

A scan is a NIfTI file, or a place of DICOM images (`segthor.dicom.places`): a folder, FOLDER#SERIES
or one file *.dcm. Contours are a NIfTI label map, or a structure set on a DICOM scan. `among`, of
some functions, are the patient's own files in a folder of many (`Patient.ct_files`).
"""

import os
import time
from dataclasses import replace

import numpy as np

from segthor import audit, files, guard, nifti, relabel
from segthor.errors import InputError
from segthor.findings import FATAL
from segthor.organs import Organs
from segthor.patients import Patient
from segthor.volume import Grid, LabelMap, Volume


def is_dicom(path: str) -> bool:
    """Whether it names a place of DICOM images; opens no file."""
    if nifti.is_nifti(path) or not path or path.lower().endswith(".csv"):
        return False
    return "#" in path or path.lower().endswith(".dcm") or files.is_dir(path)


def folder_of(path: str) -> str:
    """The folder of a place of DICOM images, without the name of a series."""
    return path if files.is_dir(path) else path.rpartition("#")[0] or files.parent(path)


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


@guard.reader
def read(path: str, digest=None, most_bytes: int | None = None, among=()) -> Volume:
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


@guard.reader
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


def volume_stamp(path: str, among=()) -> str:
    """As `stamp`, of a scan's own files alone: what lies beside its slices does not count."""
    if not is_dicom(path):
        return files.stamp(path)
    return _dicom().volume_stamp(path, among)


def month(contours: str) -> str:
    """YYYY-MM in which contours were made: as a structure set says, else when the file changed.

    '' where neither is known, as of a URL.
    """
    if not nifti.is_nifti(contours):
        _dicom()
        from segthor.dicom import rois

        date = rois.date(contours)
        if date:
            return f"{date[:4]}-{date[4:6]}"
    if files.is_url(contours):
        return ""
    return time.strftime("%Y-%m", time.localtime(os.path.getmtime(contours)))


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


@guard.reader
def read_contours(
    path: str,
    ct: str,
    organs: Organs,
    roi_names=(),
    label_values=(),
    digest=None,
    most_bytes: int | None = None,
    among=(),
    like: Grid | None = None,
) -> LabelMap:
    """Contours in the labels of a table of organs. What is wrong with them becomes findings.

    Args:
      path: A NIfTI label map or a structure set.
      ct: The scan that a structure set was drawn on.
      organs: The table.
      roi_names: (organ, ROI name) beyond the table's synonyms, for a structure set.
      label_values: (organ, value in a NIfTI file), where they are not the table's.
      digest, most_bytes, among: As in `read`.
      like: The grid of the scan, whose order of axes the label map has. It may lie elsewhere; see
        `segthor.audit.pair_findings`.

    Where the values cannot be the table's (a finding of FATAL), those that are none of its labels
    are 0.

    Raises:
      ReadError: a file that cannot be read.
    """
    if not nifti.is_nifti(path) and is_dicom(ct):
        labels = _dicom().read_contours(path, ct, organs, roi_names, among)
        if digest:
            digest.update(files.read_bytes(path))
        return labels
    stored = nifti.read(path, digest, most_bytes)
    if like is not None:
        stored = stored.along(like)
    labels, findings = relabel.to_labels(stored.zyx, label_values, organs=organs)
    if labels is None:
        labels = np.zeros(stored.zyx.shape, np.uint8)
        known = np.isin(stored.zyx, organs.labels(organs.names))
        labels[known] = stored.zyx[known]
    return LabelMap(labels, stored.grid, organs, None, tuple(findings))


def write_dicom(
    ct: str, labels: LabelMap, paths: dict, made: dict, probabilities=None, among=()
) -> dict:
    """Writes a label map as structure set or SEG of a scan; see `segthor.dicom.places.write`.

    made: The fields of `segthor.dicom.origin.Origin`.

    Raises:
      InputError: the scan is no DICOM, or what `read` raises.
    """
    if not is_dicom(ct):
        raise InputError(f"{ct}: {', '.join(paths)} refer to DICOM images; this scan has none")
    try:
        return _dicom().write(ct, labels, paths, made, probabilities, among)
    except (InputError, OSError, MemoryError):
        raise
    except Exception as error:
        raise guard.read_error(ct, error) from error


@guard.reader
def read_labels(
    path: str,
    like: tuple[str, Grid] | None = None,
    label_values=(),
    most_bytes: int | None = None,
    *,
    organs: Organs,
    ct: str = "",
    roi_names=(),
    among=(),
) -> LabelMap:
    """A label map that can be used, as `read_contours` reads it.

    like: Path and grid of the scan that it must lie on, in any order of the file's axes. The
    others: as in `read_contours`. The message of each finding begins with the path.

    Raises:
      InputError: a file that cannot be read, that lies on another grid, or that holds anything but
        the organs' labels.
    """
    scan, grid = like or ("", None)
    rest = (roi_names, label_values, None, most_bytes, among)
    labels = read_contours(path, ct, organs, *rest, grid)
    if grid is not None:
        findings = audit.pair_findings(grid, labels.grid)
        if findings:
            turned = _in_order_of(grid, read_contours(path, ct, organs, *rest))
            if turned is None:
                raise InputError(f"{path} against {scan}: {findings[0].message}")
            labels = turned
    for finding in labels.findings:
        if finding.code in FATAL:
            raise InputError(f"{path}: {finding.message}")
    named = (replace(one, message=f"{path}: {one.message}") for one in labels.findings)
    return replace(labels, findings=tuple(named))


def _in_order_of(grid: Grid, labels: LabelMap) -> LabelMap | None:
    """A label map on the voxels of a scan whose file has another order of axes; None if not on."""
    if labels.grid.shape_zyx != grid.shape_zyx:
        return None
    same = labels.grid.in_order_of(grid)
    return None if audit.pair_findings(grid, same) else replace(labels, grid=same)


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
