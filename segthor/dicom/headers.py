"""Reads from one DICOM file what indexing needs, without its pixel data.

A file that is not used is no error: `Header.kind` says what it is. Nothing that identifies the
patient (names, numbers, dates) is stored, except as a hash.
"""

import hashlib
import math
import re
from dataclasses import dataclass
from typing import NamedTuple

import pydicom
from pydicom.tag import Tag
from pydicom.uid import UID_dictionary

from segthor import files
from segthor.dicom import SOFTWARE, DicomError
from segthor.dicom.elements import groups_of_frame, items, numbers, open_dataset, text, whole
from segthor.dicom.traits import Traits, has_commas, read_traits, spacing_between_slices
from segthor.errors import InputError
from segthor.nifti import is_nifti

CT, STRUCTURES = "ct", "structures"  # kinds in use; other kinds say why a file is left aside
NOT_DICOM, NIFTI, UNREADABLE = "not DICOM", "NIfTI", "cannot be opened"
DAMAGED, LOCALIZER = "a damaged DICOM file", "localizer"
DRAFT = "draft of this software's, not approved"
DRAFT_SEG = "SEG of this software's, a draft"
SECONDARY = "secondary capture of a CT"
RTSTRUCT, SEG = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.5.1.4.1.1.66.4"
LABELMAP_SEG = "1.2.840.10008.5.1.4.1.1.66.7"
CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.1",  # enhanced: all slices in one file
    "1.2.840.10008.5.1.4.1.1.2.2",  # enhanced, converted from single slices
)
SECONDARY_CLASS = "1.2.840.10008.5.1.4.1.1.7"
_STRUCTURES_CLASSES = {RTSTRUCT, SEG, LABELMAP_SEG}
# The nested sequences of a structure set that name the series it refers to.
REFERENCED_SERIES = (
    "ReferencedFrameOfReferenceSequence RTReferencedStudySequence RTReferencedSeriesSequence"
).split()
_DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
_LOCALIZERS = {"LOCALIZER", "SCOUT", "TOPOGRAM", "SCANOGRAM", "SURVEY"}
_MAYBE_LOSSY = {"1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91"}  # near-lossless, JPEG 2000
_STANDARD_UID = "1.2.840.10008."
# Limits that no scanner exceeds.
_MOST_PIXELS, _LEAST_MM, _MOST_MM = 1 << 26, 1e-3, 1e5
_BLOCK_BYTES = 1 << 16  # per request to other file systems: holds most headers, without pixels

_KEYWORDS = (
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID PatientID "
    "Modality ImageType AcquisitionNumber Rows Columns SamplesPerPixel PixelSpacing "
    "ImagePositionPatient ImageOrientationPatient LossyImageCompression "
    "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence "
    "ReferencedFrameOfReferenceSequence StructureSetROISequence ReferencedSeriesSequence "
    "ApprovalStatus Manufacturer PatientPosition RescaleSlope RescaleIntercept SliceThickness "
    "SpacingBetweenSlices ConvolutionKernel ContrastBolusAgent SeriesDescription AcquisitionDate "
    "AcquisitionTime NominalPercentageOfCardiacPhase NominalPercentageOfRespiratoryPhase"
).split()
_UIDS = {
    "sop_class_uid": "SOPClassUID",
    "sop_instance_uid": "SOPInstanceUID",
    "study_uid": "StudyInstanceUID",
    "series_uid": "SeriesInstanceUID",
    "frame_of_reference_uid": "FrameOfReferenceUID",
}
_TAGS = [Tag(keyword) for keyword in _KEYWORDS]  # looked up once for all files


