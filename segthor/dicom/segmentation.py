"""Writes a label map as DICOM SEG, with highdicom.

Frames without a voxel are written, too: without them some viewers show segments on wrong slices.
"""

import logging
import struct

import highdicom
import numpy as np
from highdicom.seg import SegmentationTypeValues, SegmentDescription
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from segthor.dicom import SOFTWARE, elements
from segthor.dicom.elements import make_item
from segthor.dicom.origin import DRAFT, Origin, copy_patient, make_image_items, roi_name, write
from segthor.dicom.series import Stack
from segthor.organs import Organs

# Its messages contain data of the patient.
logging.getLogger("highdicom").addHandler(logging.NullHandler())
logging.getLogger("highdicom").propagate = False
BINARY, LABELMAP = "binary", "labelmap"
_ANATOMY = codes.SCT.AnatomicalStructure
_ITEM = struct.Struct("<HHL")
_METHOD = codes.DCM.ArtificialIntelligence
# Attributes that highdicom requires of a source image; `_replace_attributes` sets them.
_PLACEHOLDERS = (
    "PatientID PatientName PatientBirthDate PatientSex AccessionNumber StudyID StudyDate StudyTime"
).split()


def write_segmentation(
    path: str,
    stack: Stack,
    labels: np.ndarray,
    organs: Organs,
    origin: Origin,
    kind: str = BINARY,
) -> None:
    """Writes the organs of a label map, atomically; the same input gives the same bytes.

    Args:
      path: The file.
      stack: The slices of the CT.
      labels: Integers [slice, row, column] of the stack.
      organs: The organs to write. Segments are numbered from 1 in their order, including those
        without a voxel.
      origin: What made the label map.
      kind: 'binary', which all viewers support, or 'labelmap'.
    """
    made = _make_segmentation(stack, _segment_numbers(labels, organs), organs, origin, kind)
    _replace_attributes(made, stack, origin)
    frames, pixels = made.pop(Tag("PerFrameFunctionalGroupsSequence")), made.pop(Tag("PixelData"))
    pixels.VR = "OB"  # required for samples of at most 8 bits
    write(path, made, ExplicitVRLittleEndian, _encode_frames(frames) + _encode(pixels))


def _make_segmentation(stack, planes: np.ndarray, organs, origin, kind: str):
    """highdicom's object. planes: Segment numbers [slice, row, column]."""
    names = f"{kind} {organs.digest()}".encode()
    return highdicom.seg.Segmentation(
        source_images=_sources(stack),
        pixel_array=planes,
        segmentation_type=SegmentationTypeValues[kind.upper()],
        segment_descriptions=[
            _segment(number, organ, origin) for number, organ in enumerate(organs, 1)
        ],
        series_instance_uid=origin.uid(stack, "SEG series", names, planes),
        series_number=1,
        sop_instance_uid=origin.uid(stack, "SEG", names, planes),
        instance_number=1,
        manufacturer=SOFTWARE,
        manufacturer_model_name=SOFTWARE,
        software_versions=origin.version,
        device_serial_number=origin.model,
        content_label=origin.label,
        content_description=f"{SOFTWARE}: {DRAFT.lower()}",
        series_description=f"{SOFTWARE}: {DRAFT.lower()}",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=False,
    )


def _segment_numbers(labels: np.ndarray, organs: Organs) -> np.ndarray:
    """Label values to segment numbers, uint8 of the same shape."""
    numbers = np.zeros(256, np.uint8)
    for number, organ in enumerate(organs, 1):
        numbers[organ.label] = number
    planes = np.empty(labels.shape, np.uint8)
    for k, plane in enumerate(labels):
        planes[k] = np.take(numbers, plane.astype(np.uint8, copy=False))
    return planes


def _segment(number, organ, origin) -> SegmentDescription:
    """The description of a segment. Its type is the SNOMED code of the table, or a private code."""
    own = Code(roi_name(organ), "99" + SOFTWARE.upper(), organ.name)
    code = Code(organ.snomed, "SCT", organ.name) if organ.snomed else own
    return SegmentDescription(
        segment_number=number,
        segment_label=roi_name(organ),
        segmented_property_category=_ANATOMY,
        segmented_property_type=code,
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=SOFTWARE,
            version=origin.version,
            family=_METHOD,
            parameters={"model": origin.model},
        ),
        display_color=highdicom.color.CIELabColor.from_rgb(*organ.rgb),
    )


