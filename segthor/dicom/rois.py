"""Reads a structure set (RTSTRUCT or SEG), and matches its ROIs with the organs of a table.

No message contains the name of a patient, or of an ROI that is not used.
"""

import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass

from pydicom.sr.coding import Code

from segthor.dicom import DicomError, elements
from segthor.dicom.elements import items, text
from segthor.dicom.headers import LABELMAP_SEG, REFERENCED_SERIES, RTSTRUCT, SEG
from segthor.organs import Organ, Organs, plain_name

CLOSED_PLANAR, XOR = "CLOSED_PLANAR", "CLOSEDPLANAR_XOR"
INTERPOLATED = "INTERPOLATED_PLANAR"  # written by OsiriX and Horos for interpolated contours
CLOSED_KINDS = (CLOSED_PLANAR, XOR, INTERPOLATED)


@dataclass(frozen=True)
class Contour:
    """One contour, with values as in the file.

    kind: ContourGeometricType.
    data: ContourData, the text x\\y\\z..., LPS mm.
    count: NumberOfContourPoints; '' where it is missing.
    images: SOPInstanceUIDs of the images that the contour refers to.
    """

    kind: str
    data: bytes
    count: str
    images: tuple[str, ...]


@dataclass(frozen=True)
class Roi:
    """A region of interest, or a segment of a SEG.

    number: ROINumber, or SegmentNumber.
    name: ROIName, or SegmentLabel.
    frame_of_reference_uid: UID of the frame of reference.
    contours: One tuple for each item of the file that refers to the ROI; empty for a segment.
    code: The type of a segment, if it has a code.
    is_segment: Whether this is a segment, whose pixels `segments` reads.
    """

    number: str
    name: str
    frame_of_reference_uid: str
    contours: tuple[tuple[Contour, ...], ...] = ()
    code: Code | None = None
    is_segment: bool = False

    @property
    def is_drawn(self) -> bool:
        """Whether this is a segment, or has a closed contour."""
        drawn = (contour for part in self.contours for contour in part)
        return self.is_segment or any(one.data and one.kind in CLOSED_KINDS for one in drawn)


@dataclass(frozen=True)
class StructureSet:
    """A structure set or SEG.

    path: The file.
    series_uids: Series that it refers to; often none, or the wrong one.
    rois: The ROIs or segments.
    """

    path: str
    series_uids: tuple[str, ...]
    rois: tuple[Roi, ...]


def read_date(path: str) -> str:
    """The date of review of a structure set, else of its creation, as YYYYMMDD; '' for neither."""
    keywords = ["ReviewDate", "StructureSetDate"]
    dataset = elements.read_dataset(path, keywords)
    dates = (text(dataset, keyword) for keyword in keywords)
    return next((one for one in dates if re.fullmatch(r"(19|20)\d{6}", one)), "")


def read(path: str) -> StructureSet:
    """Reads a structure set or SEG.

    Raises:
      DicomError: 'file_missing', 'file_not_dicom', 'file_damaged', 'file_truncated', or
        'structures_none' for another DICOM object, or one without ROIs.
    """
    dataset = elements.read_dataset(path)
    with elements.report_damage(f"{path}: a damaged structure set", "export it again"):
        return _structure_set(path, dataset)


def match(structures: StructureSet, organs: Organs, roi_names=()) -> list[tuple[Organ, Roi]]:
    """Matches organs with ROIs by name; returns (organ, ROI) pairs in the order of the table.

    The name of an organ's ROI is one of `Organ.known_as`, compared by `plain_name`; a segment may
    have the organ's code instead. ROIs without contours are ignored if another ROI of the organ has
    contours. Raises DicomError 'roi_ambiguous' for two ROIs of one organ, one ROI of two organs, or
    one number of two ROIs.

    roi_names: (organ, ROI name) pairs. An organ in them has only ROIs with exactly these names, or,
      if there is none, with equal `plain_name`. No other organ gets these ROIs.
    """
    user_names = defaultdict(list)
    for organ, name in roi_names:
        user_names[organ].append(name)
    reserved = {plain_name(name) for _, name in roi_names}
    matched, owners = [], {}
    for organ in organs:
        if organ.name in user_names:
            rois = _find_by_name(structures.rois, user_names[organ.name])
        else:
            rois = _find_by_table(structures.rois, organ, reserved)
        if rois:
            matched.append((organ, _choose(structures, organ.name, rois)))
    for organ, roi in matched:
        other = owners.setdefault(roi.number, organ.name)
        if other != organ.name:
            message = f"{organ.name}: its ROI was given to {other} as well"
            raise DicomError("roi_ambiguous", f"{structures.path}: {message}")
    return matched


