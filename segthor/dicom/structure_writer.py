"""Writes a structure set (RTSTRUCT) of a scan that planning systems can import.

They refuse numbers of more than 16 bytes, labels of more than 16 characters, a first point that is
repeated at the end, and an incomplete chain of references from the frame of reference through study
and series to every image. Implicit VR is used because explicit VR allows only 64 KiB of contour
data.
"""

import functools

import numpy as np
from pydicom.charset import default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from segthor import contours
from segthor.boxes import label_boxes
from segthor.dicom import SOFTWARE, DicomError
from segthor.dicom.elements import make_code, make_item
from segthor.dicom.origin import DRAFT, Origin, copy_patient, make_image_items, roi_name, write
from segthor.dicom.series import Stack
from segthor.organs import Organ, Organs

_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # retired, but still required by the standard here


def outlines(planes: np.ndarray, organs: Organs, margin=None) -> list[tuple[Organ, dict]]:
    """The outlines of every organ that has a voxel.

    Holes are joined to their outer rings by keyholes.

    Args:
      planes: Integer label map [slice, row, column] of the stack.
      organs: The table of organs.
      margin: Function from (organ, slice) to float [X, Y]; see `segthor.contours.outline`.

    Returns:
      (organ, slice to rings in pixels) pairs.
    """
    boxes = label_boxes(planes)
    drawn = [(organ, {}) for organ in organs if organ.label in boxes]
    for k, plane in enumerate(planes):  # slice by slice, because `margin` caches those of a slice
        for organ, rings in drawn:
            slices, rows, columns = boxes[organ.label]
            if slices.start <= k < slices.stop:
                inside = np.zeros(plane.shape, bool)
                inside[rows, columns] = plane[rows, columns] == organ.label
                pieces = contours.outline(inside.T, margin and margin(organ, k))
                if pieces:
                    rings[k] = [contours.keyhole(piece) for piece in pieces]
    return drawn


def margin_of(maps: dict[str, np.ndarray]):
    """A function from (organ, slice) to its probability minus that of the best other class.

    maps: Organ to probability, uint8 [slice, row, column] with 255 for 1; the remainder is
      background.
    """
    classes = {name: number for number, name in enumerate(maps, 1)}

    @functools.lru_cache(maxsize=1)  # the organs of a slice are processed one after the other
    def of_slice(k: int) -> np.ndarray:
        shares = np.stack([planes[k].T for planes in maps.values()]).astype(np.float32) / 255
        return contours.margins(np.concatenate([1 - shares.sum(0, keepdims=True), shares]))

    return lambda organ, k: of_slice(k)[classes[organ.name]]


def write_structures(path: str, stack: Stack, drawn, origin: Origin) -> None:
    """Writes the outlines of organs, atomically; the same input gives the same bytes.

    drawn: (organ, slice to rings [N, 2] in pixels) pairs, as from `outlines`.

    Raises:
      DicomError: 'structures_none': No organ has a ring; an empty set could not be imported.
    """
    drawn = [(organ, rings) for organ, rings in drawn if any(rings.values())]
    if not drawn:
        raise DicomError("structures_none", f"{path}: no organ has a contour; nothing to write")
    numbered = [(number, organ) for number, (organ, _) in enumerate(drawn, 1)]
    rois = [_contour_items(stack, rings) for _, rings in drawn]
    content = [item.get_item(Tag("ContourData")).value for items in rois for item in items]
    names = repr([(one, len(items)) for one, items in zip(numbered, rois, strict=True)]).encode()
    dataset = copy_patient(stack.header, stack.study_uid)
    _set_attributes(dataset, stack, origin)
    dataset.SeriesInstanceUID = origin.uid(stack, "RTSTRUCT series", names, *content)
    dataset.SOPInstanceUID = origin.uid(stack, "RTSTRUCT", names, *content)
    dataset.ReferencedFrameOfReferenceSequence = [_frame_item(stack)]
    dataset.StructureSetROISequence = [_roi_item(stack, *one, origin) for one in numbered]
    dataset.ROIContourSequence = [
        make_item(
            ROIDisplayColor=list(organ.rgb), ContourSequence=items, ReferencedROINumber=number
        )
        for (number, organ), items in zip(numbered, rois, strict=True)
    ]
    dataset.RTROIObservationsSequence = [_observation_item(*one) for one in numbered]
    write(path, dataset, ImplicitVRLittleEndian)