def _sources(stack) -> list[Dataset]:
    """The attributes of each source image that highdicom needs.

    `_replace_attributes` adds patient and study, and the frames of an enhanced file, which are
    given as single images here.
    """
    shared = make_item(
        **dict.fromkeys(_PLACEHOLDERS, ""),
        SOPClassUID=CTImageStorage,
        Modality="CT",
        StudyInstanceUID=stack.study_uid,
        SeriesInstanceUID=stack.series_uid,
        FrameOfReferenceUID=stack.frame_of_reference_uid,
        Columns=stack.shape[0],
        Rows=stack.shape[1],
        ImageOrientationPatient=_decimals(stack.orientation),
        PixelSpacing=_decimals(stack.pixel_spacing_mm),
        SliceThickness=_thickness(stack),
    )
    sources = []
    for k, instance in enumerate(stack.instances):
        # highdicom supports no frames of source images, and requires different UIDs.
        uid = instance.sop_instance_uid if instance.frame is None else f"2.25.{k}"
        position = _decimals(stack.positions_mm[k])
        sources.append(make_item(SOPInstanceUID=uid, ImagePositionPatient=position))
        sources[-1].update(shared)
    return sources


def _thickness(stack) -> DSfloat:
    """SliceThickness of the scan, else the distance between slices."""
    thickness = elements.numbers(stack.header, "SliceThickness", 1)
    if not thickness or thickness[0] <= 0:
        steps = np.linalg.norm(np.diff(stack.positions_mm, axis=0), axis=1)
        thickness = [float(steps.mean()) if len(steps) else 1.0]
    return _decimals(thickness)[0]


def _replace_attributes(made, stack, origin) -> None:
    """Replaces highdicom's times, random UIDs and placeholders by values of scan and origin."""
    made.update(copy_patient(stack.header, stack.study_uid))
    made.ContentDate = made.InstanceCreationDate = made.SeriesDate = origin.date
    made.ContentTime = made.InstanceCreationTime = made.SeriesTime = origin.time
    for item in made.ContributingEquipmentSequence:
        item.ContributionDateTime = origin.date + origin.time
    uid = origin.uid(stack, "SEG dimensions")
    for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
    if stack.instances[0].frame is not None:
        _refer_to_frames(made, stack)


def _refer_to_frames(made, stack) -> None:
    """Makes each frame refer to the frame of an enhanced file, and lists each file once."""
    frames = {tuple(_decimals(position)): k for k, position in enumerate(stack.positions_mm)}
    for item in made.PerFrameFunctionalGroupsSequence:
        k = frames[tuple(item.PlanePositionSequence[0].ImagePositionPatient)]
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        source.ReferencedSOPClassUID = stack.instances[k].sop_class_uid
        source.ReferencedSOPInstanceUID = stack.instances[k].sop_instance_uid
        source.ReferencedFrameNumber = stack.instances[k].frame + 1
    images = make_image_items(stack)
    made.SourceImageSequence = images
    made.ReferencedSeriesSequence[0].ReferencedInstanceSequence = images


def _encode_frames(frames: DataElement) -> bytes:
    """Encodes the frames as pydicom does, but equal elements of frames only once.

    Position and source of a slice are the same for all segments, the number of a segment for all
    slices. This takes a fifth off the time to write a file.
    """
    encoded, items = {}, []
    for frame in frames.value:
        # (segment, plane), or (plane,) in a label map, where all segments share a frame.
        *segment, plane = np.atleast_1d(frame.FrameContentSequence[0].DimensionIndexValues)
        keys = {"FrameContentSequence": (*segment, plane)}
        keys["SegmentIdentificationSequence"] = tuple(segment)
        parts = [(element, keys.get(element.keyword, plane)) for element in frame]
        for element, key in parts:
            if (element.tag, key) not in encoded:
                encoded[element.tag, key] = _encode(element)
        content = b"".join(encoded[element.tag, key] for element, key in parts)
        items.append(_ITEM.pack(0xFFFE, 0xE000, len(content)) + content)
    value = b"".join(items)
    return _encode(RawDataElement(frames.tag, "SQ", len(value), value, 0, False, True))


def _encode(element: DataElement | RawDataElement) -> bytes:
    """Encodes an element in explicit VR, little endian."""
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = False, True
    write_data_element(stream, element)
    return stream.getvalue()


def _decimals(numbers) -> list[DSfloat]:
    return [DSfloat(float(number), auto_format=True) for number in numbers]
