"""Reads scans and contours, whether they are NIfTI or DICOM.

A scan is a NIfTI file, or DICOM images: a folder, FOLDER#SERIES or a file *.dcm
(`segthor.dicom.places`). Contours are a NIfTI label map, or a structure set with its DICOM scan.
The argument `among` of some functions is `Patient.ct_files`: the files of one patient in a folder
of several patients.
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

_LATEST = 253370764800  # the first second of the year 9999


def is_dicom(path: str) -> bool:
    """Whether the path is one of DICOM images; opens no file."""
    if nifti.is_nifti(path) or not path or path.lower().endswith(".csv"):
        return False
    return "#" in path or path.lower().endswith(".dcm") or files.is_dir(path)


def folder_of(path: str) -> str:
    """The folder of DICOM images, without the name of a series."""
    return path if files.is_dir(path) else path.rpartition("#")[0] or files.parent(path)


def dicom_patients(
    root: str, contoured, cache: str = "", series: str | tuple = ""
) -> list[Patient]:
    """Every patient of a DICOM tree; see `segthor.dicom.trees.patients`."""
    return _trees().patients(root, contoured, cache, series)


def drawn_on(root: str, scans) -> list[Patient]:
    """The structure sets in `root` of given scans; see `segthor.dicom.trees.drawn_on`."""
    return _trees().drawn_on(root, scans)


def dicom_listing(root: str, organs: Organs, roi_names=(), descriptions: bool = False) -> str:
    """A text about the content of a DICOM tree; see `segthor.dicom.listing.list_folder`."""
    _dicom()
    from segthor.dicom import listing

    return listing.list_folder(root, organs, roi_names, descriptions)


@guard.reader
def read(path: str, digest=None, most_bytes: int | None = None, among=()) -> Volume:
    """Reads a scan in HU.

    Args:
      path: A NIfTI file or DICOM images.
      digest: A hashlib object, updated with the bytes of the files.
      most_bytes: Memory that the scan may fill; by default `segthor.memory.scan_limit`.
      among: `Patient.ct_files`.

    Raises:
      ReadError: The files cannot be read as one volume.
    """
    if not is_dicom(path):
        return nifti.read(path, digest, most_bytes)
    return _dicom().read(path, digest, most_bytes, among)


@guard.reader
def read_grid(path: str, among=()) -> Grid:
    """Reads the grid of a scan without its voxels; raises as `read` does."""
    if not is_dicom(path):
        return nifti.read_grid(path)
    return _dicom().stack(path, among).grid


def stamp(path: str, among=()) -> str:
    """Stamp of a scan's or contours' files, which changes when one of them does.

    For DICOM, all files below the folder count. Raises OSError where there are none.
    """
    if not is_dicom(path):
        return files.stamp(path)
    return _dicom().stamp(path, among)


def volume_stamp(path: str, among=()) -> str:
    """As `stamp`, but only of the scan's own files; other files in its folder do not count."""
    if not is_dicom(path):
        return files.stamp(path)
    return _dicom().volume_stamp(path, among)


def read_month(contours: str) -> str:
    """The month of contours as YYYY-MM, from a structure set's date or the file's time of change.

    '' where neither is known, as for a URL.
    """
    if not nifti.is_nifti(contours):
        _dicom()
        from segthor.dicom import rois

        date = rois.read_date(contours)
        if date:
            return f"{date[:4]}-{date[4:6]}"
    if files.is_url(contours):
        return ""
    changed = os.path.getmtime(contours)
    is_known = 0 < changed < _LATEST  # the clock of a disk may be wrong
    return time.strftime("%Y-%m", time.localtime(changed)) if is_known else ""


def size(path: str, among=()) -> int:
    """Total size of a scan's files in bytes; 0 where there is none."""
    if not is_dicom(path):
        return files.size(path) if files.exists(path) else 0
    return _dicom().size(path, among) if _dicom().exists(path) else 0


def exists(path: str) -> bool:
    """Whether the scan's file or folder exists."""
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
    """Reads contours as labels of a table of organs.

    Problems with their values are findings of the label map. After a finding of FATAL, values that
    are no label of the table are 0. Raises ReadError where the file cannot be read.

    path: A NIfTI label map, or a structure set that was drawn on the scan `ct`.
    roi_names: (organ, ROI name) in addition to the table's synonyms, for a structure set.
    label_values: (organ, value in a NIfTI file), where they differ from the table.
    digest, most_bytes, among: As in `read`.
    like: The grid of the scan. The label map is read with the same order of axes; whether it lies
      on this grid is checked by `segthor.audit.pair_findings`.
    """
    if not nifti.is_nifti(path) and is_dicom(ct):
        return _dicom().read_contours(path, ct, organs, roi_names, among, digest)
    stored = nifti.read(path, digest, most_bytes)
    if like is not None:
        stored = stored.along(like).on_planes(like)
    return _with_table_labels(stored, label_values, organs)


def _with_table_labels(stored: Volume, label_values, organs: Organs) -> LabelMap:
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

    made: Fields of `segthor.dicom.origin.Origin`.

    Raises:
      InputError: The scan is not DICOM, or cannot be read or referred to.
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
    """Reads contours as `read_contours` does; InputError for those that cannot be used.

    Messages, also those of findings, start with the path.

    like: Path and grid of the scan that the label map must lie on, in any order of axes.
    """
    scan, grid = like or ("", None)
    rest = (roi_names, label_values, None, most_bytes, among)
    labels = read_contours(path, ct, organs, *rest, grid)
    problems = audit.pair_findings(grid, labels.grid) if grid else ()
    if problems:
        labels = _reorder(read_contours(path, ct, organs, *rest), grid)
        if labels is None:
            raise InputError(f"{path} against {scan}: {problems[0].message}")
    findings = [replace(one, message=f"{path}: {one.message}") for one in labels.findings]
    for finding in findings:
        if finding.code in FATAL:
            raise InputError(finding.message)
    return replace(labels, findings=tuple(findings))


def _reorder(labels: LabelMap, grid: Grid) -> LabelMap | None:
    """The label map with the scan's order of the file's axes; None if it lies on other voxels."""
    if labels.grid.shape_zyx != grid.shape_zyx:
        return None
    same = labels.grid.in_order_of(grid)
    return None if audit.pair_findings(grid, same) else replace(labels, grid=same)


def _dicom():
    """Imports `segthor.dicom.places`, whose packages are needed for DICOM only."""
    try:
        from segthor.dicom import places
    except ModuleNotFoundError as error:
        raise InputError(
            f"DICOM needs the package {error.name}; install it with pip install segthor[dicom]"
        ) from error
    return places


def _trees():
    """Imports `segthor.dicom.trees`."""
    _dicom()
    from segthor.dicom import trees

    return trees
