"""Where a patient's CT lies among DICOM files, as one word: FOLDER, FOLDER#SERIES or FILE.dcm.

FOLDER alone where one volume lies below it; otherwise SERIES names one of its series, as the
listing does (`index.listing`). A place is all that later programs need to find the volume again.
Where others' files lie below its folder too, a patient may bring the list of its own (`among`), so
that nobody looks through all of them once more.
"""

import functools
import hashlib

from segthor import files
from segthor.dicom import (
    RTSTRUCT,
    SEG,
    DicomError,
    index,
    matching,
    series,
    structures,
)
from segthor.dicom.origin import Origin
from segthor.dicom.series import Stack
from segthor.nifti import Scan
from segthor.organs import Organs

SEPARATOR = "#"


def stack(place: str, among=()) -> Stack:
    """The volume at a place. among: the files to look at, where not all below the folder.

    Raises:
      DicomError: 'file_missing'; more than one volume there, or what is wrong with the only one.
    """
    folder, name = parts(place)
    if not files.exists(folder):
        raise DicomError("file_missing", f"{folder}: no such folder; expected a CT series")
    found = _index(folder, among, stamp(place, among))
    held = [(patient, volumes_of(patient, name)) for patient in found.patients]
    held = [(patient, volumes) for patient, volumes in held if volumes]
    if not held:
        raise DicomError("file_missing", f"{place}: expected a CT series, found none")
    if len(held) > 1:
        message = f"{place}: expected one patient, found {len(held)}; name one FOLDER#SERIES"
        raise DicomError("series_several_volumes", message)
    patient, volumes = held[0]
    if patient.damaged:
        raise patient.case.problem
    drawn_on = patient.case.stack
    # Of several volumes, the one that the contours were drawn on.
    return drawn_on if drawn_on in volumes else matching.only_volume(volumes)


def read(place: str, digest=None, most_bytes: int | None = None, among=()) -> Scan:
    """The volume at a place, in HU; see `series.read_stack`. Raises as `stack` does, too."""
    return series.read_stack(stack(place, among), digest, most_bytes)


def read_contours(
    path: str, place: str, organs: Organs, roi_names=(), among=()
) -> structures.Contoured:
    """A structure set on the volume at a place; see `structures.read`."""
    return structures.read(path, stack(place, among), organs, roi_names)


def write(
    place: str, labels, organs: Organs, paths: dict, made: dict, margin=None, among=()
) -> dict:
    """Writes a label map as DICOM objects that refer to the images of its scan.

    Args:
      place: The scan.
      labels: uint8 [X, Y, Z] on the scan's grid.
      organs: What to write.
      made: What made them, and when: the fields of `Origin`.
      paths: Format, one of `segthor.dicom.FORMATS`, to file.
      margin: (organ, slice) -> float [X, Y]; see `structure_writer.outlines`.
      among: As in `stack`.

    Returns:
      Format to the file's path; None for a structure set that would hold no contour.

    Raises DicomError as `stack` does.
    """
    from segthor.dicom import segmentation, structure_writer  # a second; only who writes needs it

    volume, origin, written = stack(place, among), Origin(**made), dict(paths)
    for kind, path in paths.items():
        if kind != RTSTRUCT:
            kind = segmentation.BINARY if kind == SEG else segmentation.LABELMAP
            segmentation.write_segmentation(path, volume, labels, organs, origin, kind)
            continue
        drawn = structure_writer.outlines(labels, organs, margin)
        if drawn:
            structure_writer.write_structures(path, volume, drawn, origin)
        else:
            written[kind] = None
    return written


def stamp(place: str, among=()) -> str:
    """A mark that changes when a file below the place's folder does, or one of those `among`.

    Raises OSError where there is no such folder.
    """
    folder, _ = parts(place)
    if not files.exists(folder):
        raise FileNotFoundError(f"{folder}: no such folder")
    marks = [f"{path} {_stamp_of_file(path)}" for path in among or index.find(folder)]
    return hashlib.sha256("\n".join(marks).encode(errors="surrogatepass")).hexdigest()[:32]


def _stamp_of_file(path: str) -> str:
    try:
        return files.stamp(path)
    except OSError:  # a link to nothing, which the index reports
        return ""


def size(place: str, among=()) -> int:
    """Bytes of all files below the place's folder, or of those `among`."""
    found = among or index.find(parts(place)[0])
    return sum(files.size(path) for path in found if files.exists(path))


def exists(place: str) -> bool:
    """Whether the place's folder is there."""
    return files.exists(parts(place)[0])


def parts(place: str) -> tuple[str, str]:
    """Folder and series' name; a folder's own name may hold the separator."""
    folder, separator, name = place.rpartition(SEPARATOR)
    return (place, "") if not separator or files.exists(place) else (folder, name)


@functools.lru_cache(maxsize=4)
def _index(folder: str, among: tuple[str, ...], mark: str) -> index.Index:
    """mark: the files' stamp, so that what was read before a change is not taken for it."""
    del mark
    return index.of_files(among, folder) if among else index.of_folder(folder)


def volumes_of(one: index.Patient, name: str) -> list:
    """A patient's, `Stack` or error, of the series of that name or of all."""
    return [v for s in one.series if name in ("", s.name) for v in s.volumes]
