"""Reads and writes the volume at a place: FOLDER, FOLDER#VOLUME or FILE.dcm.

FOLDER is enough if one volume lies below it; otherwise VOLUME is the name of a volume or series, as
the listing prints it. Later programs need nothing but the place to find the volume again. If other
files lie below the folder, too, `among` lists the patient's own files (`Patient.ct_files`), so that
the others are not read.
"""

import hashlib
import re
from dataclasses import replace

from segthor import files
from segthor.dicom import RTSTRUCT, SEG, DicomError, index, series, structures
from segthor.dicom.origin import Origin
from segthor.dicom.series import Stack
from segthor.dicom.volumes import SeriesVolume
from segthor.organs import Organs
from segthor.volume import LabelMap, Volume

SEPARATOR = "#"
_UID = re.compile(r"[0-9.]{1,64}")
_NOT_REFERABLE = ("series_sop_uids", "series_uids")


def stack(place: str, among=()) -> Stack:
    """The slices of the volume at a place; see `find_volume`."""
    return find_volume(place, among)[1].stack


def find_volume(place: str, among=()) -> tuple[index.TreePatient, SeriesVolume]:
    """Finds the volume at a place, and its patient.

    among: The files to read; by default all below the folder.

    Raises:
      DicomError: 'file_missing', several volumes, or the problem of the only one.
    """
    folder, name = parts(place)
    if not files.exists(folder):
        raise DicomError("file_missing", f"{folder}: no such folder; expected a CT series")
    if among:  # without the other volumes of its series, the volume has no number in its name
        read, name = index.index_headers(index.headers(among), folder), name.partition("-")[0]
    else:
        read = index.index_folder(folder)
    patients = [patient for patient in read.patients if patient.volumes_named(name)]
    if not patients:
        raise DicomError("file_missing", f"{place}: expected a CT series, found none")
    if len(patients) > 1:
        message = f"{place}: expected one patient, found {len(patients)}; name one FOLDER#SERIES"
        raise DicomError("series_several_volumes", message)
    case = patients[0].case_named(name)
    if case.problem:
        raise case.problem
    return patients[0], case.volume


def read(place: str, digest=None, most_bytes: int | None = None, among=()) -> Volume:
    """Reads the volume at a place, in HU; see `series.read_stack`. Raises as `find_volume` does."""
    volume = find_volume(place, among)[1]
    scan = series.read_stack(volume.stack, digest, most_bytes)
    return replace(scan, acquisition=volume.traits.to_json())


def read_contours(
    path: str, place: str, organs: Organs, roi_names=(), among=(), digest=None
) -> LabelMap:
    """Reads a structure set on the volume at a place; see `structures.read`.

    digest: A hashlib object, updated with the bytes of the file.
    """
    labels = structures.read(path, stack(place, among), organs, roi_names)
    if digest:
        digest.update(files.read_bytes(path))
    return labels


def write(
    place: str, labels: LabelMap, paths: dict, made: dict, probabilities=None, among=()
) -> dict:
    """Writes a label map as DICOM objects that refer to the images of its scan.

    Args:
      place: The scan.
      labels: Label map on the grid of the scan; all organs of its table are written.
      paths: Format, one of `segthor.dicom.FORMATS`, to path.
      made: Fields of `Origin`.
      probabilities: See `_write_structures`.
      among: As in `find_volume`.

    Returns:
      Format to path; None instead of a path for a structure set without a contour.

    Raises:
      DicomError: As `find_volume`, and for images that no object can refer to.
    """
    volume, origin, written = stack(place, among), Origin(**made), dict(paths)
    check_references(volume)
    for kind, path in paths.items():
        if kind != RTSTRUCT:
            _write_segmentation(path, volume, labels, origin, kind)
        elif not _write_structures(path, volume, labels, origin, probabilities or {}):
            written[kind] = None
    return written


def _write_segmentation(path: str, volume: Stack, labels: LabelMap, origin, kind: str) -> None:
    from segthor.dicom import segmentation  # slow import, for writing only

    kind = segmentation.BINARY if kind == SEG else segmentation.LABELMAP
    planes = volume.to_planes(labels.zyx)
    segmentation.write_segmentation(path, volume, planes, labels.organs, origin, kind)


def _write_structures(path: str, volume: Stack, labels: LabelMap, origin, probabilities) -> bool:
    """Writes a structure set, unless no organ has a contour; returns whether it did.

    probabilities: Organ to uint8 [Z, Y, X], of all organs of one network; outlines then run where
      two classes are equally probable. Empty: they run half-way between voxels.
    """
    from segthor.dicom import structure_writer  # slow import, for writing only

    maps = {name: volume.to_planes(zyx) for name, zyx in probabilities.items()}
    margin = structure_writer.margin_of(maps) if maps else None
    drawn = structure_writer.outlines(volume.to_planes(labels.zyx), labels.organs, margin)
    if drawn:
        structure_writer.write_structures(path, volume, drawn, origin)
    return bool(drawn)


def check_references(volume: Stack) -> None:
    """Raises DicomError if a structure set or SEG cannot refer to the images of a volume."""
    why = [f"{code}: {message}" for code, message in volume.findings if code in _NOT_REFERABLE]
    uids = [one.sop_instance_uid for one in volume.instances]
    uids += [volume.series_uid, volume.study_uid, volume.frame_of_reference_uid]
    if not all(map(_UID.fullmatch, uids)):
        why.append("its UIDs are not of digits and points, at most 64 characters")
    if why:
        message = f"{volume.instances[0].path}: no structure set or SEG can refer to this series"
        raise DicomError("series_sop_uids", f"{message} ({why[0]}); leave out these formats")


def stamp(place: str, among=()) -> str:
    """A stamp that changes when a file below the folder changes, or one of `among`.

    Raises:
      OSError: There is no such folder.
    """
    folder, _ = parts(place)
    if not files.exists(folder):
        raise FileNotFoundError(f"{folder}: no such folder")
    stamps = [f"{path} {index.stamp(path)}" for path in among or index.find(folder)]
    return hashlib.sha256("\n".join(stamps).encode(errors="surrogatepass")).hexdigest()[:32]


def volume_stamp(place: str, among=()) -> str:
    """As `stamp`, but of the volume's own files; of `among` or all files for a broken volume."""
    try:
        own = stack(place, among).paths
    except DicomError:
        own = among
    return stamp(place, tuple(own))


def size(place: str, among=()) -> int:
    """Total size in bytes of all files below the folder, or of `among`."""
    paths = among or index.find(parts(place)[0])
    return sum(files.size(path) for path in paths if files.exists(path))


def exists(place: str) -> bool:
    """Whether the folder of the place exists."""
    return files.exists(parts(place)[0])


def parts(place: str) -> tuple[str, str]:
    """(folder, name of the volume). The separator may also be part of a folder's name."""
    folder, separator, name = place.rpartition(SEPARATOR)
    return (place, "") if not separator or files.exists(place) else (folder, name)