def _find_by_table(rois, organ: Organ, reserved) -> list[Roi]:
    """The ROIs with a name or code of the organ; `reserved` names belong to other organs."""
    names = organ.known_as - reserved
    code = Code(organ.snomed, "SCT", "") if organ.snomed else None
    return [
        roi
        for roi in rois
        if plain_name(roi.name) in names or (code and roi.code and roi.code == code)
    ]


def _find_by_name(rois, names) -> list[Roi]:
    """The ROIs with exactly these names, else those with equal `plain_name`."""
    exact = {_normalize(name) for name in names}
    plain = {plain_name(name) for name in names} - {""}
    return [roi for roi in rois if _normalize(roi.name) in exact] or [
        roi for roi in rois if plain_name(roi.name) in plain
    ]


def _normalize(name: str) -> str:
    """The name in Unicode's composed form (NFC), without blanks around it."""
    return unicodedata.normalize("NFC", name.strip())


def _choose(structures, organ: str, rois) -> Roi:
    """The only ROI with contours; raises DicomError where it is ambiguous."""
    rois = [roi for roi in rois if roi.is_drawn] or rois[:1]
    where, number = f"{structures.path}: {organ}", rois[0].number
    if len(rois) > 1:
        numbers = ", ".join(_printable(roi.number) for roi in rois)
        message = f"ROIs {numbers} all have a name of this organ; name one with --roi_names"
        raise DicomError("roi_ambiguous", f"{where}: {message}")
    if sum(roi.number == number for roi in structures.rois) > 1 or len(rois[0].contours) > 1:
        message = f"{where}: two ROIs have the number of its ROI; export it again"
        raise DicomError("roi_ambiguous", message)
    return rois[0]


def _printable(number: str) -> str:
    """The number of an ROI; '?' for any other text, which might identify the patient."""
    return number if re.fullmatch("[0-9]{1,9}", number) else "?"


def _structure_set(path, dataset) -> StructureSet:
    sop_class = text(dataset, "SOPClassUID")
    if sop_class in (SEG, LABELMAP_SEG) and items(dataset, "SegmentSequence"):
        return _segments(path, dataset)
    if sop_class != RTSTRUCT or not items(dataset, "StructureSetROISequence"):
        message = f"{path}: expected an RT structure set or SEG with at least one ROI"
        raise DicomError("structures_none", message)
    frames = items(dataset, "ReferencedFrameOfReferenceSequence")
    drawn = defaultdict(list)
    for item in items(dataset, "ROIContourSequence"):
        drawn[text(item, "ReferencedROINumber")].append(item)
    # An ROI without a frame of reference has that of the set, if there is exactly one.
    own = {text(one, "FrameOfReferenceUID") for one in [*frames, dataset]} - {""}
    default = own.pop() if len(own) == 1 else ""
    rois = []
    for item in items(dataset, "StructureSetROISequence"):
        number = text(item, "ROINumber")
        parts = tuple(
            tuple(_contour(one) for one in items(part, "ContourSequence")) for part in drawn[number]
        )
        frame = text(item, "ReferencedFrameOfReferenceUID") or default
        rois.append(Roi(number, str(item.get("ROIName") or ""), frame, parts))
    return _make_set(path, dataset, rois, *REFERENCED_SERIES)


def _segments(path, dataset) -> StructureSet:
    frame = text(dataset, "FrameOfReferenceUID")
    rois = []
    for item in items(dataset, "SegmentSequence"):
        codes = items(item, "SegmentedPropertyTypeCodeSequence")
        code = None
        if codes:
            code = Code(text(codes[0], "CodeValue"), text(codes[0], "CodingSchemeDesignator"), "")
        number = str(elements.whole(item, "SegmentNumber"))
        label = str(item.get("SegmentLabel") or "")
        rois.append(Roi(number, label, frame, code=code, is_segment=True))
    return _make_set(path, dataset, rois, "ReferencedSeriesSequence")


def _make_set(path, dataset, rois, *keywords: str) -> StructureSet:
    """keywords: Of the nested sequences that name the referenced series."""
    series = tuple(text(one, "SeriesInstanceUID") for one in items(dataset, *keywords))
    return StructureSet(path, series, tuple(rois))


def _contour(item) -> Contour:
    images = items(item, "ContourImageSequence")
    return Contour(
        text(item, "ContourGeometricType"),
        text(item, "ContourData").encode("latin-1"),
        text(item, "NumberOfContourPoints"),
        tuple(text(image, "ReferencedSOPInstanceUID") for image in images),
    )