class Plane(NamedTuple):
    """Where one slice lies, in LPS; None for values that are missing or invalid.

    position_mm: Centre of the first pixel.
    orientation: Unit vectors along a row and down a column.
    spacing_mm: Distance between rows, and between columns.
    """

    position_mm: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    spacing_mm: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class References:
    """UIDs that a structure set refers to: frames of reference, series and images."""

    frames: tuple[str, ...]
    series: tuple[str, ...]
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """The header of one file.

    path: The file.
    kind: CT, STRUCTURES, or a text that says why the file is left aside.
    patient: Hash of the PatientID, '' without one. It is never written to a file: with a list of
      all PatientIDs it could be reversed.
    sop_class_uid, sop_instance_uid, study_uid, series_uid, frame_of_reference_uid: UIDs.
    acquisition: AcquisitionNumber, '' where there is none.
    rows, columns: Size of a CT slice in pixels.
    is_enhanced: Whether the file may hold several slices.
    is_derived: Whether the image was computed from others.
    is_lossy: Whether it was compressed with loss.
    planes: For a CT, one per frame; a single one in a file of one slice.
    references: For a structure set or SEG, including our drafts.
    spacing_mm: SpacingBetweenSlices, else SliceThickness; 0 for neither.
    has_commas: Whether numbers have a decimal comma.
    traits: Traits of a CT.
    """

    path: str
    kind: str
    patient: str = ""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_uid: str = ""
    series_uid: str = ""
    frame_of_reference_uid: str = ""
    acquisition: str = ""
    rows: int = 0
    columns: int = 0
    is_enhanced: bool = False
    is_derived: bool = False
    is_lossy: bool = False
    planes: tuple[Plane, ...] = ()
    references: References | None = None
    spacing_mm: float = 0.0
    has_commas: bool = False
    traits: Traits = Traits()


def read(path: str) -> Header:
    """Reads the header of any file or URL; decodes neither pixel data nor contours."""
    if is_nifti(path):
        return Header(path, NIFTI)
    try:
        with files.open_read(path, _BLOCK_BYTES) as stream:
            return _header(open_dataset(stream, path, _TAGS), path)
    except DicomError as error:
        # A file *.dcm without DICOM is damaged, as after a copy to a full disk.
        is_other = error.code == "file_not_dicom" and not path.lower().endswith(".dcm")
        return Header(path, NOT_DICOM if is_other else DAMAGED)
    except (InputError, OSError):
        return Header(path, UNREADABLE)
    except Exception:  # pydicom converts values lazily, and raises many types
        return Header(path, DAMAGED)


