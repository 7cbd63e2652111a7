"""Reads a structure set (RTSTRUCT or SEG): its ROIs, their contours, which organs they are.

No message names a patient, or an ROI that was not used.
"""

import re
import unicodedata
from dataclasses import dataclass

from pydicom.sr.coding import Code

from segthor import files
from segthor.dicom import DicomError, elements
from segthor.dicom.elements import items, text
from segthor.dicom.headers import LABELMAP_SEG, RTSTRUCT, SEG
from segthor.errors import InputError
from segthor.organs import Organ, Organs, plain_name

CLOSED_PLANAR, XOR = "CLOSED_PLANAR", "CLOSEDPLANAR_XOR"
INTERPOLATED = "INTERPOLATED_PLANAR"  # how OsiriX and Horos write what they interpolated
CLOSED_KINDS = (CLOSED_PLANAR, XOR, INTERPOLATED)


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
    """A region of interest, or a segment of a SEG.

    contours: One tuple for each item of the file that refers to it; none for a segment.
    code: What a segment is, where its code says so.
    is_segment: Whether it is drawn as pixels; see `segments`.
    """

    number: str
    name: str
    frame_of_reference_uid: str
    contours: tuple[tuple[Contour, ...], ...] = ()
    code: Code | None = None
    is_segment: bool = False

    @property
    def is_drawn(self) -> bool:
        """Whether it has a closed contour or is a segment."""
        drawn = (contour for part in self.contours for contour in part)
        return self.is_segment or any(one.data and one.kind in CLOSED_KINDS for one in drawn)


@dataclass(frozen=True)
class StructureSet:
    """A structure set or SEG.

    series_uids: The series that it says it was drawn on, often none or another one's.
    """

    path: str
    study_uid: str
    series_uids: tuple[str, ...]
    rois: tuple[Roi, ...]


def date(path: str) -> str:
    """YYYYMMDD on which a structure set was reviewed, or else made; '' where it does not say."""
    with files.open_read(path) as stream:
        dataset = elements.open_dataset(stream, path, tags=["ReviewDate", "StructureSetDate"])
    dates = (text(dataset, keyword) for keyword in ("ReviewDate", "StructureSetDate"))
    return next((one for one in dates if re.fullmatch(r"(19|20)\d{6}", one)), "")


def read(path: str) -> StructureSet:
    """Reads a structure set, of any transfer syntax.

    Raises:
      DicomError: 'file_missing', 'file_not_dicom', 'file_damaged', 'file_truncated', or
        'structures_none': another kind of DICOM object, or one without any ROI.
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


def match(structures: StructureSet, organs: Organs, roi_names=()) -> list[tuple[Organ, Roi]]:
    """Every organ that has an ROI, in the table's order.

    An ROI is an organ's where its name is one of `Organ.known_as`, but for case, `_`, `-` and
    blanks; a segment also where its code is the organ's. ROIs without contours are passed over
    where another one of the organ has some. roi_names: (organ, ROI name) pairs; an organ in them
    goes by these alone, letter for letter where that finds one, and their ROIs are no other
    organ's.

    Raises:
      DicomError: 'roi_ambiguous': two ROIs for one organ, one ROI for two organs, or one number for
        two ROIs.
    """
    told = {}
    for organ, name in roi_names:
        told.setdefault(organ, []).append(name)
    taken = {plain_name(name) for _, name in roi_names}
    found = []
    for organ in organs:
        if organ.name in told:
            rois = _told(structures.rois, told[organ.name])
        else:
            own = organ.known_as - taken
            rois = [
                roi
                for roi in structures.rois
                if plain_name(roi.name) in own
                or (roi.code and organ.snomed and roi.code == Code(organ.snomed, "SCT", ""))
            ]
        if rois:
            found.append((organ, _only(structures, organ.name, rois)))
    owners = {}
    for organ, roi in found:
        if owners.setdefault(roi.number, organ.name) != organ.name:
            message = f"its ROI was given to {owners[roi.number]} as well"
            raise DicomError("roi_ambiguous", f"{structures.path}: {organ.name}: {message}")
    return found


def _told(rois, names) -> list[Roi]:
    """The ROIs of these names to the letter, else but for case, `_`, `-` and blanks."""
    exact = {_letters(name) for name in names}
    alike = {plain_name(name) for name in names} - {""}
    return [roi for roi in rois if _letters(roi.name) in exact] or [
        roi for roi in rois if plain_name(roi.name) in alike
    ]


def _letters(name: str) -> str:
    """A name with each accent as one character, however it is stored."""
    return unicodedata.normalize("NFC", name.strip())


def _only(structures, organ: str, rois) -> Roi:
    rois = [roi for roi in rois if roi.is_drawn] or rois[:1]
    where, number = f"{structures.path}: {organ}", rois[0].number
    if len(rois) > 1:
        numbers = ", ".join(_printable(roi.number) for roi in rois)
        message = f"{where}: ROIs {numbers} all go by its names; say which one it is"
        raise DicomError("roi_ambiguous", message)
    if sum(roi.number == number for roi in structures.rois) > 1 or len(rois[0].contours) > 1:
        message = f"{where}: the number of its ROI is given twice; export it again"
        raise DicomError("roi_ambiguous", message)
    return rois[0]


def _printable(number: str) -> str:
    """A number as it stands in the file; '?' where it is a text, which may tell whose it is."""
    return number if re.fullmatch("[0-9]{1,9}", number) else "?"


def _structure_set(path, dataset) -> StructureSet:
    sop_class = text(dataset, "SOPClassUID")
    if sop_class in (SEG, LABELMAP_SEG) and items(dataset, "SegmentSequence"):
        return _segments(path, dataset)
    if sop_class != RTSTRUCT or not items(dataset, "StructureSetROISequence"):
        message = f"{path}: expected an RT structure set or SEG with at least one ROI"
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


def _segments(path, dataset) -> StructureSet:
    frame = text(dataset, "FrameOfReferenceUID")
    series = [text(one, "SeriesInstanceUID") for one in items(dataset, "ReferencedSeriesSequence")]
    rois = []
    for item in items(dataset, "SegmentSequence"):
        codes = items(item, "SegmentedPropertyTypeCodeSequence")
        code = None
        if codes:
            code = Code(text(codes[0], "CodeValue"), text(codes[0], "CodingSchemeDesignator"), "")
        number = str(elements.whole(item, "SegmentNumber"))
        label = str(item.get("SegmentLabel") or "")
        rois.append(Roi(number, label, frame, code=code, is_segment=True))
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
