"""Reads the volume at a place: FOLDER, FOLDER#VOLUME or FILE.dcm.

FOLDER alone is enough where one volume lies below it; otherwise VOLUME is the name of one of its
volumes or series, as the listing prints it. A place is all that later programs need to find the
volume again. Where other files lie below its folder too, a patient brings the list of its own
files (`among`), so that the others are neither read nor waited for.
"""

import hashlib
import re
from dataclasses import replace

from segthor import files
from segthor.dicom import RTSTRUCT, SEG, DicomError, index, matching, series, structures
from segthor.dicom.origin import Origin
from segthor.dicom.series import Stack
from segthor.dicom.volumes import Volume
from segthor.organs import Organs
from segthor.volume import LabelMap
from segthor.volume import Volume as VolumeInMemory

SEPARATOR = "#"
_UID = re.compile(r"[0-9.]{1,64}")
_NOT_REFERABLE = ("series_sop_uids", "series_uids")


def stack(place: str, among=()) -> Stack:
    """The slices of the volume at a place; see `find_volume`."""
    return find_volume(place, among)[1].stack


def find_volume(place: str, among=()) -> tuple[index.Patient, Volume]:
    """The volume at a place, and whose it is.

    among: the files to look at, where not all below the folder.

    Raises:
      DicomError: 'file_missing'; more than one volume there, or what is wrong with the only one.
    """
    folder, name = parts(place)
    if not files.exists(folder):
        raise DicomError("file_missing", f"{folder}: no such folder; expected a CT series")
    read = index.of_files(among, folder) if among else index.of_folder(folder)
    if among:  # the files of one volume: its number among those of the series is gone
        name = name.partition("-")[0]
    held = [(patient, volumes_of(patient, name)) for patient in read.patients]
    held = [(patient, volumes) for patient, volumes in held if volumes]
    if not held:
        raise DicomError("file_missing", f"{place}: expected a CT series, found none")
    if len(held) > 1:
        message = f"{place}: expected one patient, found {len(held)}; name one FOLDER#SERIES"
        raise DicomError("series_several_volumes", message)
    patient, volumes = held[0]
    # Of several volumes, the one that the contours were drawn on.
    drawn = [case for case in patient.cases if case.problem is None and case.volume in volumes]
    case = drawn[0] if len(drawn) == 1 else patient.checked(matching.only_volume(volumes))
    if case.problem:
        raise case.problem
    return patient, case.volume


def read(place: str, digest=None, most_bytes: int | None = None, among=()) -> VolumeInMemory:
    """The volume at a place, in HU; see `series.read_stack`. Raises as `stack` does, too."""
    found = find_volume(place, among)[1]
    scan = series.read_stack(found.stack, digest, most_bytes)
    return replace(scan, acquisition=found.traits.to_json())


def read_contours(path: str, place: str, organs: Organs, roi_names=(), among=()) -> LabelMap:
    """A structure set on the volume at a place; see `structures.read`."""
    return structures.read(path, stack(place, among), organs, roi_names)


def write(
    place: str, labels: LabelMap, paths: dict, made: dict, probabilities=None, among=()
) -> dict:
    """Writes a label map as DICOM objects that refer to the images of its scan.

    Args:
      place: The scan.
      labels: On the scan's grid; the organs of its table are written.
      paths: Format, one of `segthor.dicom.FORMATS`, to file.
      made: What made the labels, and when: the fields of `Origin`.
      probabilities: Organ -> uint8 [Z, Y, X], of one network of all its organs; outlines then run
        where two classes are equally probable. None: they run half-way between voxels.
      among: As in `stack`.

    Returns:
      Format to the file's path; None for a structure set that would hold no contour.

    Raises DicomError as `stack` does, and for images that nothing can refer to.
    """
    from segthor.dicom import segmentation, structure_writer  # slow to import; writers need them

    volume, origin, written = stack(place, among), Origin(**made), dict(paths)
    check_references(volume)
    planes = volume.to_planes(labels.zyx)
    for kind, path in paths.items():
        if kind != RTSTRUCT:
            kind = segmentation.BINARY if kind == SEG else segmentation.LABELMAP
            segmentation.write_segmentation(path, volume, planes, labels.organs, origin, kind)
            continue
        maps = {name: volume.to_planes(zyx) for name, zyx in (probabilities or {}).items()}
        margin = structure_writer.margin_of(maps) if maps else None
        drawn = structure_writer.outlines(planes, labels.organs, margin)
        if drawn:
            structure_writer.write_structures(path, volume, drawn, origin)
        else:
            written[kind] = None
    return written


def check_references(volume: Stack) -> None:
    """Raises DicomError where a structure set or SEG could not refer to a volume's images."""
    why = [f"{code}: {message}" for code, message in volume.findings if code in _NOT_REFERABLE]
    uids = [one.sop_instance_uid for one in volume.instances]
    uids += [volume.series_uid, volume.study_uid, volume.frame_of_reference_uid]
    if not all(map(_UID.fullmatch, uids)):
        why.append("its UIDs are not of digits and points, at most 64 characters")
    if why:
        message = f"{volume.instances[0].path}: no structure set or SEG can refer to this series"
        raise DicomError("series_sop_uids", f"{message} ({why[0]}); leave out these formats")


def stamp(place: str, among=()) -> str:
    """A mark that changes when a file below the place's folder does, or one of those `among`.

    Raises OSError where there is no such folder.
    """
    folder, _ = parts(place)
    if not files.exists(folder):
        raise FileNotFoundError(f"{folder}: no such folder")
    marks = [f"{path} {_stamp_of_file(path)}" for path in among or index.find(folder)]
    return hashlib.sha256("\n".join(marks).encode(errors="surrogatepass")).hexdigest()[:32]


def volume_stamp(place: str, among=()) -> str:
    """As `stamp`, of the volume's own files alone; of all of them where none can be read."""
    try:
        own = stack(place, among).paths
    except DicomError:
        own = among
    return stamp(place, tuple(own))


def _stamp_of_file(path: str) -> str:
    try:
        return files.stamp(path)
    except OSError:  # a link to nothing, which the index reports
        return ""


def size(place: str, among=()) -> int:
    """Bytes of all files below the place's folder, or of those `among`."""
    paths = among or index.find(parts(place)[0])
    return sum(files.size(path) for path in paths if files.exists(path))


def exists(place: str) -> bool:
    """Whether the place's folder is there."""
    return files.exists(parts(place)[0])


def parts(place: str) -> tuple[str, str]:
    """Folder and name of a volume; a folder's own name may hold the separator."""
    folder, separator, name = place.rpartition(SEPARATOR)
    return (place, "") if not separator or files.exists(place) else (folder, name)


def volumes_of(patient: index.Patient, name: str) -> list:
    """A patient's volumes of that name or that series' name; all for ''."""
    return [
        volume
        for volume in patient.volumes
        if name in ("", volume.name, index.series_name(volume.series_uid))
    ]