def _orientation(values) -> tuple[float, ...] | None:
    """Two perpendicular unit vectors from six numbers; None where they are not."""
    if values is None:
        return None
    lengths = [math.hypot(*values[:3]), math.hypot(*values[3:])]
    cosine = sum(a * b for a, b in zip(values[:3], values[3:], strict=True))
    if max(abs(length - 1) for length in lengths) > 1e-3 or abs(cosine) > 1e-3:
        return None
    return tuple(value / lengths[i // 3] for i, value in enumerate(values))


def _header(dataset, path: str) -> Header:
    uids = {name: text(dataset, keyword) for name, keyword in _UIDS.items()}
    sop_class = uids["sop_class_uid"]
    kind = _kind(dataset, sop_class)
    if kind == STRUCTURES and _is_draft(dataset):
        kind = DRAFT_SEG if sop_class in (SEG, LABELMAP_SEG) else DRAFT
    if kind not in (CT, STRUCTURES, DRAFT):
        return Header(path, kind)
    if not uids["series_uid"] or not uids["sop_instance_uid"]:
        return Header(path, DAMAGED)
    number = text(dataset, "PatientID")
    common = uids | {"patient": hashlib.sha256(number.encode()).hexdigest() if number else ""}
    if kind in (STRUCTURES, DRAFT):
        return Header(path, kind, **common, references=_references(dataset))
    return _image(dataset, path, common)


def _kind(dataset, sop_class: str) -> str:
    modality = text(dataset, "Modality")
    if dataset.file_meta.get("MediaStorageSOPClassUID", "") == _DICOMDIR_CLASS:
        return "DICOMDIR"
    if sop_class in _STRUCTURES_CLASSES or (not sop_class and modality == "RTSTRUCT"):
        return STRUCTURES
    if not sop_class and not modality:
        was_dicom = dataset.preamble is not None or text(dataset, "SeriesInstanceUID")
        return DAMAGED if was_dicom else NOT_DICOM
    if sop_class.startswith(SECONDARY_CLASS) and modality == "CT":
        return SECONDARY
    if sop_class and sop_class not in CT_CLASSES:
        # Prints only names of the standard: any other text may identify the patient.
        known = UID_dictionary.get(sop_class, ("",))[0].removesuffix(" Storage")
        is_private = re.fullmatch(r"[0-9.]+", sop_class) and not sop_class.startswith(_STANDARD_UID)
        if not known and modality == "CT" and not is_private:
            return DAMAGED
        return known or "an unknown kind of object"
    return CT if modality in ("CT", "") else "an image of another modality than CT"


def _is_draft(dataset) -> bool:
    """Whether a structure set or SEG is our own prediction, and has not been approved."""
    is_ours = text(dataset, "Manufacturer") == SOFTWARE
    return is_ours and text(dataset, "ApprovalStatus") != "APPROVED"


def _image(dataset, path: str, common: dict) -> Header:
    image_type = text(dataset, "ImageType").upper().split("\\")
    rows, columns = whole(dataset, "Rows"), whole(dataset, "Columns")
    if _LOCALIZERS & set(image_type):
        return Header(path, LOCALIZER)
    if whole(dataset, "SamplesPerPixel") > 1:
        return Header(path, "a colour image")
    if not 0 < rows * columns <= _MOST_PIXELS:
        return Header(path, DAMAGED)
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
    lossy = text(dataset, "LossyImageCompression")
    is_enhanced = "PerFrameFunctionalGroupsSequence" in dataset
    return Header(
        path,
        CT,
        **common,
        acquisition=text(dataset, "AcquisitionNumber"),
        rows=rows,
        columns=columns,
        is_enhanced=is_enhanced,
        is_derived=image_type[0] == "DERIVED",
        is_lossy=lossy == "01" or (syntax in _MAYBE_LOSSY and lossy != "00"),
        planes=_planes(dataset) if is_enhanced else (_plane(dataset, dataset, dataset),),
        spacing_mm=spacing_between_slices(dataset),
        has_commas=has_commas(dataset),
        traits=read_traits(dataset, image_type),
    )


def _planes(dataset) -> tuple[Plane, ...]:
    """The planes of an enhanced file, one per frame."""
    num_frames = len(dataset.PerFrameFunctionalGroupsSequence)
    return tuple(plane_of_frame(dataset, frame) for frame in range(num_frames))


def plane_of_frame(dataset, frame: int) -> Plane:
    """The plane of one frame of an enhanced file or a SEG."""
    keywords = "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"
    groups = [groups_of_frame(dataset, frame, keyword) for keyword in keywords]
    return _plane(*(group[0] if group else pydicom.Dataset() for group in groups))


def _plane(position_item, orientation_item, spacing_item) -> Plane:
    position = numbers(position_item, "ImagePositionPatient", 3)
    spacing = numbers(spacing_item, "PixelSpacing", 2)
    if position and max(map(abs, position)) > _MOST_MM:
        position = None
    if spacing and not all(_LEAST_MM <= mm < _MOST_MM for mm in spacing):
        spacing = None
    directions = _orientation(numbers(orientation_item, "ImageOrientationPatient", 6))
    return Plane(position, directions, spacing)


def _references(dataset) -> References:
    """References of a structure set, or of a SEG, which has frame and series at the top level."""
    frames = [
        *items(dataset, "ReferencedFrameOfReferenceSequence"),
        *items(dataset, "StructureSetROISequence"),
    ]
    frame_keys = ("FrameOfReferenceUID", "ReferencedFrameOfReferenceUID")
    series = items(dataset, *REFERENCED_SERIES) + items(dataset, "ReferencedSeriesSequence")
    images = [image for one in series for image in items(one, "ContourImageSequence")]
    images += [image for one in series for image in items(one, "ReferencedInstanceSequence")]
    return References(
        _uids(frames, *frame_keys) or _uids([dataset], *frame_keys),
        _uids(series, "SeriesInstanceUID"),
        _uids(images, "ReferencedSOPInstanceUID"),
    )


def _uids(datasets, *keywords) -> tuple[str, ...]:
    """The different values of these elements, in the order of the file."""
    values = (text(dataset, keyword) for dataset in datasets for keyword in keywords)
    return tuple(dict.fromkeys(filter(None, values)))
