"""Writes the reference masks as DICOM: a CT of each patient, and structure sets drawn on it.

  python -m tests.reference.structures FOLDER

writes FOLDER/truth/PATIENT/ with the CT (air) and its structure set, and
FOLDER/prediction/PATIENT.dcm. Contours run along the edges of the pixels of the mask, so that a
program that asks which pixels' centres are inside finds the mask again. A hole is a contour of its
own inside the outer one. Made with pydicom alone.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage

from tests.reference.masks import CASES, LABELS, SHAPE_XYZ, SPACING_MM

_TURN = {(1, 0): (0, 1), (0, 1): (-1, 0), (-1, 0): (0, -1), (0, -1): (1, 0)}  # to the left


def write(folder) -> None:
    """Writes all patients."""
    for patient, organs in CASES.items():
        place = Path(folder) / "truth" / patient
        place.mkdir(parents=True, exist_ok=True)
        for k in range(SHAPE_XYZ[2]):
            _ct(patient, k).save_as(place / f"ct_{k:02d}.dcm", enforce_file_format=True)
        (Path(folder) / "prediction").mkdir(exist_ok=True)
        predicted = place.parents[1] / "prediction" / f"{patient}.dcm"
        paths = {"truth": place / "set.dcm", "prediction": predicted}
        for which, (name, path) in enumerate(paths.items()):
            drawn = {organ: pair[which] for organ, pair in organs.items() if pair[which].any()}
            _structure_set(patient, name, drawn).save_as(path, enforce_file_format=True)


def outlines(plane: np.ndarray) -> list[list[tuple[int, int]]]:
    """Closed polygons along the pixels' edges of a mask, bool [X, Y]; corners are (x, y).

    Corner (x, y) lies at the lower end of pixel (x, y) in both directions. The mask is to the left
    of each edge, so that outer polygons and holes turn opposite ways.
    """
    edges = set()
    for x, y in np.argwhere(plane).tolist():
        corners = [(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)]
        for edge in zip(corners, corners[1:] + corners[:1], strict=True):
            if edge[::-1] in edges:  # an inner edge: its two pixels both belong to the mask
                edges.remove(edge[::-1])
            else:
                edges.add(edge)
    polygons = []
    while edges:
        polygon = [*edges.pop()]
        while polygon[-1] != polygon[0]:
            here, before = polygon[-1], polygon[-2]
            step = (here[0] - before[0], here[1] - before[1])
            left = _TURN[step]
            for dx, dy in (left, step, (-left[0], -left[1])):  # pixels that touch at a corner part
                edge = (here, (here[0] + dx, here[1] + dy))
                if edge in edges:
                    edges.remove(edge)
                    polygon.append(edge[1])
                    break
        polygons.append(polygon[:-1])
    return polygons


def _ct(patient: str, k: int) -> FileDataset:
    """Slice k of the CT."""
    dataset = _dataset(CTImageStorage, _uid(patient, "ct", k), patient)
    dataset.Modality, dataset.SeriesInstanceUID = "CT", _uid(patient, "series")
    dataset.FrameOfReferenceUID, dataset.InstanceNumber = _uid(patient, "frame"), k + 1
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImagePositionPatient = [0, 0, SPACING_MM[2] * k]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [SPACING_MM[1], SPACING_MM[0]]
    dataset.SliceThickness = SPACING_MM[2]
    dataset.Columns, dataset.Rows = SHAPE_XYZ[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "HU"
    dataset.PixelData = np.full(SHAPE_XYZ[1::-1], -1000, "<i2").tobytes()
    return dataset


def _structure_set(patient: str, name: str, drawn: dict[str, np.ndarray]) -> FileDataset:
    """drawn: Organ to its mask, bool [X, Y, Z]."""
    dataset = _dataset(RTStructureSetStorage, _uid(patient, name), patient)
    dataset.Modality, dataset.SeriesInstanceUID = "RTSTRUCT", _uid(patient, name, "series")
    dataset.StructureSetLabel = name
    dataset.ReferencedFrameOfReferenceSequence = [_references(patient)]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    dataset.RTROIObservationsSequence = []
    for organ, mask in drawn.items():
        roi, contours, observation = Dataset(), Dataset(), Dataset()
        roi.ROINumber = contours.ReferencedROINumber = LABELS[organ]
        observation.ObservationNumber = observation.ReferencedROINumber = LABELS[organ]
        roi.ReferencedFrameOfReferenceUID = _uid(patient, "frame")
        roi.ROIName, roi.ROIGenerationAlgorithm = organ, "MANUAL"
        observation.RTROIInterpretedType, observation.ROIInterpreter = "ORGAN", ""
        contours.ContourSequence = [
            _contour(patient, polygon, k)
            for k in range(SHAPE_XYZ[2])
            for polygon in outlines(mask[..., k])
        ]
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(contours)
        dataset.RTROIObservationsSequence.append(observation)
    return dataset


def _references(patient: str) -> Dataset:
    """The item that names the CT's images."""
    frame, study, series = Dataset(), Dataset(), Dataset()
    frame.FrameOfReferenceUID = _uid(patient, "frame")
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"
    study.ReferencedSOPInstanceUID = _uid(patient, "study")
    series.SeriesInstanceUID = _uid(patient, "series")
    series.ContourImageSequence = [_image(patient, k) for k in range(SHAPE_XYZ[2])]
    study.RTReferencedSeriesSequence = [series]
    frame.RTReferencedStudySequence = [study]
    return frame


def _image(patient: str, k: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = CTImageStorage
    item.ReferencedSOPInstanceUID = _uid(patient, "ct", k)
    return item


def _contour(patient: str, polygon, k: int) -> Dataset:
    """A polygon of pixels' corners on slice k; a corner is half a pixel before its centre."""
    item = Dataset()
    item.ContourImageSequence = [_image(patient, k)]
    item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(polygon)
    x_mm, y_mm, z_mm = SPACING_MM
    points = [((x - 0.5) * x_mm, (y - 0.5) * y_mm, k * z_mm) for x, y in polygon]
    item.ContourData = [f"{value:g}" for point in points for value in point]
    return item


def _dataset(kind: str, instance: str, patient: str) -> FileDataset:
    """What all files of a patient have."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = kind, instance
    dataset.PatientID = dataset.PatientName = patient
    dataset.PatientBirthDate = dataset.PatientSex = dataset.AccessionNumber = ""
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20260101", "120000", "1"
    dataset.ReferringPhysicianName = ""
    dataset.StudyInstanceUID = _uid(patient, "study")
    return dataset


def _uid(*names) -> str:
    """The same names always give the same UID."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


if __name__ == "__main__":
    write(sys.argv[1])
