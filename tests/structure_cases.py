"""Stacks of slices in any pose, organs on them, and the same as files of CT, for the DICOM tests.

Stacks are stand-ins of the same fields as `segthor.dicom.series.Stack`; nothing here uses the
project's own DICOM code, so that it can judge it.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from scipy import ndimage

# Directions (LPS) along a row and down a column.
POSES = {
    "head first supine": (1, 0, 0, 0, 1, 0),
    "head first prone": (-1, 0, 0, 0, -1, 0),
    "feet first supine": (-1, 0, 0, 0, 1, 0),
    "feet first prone": (1, 0, 0, 0, -1, 0),
    "decubitus": (0, 1, 0, -1, 0, 0),
}
FRAME, STUDY, SERIES = "1.2.3.1", "1.2.3.2", "1.2.3.3"


@dataclass(frozen=True)
class Organ:
    name: str
    label: int
    rgb: tuple[int, int, int]
    tg263: str
    snomed: str
    synonyms: tuple[str, ...] = ()


ORGANS = (
    Organ("esophagus", 1, (230, 60, 60), "Esophagus", "32849002", ("oesophagus",)),
    Organ("heart", 2, (255, 130, 190), "Heart", "80891009"),
    Organ("spinal_cord", 3, (250, 210, 40), "SpinalCord", "2748008", ("Spinal cord",)),
    Organ("lung_left", 7, (70, 130, 255), "Lung_L", "44029006"),
)


@dataclass(frozen=True, eq=False)
class Stack:
    instances: tuple
    shape: tuple[int, int, int]
    positions_mm: np.ndarray
    orientation: tuple[float, ...]
    pixel_spacing_mm: tuple[float, float]
    header: Dataset
    series_uid: str = SERIES
    study_uid: str = STUDY
    frame_of_reference_uid: str = FRAME
    affine: np.ndarray = field(default=None)


def stack(
    shape=(40, 30, 12),
    pose="head first supine",
    tilt_deg=0.0,
    spacing_mm=(0.9, 1.3),
    step_mm=3.0,
    origin_mm=(-123.4, -56.78, 91.011),
    enhanced=False,
) -> Stack:
    """spacing_mm: between rows, between columns. The tilt is a gantry's: planes lean, steps not."""
    along_x, along_y = np.array(POSES[pose], float).reshape(2, 3)
    step = np.cross(along_x, along_y) * step_mm
    lean = np.deg2rad(tilt_deg)
    along_y = along_y * np.cos(lean) + step / step_mm * np.sin(lean)
    positions = np.array(origin_mm) + np.arange(shape[2])[:, None] * step
    columns = [along_x * spacing_mm[1], along_y * spacing_mm[0], step, positions[0]]
    affine = np.vstack([np.stack(columns, 1), [0, 0, 0, 1]])
    instances = [_instance(k, positions[k], enhanced) for k in range(shape[2])]
    return Stack(
        tuple(instances), shape, positions, tuple(np.concatenate([along_x, along_y]).tolist()),
        spacing_mm, _header(), affine=np.diag([-1.0, -1, 1, 1]) @ affine,
    )  # fmt: skip


def _instance(k, position, enhanced):
    kind, uid = (("1.2.840.10008.5.1.4.1.1.2.1", "1.2.3.4.99"), (CTImageStorage, f"1.2.3.4.{k}"))[
        not enhanced
    ]
    return SimpleNamespace(
        path=f"{k}.dcm", frame=k if enhanced else None, sop_class_uid=kind,
        sop_instance_uid=uid, position_mm=tuple(position.tolist()),
    )  # fmt: skip


def _header() -> Dataset:
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.PatientName, header.PatientID = "Müller^Jörg", "SECRET-1"
    header.PatientBirthDate, header.PatientSex = "19700102", "O"
    header.StudyDate, header.StudyTime, header.StudyID = "20200102", "030405", "7"
    header.AccessionNumber, header.ReferringPhysicianName = "", "Who^Doctor"
    header.StudyDescription, header.SliceThickness = "Thorax", "3"
    return header


def labels(shape, seed=0) -> np.ndarray:
    """uint8 [X, Y, Z]: blobs with holes and islands, one voxel alone, one organ at the border."""
    rng = np.random.default_rng(seed)
    noise = [ndimage.gaussian_filter(rng.normal(size=shape), (2, 2, 1)) for _ in ORGANS]
    made = np.zeros(shape, np.uint8)
    for organ, field_ in zip(ORGANS, noise, strict=True):
        made[field_ > np.quantile(field_, 0.8)] = organ.label
    x, y, z = (n // 2 for n in shape)
    made[x - 8 : x + 9, y - 8 : y + 9, z] = 2
    made[x - 6 : x + 7, y - 6 : y + 7, z] = 0  # a hole
    made[x - 2 : x + 3, y - 2 : y + 3, z] = 2  # and an island with a hole in it
    made[x, y, z] = 0
    made[x - 5, y, z] = 1
    made[0, :, 1] = 3
    return made


def write_ct(folder, of: Stack) -> None:
    """The stack as a series of CT files, all air."""
    for k, instance in enumerate(of.instances):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = instance.sop_class_uid
        meta.MediaStorageSOPInstanceUID = instance.sop_instance_uid
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image = FileDataset(None, of.header, file_meta=meta, preamble=bytes(128))
        image.SOPClassUID, image.SOPInstanceUID = instance.sop_class_uid, instance.sop_instance_uid
        image.StudyInstanceUID, image.SeriesInstanceUID = of.study_uid, of.series_uid
        image.FrameOfReferenceUID, image.Modality = of.frame_of_reference_uid, "CT"
        image.InstanceNumber = k + 1
        image.ImagePositionPatient = [f"{mm:.6f}" for mm in of.positions_mm[k]]
        image.ImageOrientationPatient = [f"{share:.8f}" for share in of.orientation]
        image.PixelSpacing = list(of.pixel_spacing_mm)
        image.Columns, image.Rows = of.shape[:2]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated = image.BitsStored = 16
        image.HighBit, image.PixelRepresentation = 15, 1
        image.RescaleSlope, image.RescaleIntercept = 1, 0
        image.PixelData = np.full(of.shape[:2], -1000, "<i2").tobytes()
        image.save_as(f"{folder}/{k}.dcm", enforce_file_format=True)
