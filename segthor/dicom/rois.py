"""Reads a structure set (RTSTRUCT): its ROIs, their contours as they stand, which organs they are.

No message names a patient, or an ROI that was not used.
"""

from dataclasses import dataclass

from pydicom.uid import RTStructureSetStorage

from segthor import files
from segthor.dicom import DicomError, elements
from segthor.dicom.elements import items, text
from segthor.errors import InputError


@dataclass(frozen=True)
class Contour:
    """As it stands in the file. data: numbers in text, x\\y\\z..., LPS mm. images: SOP UIDs.

    count: the number of points as the file gives it, '' where it does not.
    """

    kind: str
    data: bytes
    count: str
    images: tuple[str, ...]


@dataclass(frozen=True)
class Roi:
    """A region of interest. contours: one tuple for each item of the file that refers to it."""

    number: str
    name: str
    frame_of_reference_uid: str
    contours: tuple[tuple[Contour, ...], ...]


@dataclass(frozen=True)
class StructureSet:
    """series_uids: the series that it says it was drawn on, often none or another one's."""

    path: str
    study_uid: str
    series_uids: tuple[str, ...]
    rois: tuple[Roi, ...]


def read(path: str) -> StructureSet:
    """Reads a structure set, of any transfer syntax.

    Raises:
      DicomError: 'file_missing', 'file_not_dicom', 'file_damaged', or 'structures_none': another
        kind of DICOM object, or one without any ROI.
    """
    try:
        stream = files.open_read(path)
    except InputError as error:
        raise DicomError("file_missing", str(error)) from error
    with stream:
        dataset = elements.open_dataset(stream, path)
    try:
        return _structure_set(path, dataset)
    except DicomError:
        raise
    except Exception as error:  # pydicom raises many kinds when it turns bytes into values
        message = f"{path}: a damaged structure set ({type(error).__name__}); export it again"
        raise DicomError("file_damaged", message) from error


def match(structures: StructureSet, organs, names=()) -> list[tuple]:
    """(organ, ROI) of every organ that has one, in the organs' order.

    An ROI is an organ's where its name equals the organ's own, its TG-263 name or a synonym, but
    for case, `_`, `-` and spaces. names: (organ, ROI name) pairs; an organ found in them goes by
    these alone, letter for letter where that finds one, and their ROIs are no other organ's.

    Raises:
      DicomError: 'roi_ambiguous': two ROIs for one organ, or one number for two ROIs.
    """
    told = {organ: [name for other, name in names if other == organ] for organ, _ in names}
    taken = {plain(name) for _, name in names}
    found = []
    for organ in organs:
        if organ.name in told:
            exact = {name.strip() for name in told[organ.name]}
            rois = [roi for roi in structures.rois if roi.name.strip() in exact]
            wanted = {plain(name) for name in exact}
            rois = rois or [roi for roi in structures.rois if plain(roi.name) in wanted]
        else:
            wanted = {plain(name) for name in (organ.name, organ.tg263, *organ.synonyms)} - taken
            rois = [roi for roi in structures.rois if plain(roi.name) in wanted]
        if rois:
            found.append((organ, _only(structures, organ.name, rois)))
    return found


def plain(name: str) -> str:
    """What of an ROI's name counts: case-folded, without `_`, `-` and spaces."""
    return "".join(name.casefold().replace("_", "").replace("-", "").split())


def _only(structures, organ, rois) -> Roi:
    path, numbers = structures.path, [roi.number for roi in rois]
    if len(rois) > 1:
        message = (
            f"{path}: {organ}: ROIs {', '.join(numbers)} all have its name; tell which one it is"
        )
        raise DicomError("roi_ambiguous", message)
    if sum(roi.number == numbers[0] for roi in structures.rois) > 1 or len(rois[0].contours) > 1:
        message = f"{path}: {organ}: the number of its ROI, {numbers[0]}, is given twice"
        raise DicomError("roi_ambiguous", message)
    return rois[0]


def _structure_set(path, dataset) -> StructureSet:
    if text(dataset, "SOPClassUID") != RTStructureSetStorage or not items(
        dataset, "StructureSetROISequence"
    ):
        message = f"{path}: expected an RT structure set with at least one ROI"
        raise DicomError("structures_none", message)
    frames = items(dataset, "ReferencedFrameOfReferenceSequence")
    series = [
        text(one, "SeriesInstanceUID")
        for frame in frames
        for one in items(frame, "RTReferencedStudySequence", "RTReferencedSeriesSequence")
    ]
    drawn = {}
    for item in items(dataset, "ROIContourSequence"):
        drawn.setdefault(text(item, "ReferencedROINumber"), []).append(item)
    # An ROI that does not name its frame lies in the set's own, where there is exactly one.
    own = {text(one, "FrameOfReferenceUID") for one in [*frames, dataset]} - {""}
    default = own.pop() if len(own) == 1 else ""
    rois = []
    for item in items(dataset, "StructureSetROISequence"):
        number = text(item, "ROINumber")
        parts = tuple(
            tuple(_contour(one) for one in items(part, "ContourSequence"))
            for part in drawn.get(number, [])
        )
        frame = text(item, "ReferencedFrameOfReferenceUID") or default
        rois.append(Roi(number, _name(item), frame, parts))
    return StructureSet(path, text(dataset, "StudyInstanceUID"), tuple(series), tuple(rois))


def _contour(item) -> Contour:
    images = items(item, "ContourImageSequence")
    return Contour(
        text(item, "ContourGeometricType"),
        text(item, "ContourData").encode("latin-1"),
        text(item, "NumberOfContourPoints"),
        tuple(text(image, "ReferencedSOPInstanceUID") for image in images),
    )


def _name(item) -> str:
    value = item.get("ROIName")
    return "" if value is None else str(value)