def _set_attributes(dataset, stack, origin) -> None:
    """Sets the attributes of the object, except sequences and its own UIDs."""
    dataset.SOPClassUID = RTStructureSetStorage
    dataset.InstanceCreationDate = dataset.StructureSetDate = dataset.SeriesDate = origin.date
    dataset.InstanceCreationTime = dataset.StructureSetTime = dataset.SeriesTime = origin.time
    dataset.Modality = "RTSTRUCT"
    dataset.SeriesNumber = dataset.OperatorsName = dataset.PositionReferenceIndicator = None
    dataset.SeriesDescription = f"{SOFTWARE}: {DRAFT.lower()}"
    dataset.Manufacturer = dataset.ManufacturerModelName = SOFTWARE
    dataset.SoftwareVersions = origin.version
    dataset.FrameOfReferenceUID = stack.frame_of_reference_uid
    dataset.InstanceNumber = 1
    label = origin.label if origin.doubt else f"{origin.label} {SOFTWARE}"
    dataset.StructureSetLabel = dataset.StructureSetName = label
    dataset.StructureSetDescription = origin.description
    dataset.ApprovalStatus = "UNAPPROVED"


def _frame_item(stack) -> Dataset:
    """The references from the frame of reference through study and series to every image."""
    series = make_item(
        SeriesInstanceUID=stack.series_uid, ContourImageSequence=make_image_items(stack)
    )
    study = make_item(
        ReferencedSOPClassUID=_STUDY_CLASS,
        ReferencedSOPInstanceUID=stack.study_uid,
        RTReferencedSeriesSequence=[series],
    )
    return make_item(
        FrameOfReferenceUID=stack.frame_of_reference_uid, RTReferencedStudySequence=[study]
    )


def _roi_item(stack, number, organ, origin) -> Dataset:
    return make_item(
        ROINumber=number,
        ReferencedFrameOfReferenceUID=stack.frame_of_reference_uid,
        ROIName=roi_name(organ),
        ROIDescription=origin.description,
        ROIGenerationAlgorithm="AUTOMATIC",
    )


def _observation_item(number, organ) -> Dataset:
    item = make_item(
        ObservationNumber=number,
        ReferencedROINumber=number,
        RTROIInterpretedType="ORGAN",
        ROIInterpreter=None,
    )
    if organ.snomed:
        item.RTROIIdentificationCodeSequence = [make_code(organ.snomed, "SCT", organ.name)]
    return item


def _contour_items(stack, rings) -> list[Dataset]:
    """One item for each ring, in the order of slices."""
    along_x, along_y = np.array(stack.orientation, np.float64).reshape(2, 3)
    row_mm, column_mm = stack.pixel_spacing_mm
    to_mm = np.stack([along_x * column_mm, along_y * row_mm])
    items = []
    for k in sorted(rings):
        instance = stack.instances[k]
        image = make_item(
            ReferencedSOPClassUID=instance.sop_class_uid,
            ReferencedSOPInstanceUID=instance.sop_instance_uid,
        )
        if instance.frame is not None:
            image.ReferencedFrameNumber = instance.frame + 1
        for ring in rings[k]:
            points = np.asarray(stack.positions_mm[k], np.float64) + ring @ to_mm
            item = Dataset()
            item.ContourImageSequence = [image]
            item.ContourNumber = len(items) + 1
            item.ContourGeometricType = "CLOSED_PLANAR"
            item.NumberOfContourPoints = len(points)
            data = _decimals(points)
            tag = Tag("ContourData")
            # Encoded here, because pydicom would make an object of every number.
            item[tag] = RawDataElement(tag, "DS", len(data), data, 0, True, True)
            item.set_original_encoding(True, True, default_encoding)
            items.append(item)
    return items


def _decimals(points: np.ndarray) -> bytes:
    """The points as x\\y\\z... in mm with three decimals, padded to an even length."""
    numbers = points.ravel().tolist()
    text = ("%.3f\\" * len(numbers))[:-1] % tuple(numbers)
    return text.encode() + b" " * (len(text) % 2)
