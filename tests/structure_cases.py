"""CT series, contours on them and structure sets, for the tests of contours in DICOM.

What is read is written with pydicom alone, so that it shares no fault with the code under test.
"""

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage
from scipy import ndimage

from segthor import contours, phantom
from segthor.dicom import DicomError, headers, stacks
from segthor.dicom.origin import Origin
from segthor.organs import SEGTHOR, Organ, Organs
from tests import dicom_phantoms
from tests.dicom_phantoms import CT

ORGANS = phantom.table("thorax")
USED = ORGANS.select(("esophagus", "heart", "trachea", "aorta"))  # those of `labels`
NAMELESS = Organs((Organ("a_rather_long_name_of_one", 1, (1, 2, 3)), Organ("short", 2, (0, 0, 0))))
ORIGIN = Origin("1.2.3", "0123456789abcdef", "20260102", "030405")
POSITIONS, TILTS = ("HFS", "HFP", "FFS", "FFP"), (0, -18.5, 12)
SHAPE, SPACING_MM = (40, 30, 12), (1.3, 0.9, 3.0)
_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
needs_plastimatch = pytest.mark.skipif(
    not shutil.which("plastimatch"), reason="plastimatch is not installed (Debian: plastimatch)"
)
needs_dciodvfy = pytest.mark.skipif(
    not shutil.which("dciodvfy"), reason="dciodvfy is not installed (Debian: dicom3tools)"
)


def ct(folder, shape=SHAPE, spacing_mm=SPACING_MM, pose="HFS", tilt_degrees=0.0, **options):
    """A series of air, and what lies in the folder, as `segthor.dicom.series.Stack`.

    options: of `dicom_phantoms.write_series`.
    """
    affine = _FLIP @ np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = 123.4, 56.78, -91.011
    air = np.full(shape, -1000, np.int16)
    hu, affine = dicom_phantoms.posed(air, affine, pose, tilt_degrees)
    dicom_phantoms.write_series(folder, hu, affine, patient_position=pose, **options)
    paths = sorted(folder.glob("*.dcm"))
    (stack,) = stacks.make_stacks([headers.read(str(path)) for path in paths]).stacks
    assert not isinstance(stack, DicomError), stack
    return stack


def labels(shape, seed=0) -> np.ndarray:
    """uint8 [X, Y, Z]: blobs with holes and islands, a voxel alone, an organ at the border.

    The last slice has none.
    """
    rng = np.random.default_rng(seed)
    noise = [ndimage.gaussian_filter(rng.normal(size=shape), (2, 2, 1)) for _ in USED]
    made = np.zeros(shape, np.uint8)
    for organ, field in zip(USED, noise, strict=True):
        made[field > np.quantile(field, 0.8)] = organ.label
    x, y, z = (n // 2 for n in shape)
    made[x - 8 : x + 9, y - 8 : y + 9, z] = 2
    made[x - 6 : x + 7, y - 6 : y + 7, z] = 0  # a hole
    made[x - 2 : x + 3, y - 2 : y + 3, z] = 2  # and an island with a hole in it
    made[x, y, z] = 0
    made[x - 5, y, z] = 1
    made[0, :, 1] = 3
    made[..., -1] = 0
    return made


def square(x0, y0, x1, y1) -> np.ndarray:
    """A ring along the edges of pixels x0 to x1 and y0 to y1, the last ones left out."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float) - 0.5


def points_mm(stack, k, ring) -> np.ndarray:
    """Pixels [N, 2] of slice k as LPS [N, 3]; k may lie between slices."""
    ring = np.asarray(ring, float)
    places = np.stack([*ring.T, np.full(len(ring), k), np.ones(len(ring))])
    return (_FLIP @ stack.affine @ places)[:3].T


def contour(stack, k, ring, kind="CLOSED_PLANAR", image=None) -> Dataset:
    """One contour's item; image: the number of the slice that it refers to, if any."""
    points = points_mm(stack, k, ring)
    item = Dataset()
    if image is not None:
        item.ContourImageSequence = [Dataset()]
        instance = stack.instances[image]
        item.ContourImageSequence[0].ReferencedSOPClassUID = instance.sop_class_uid
        item.ContourImageSequence[0].ReferencedSOPInstanceUID = instance.sop_instance_uid
    item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points)
    item.ContourData = [f"{mm:.10f}"[:16] for mm in points.ravel()]
    return item


def structure_set(path, stack, rois, change=lambda dataset: None, syntax=ImplicitVRLittleEndian):
    """Writes one with the contours of each name, numbered backwards; returns its path.

    change: called with the data set before it is written.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = RTStructureSetStorage, syntax
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    encoding = meta.TransferSyntaxUID.is_implicit_VR, meta.TransferSyntaxUID.is_little_endian
    dataset = FileDataset(None, {}, bytes(128), meta, *encoding)
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, "1.2.3"
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientID = "SecretName^Jörg", "SecretNumber"
    dataset.Modality, dataset.StudyInstanceUID = "RTSTRUCT", stack.study_uid
    dataset.ReferencedFrameOfReferenceSequence = [_references(stack)]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (name, drawn_of) in zip(range(90, 0, -1), rois, strict=False):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        roi.ReferencedFrameOfReferenceUID = stack.frame_of_reference_uid
        dataset.StructureSetROISequence.append(roi)
        drawn.ReferencedROINumber, drawn.ContourSequence = number, drawn_of
        dataset.ROIContourSequence.insert(0, drawn)
    change(dataset)
    dataset.save_as(path, enforce_file_format=True)
    return str(path)


def _references(stack) -> Dataset:
    frame, study, series = Dataset(), Dataset(), Dataset()
    frame.FrameOfReferenceUID = stack.frame_of_reference_uid
    frame.RTReferencedStudySequence = [study]
    study.RTReferencedSeriesSequence = [series]
    series.SeriesInstanceUID = stack.series_uid
    return frame


def write_patient(folder, made, pose="HFS", tilt_degrees=0.0, organs=SEGTHOR, **options) -> None:
    """A phantom as a planning system exports it: ct/*.dcm, and rs.dcm with all that is contoured.

    The sets' ROIs go by the organs' TG-263 names. options: of `dicom_phantoms.write_series`.
    """
    folder, pose_of = Path(folder), (pose, tilt_degrees)
    hu, affine = dicom_phantoms.posed(made.hu, made.affine, *pose_of)
    labels, _ = dicom_phantoms.posed(made.labels, made.affine, *pose_of)
    dicom_phantoms.write_series(folder / "ct", hu, affine, patient_position=pose, **options)
    names = {key: options.get(key, "1") for key in ("patient", "study", "series", "frame")}
    uids = {key: dicom_phantoms.uid(key, name) for key, name in names.items()}
    images = range(hu.shape[2])
    if options.get("enhanced"):
        images = ["all"] * hu.shape[2]
    sops = [dicom_phantoms.uid("sop", names["series"], "", k) for k in images]
    instances = [SimpleNamespace(sop_class_uid=CT, sop_instance_uid=sop) for sop in sops]
    stack = SimpleNamespace(
        affine=affine, instances=instances, study_uid=uids["study"], series_uid=uids["series"],
        frame_of_reference_uid=uids["frame"],
    )  # fmt: skip

    def identify(dataset):
        dataset.PatientID, dataset.PatientName = f"ID{names['patient']}", "SecretName"
        dataset.SOPInstanceUID = dicom_phantoms.uid("structures", *names.values())
        dataset.SeriesInstanceUID = dicom_phantoms.uid("rt", *names.values())
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID

    rois = [(organ.tg263, _drawn(stack, labels == organ.label)) for organ in organs]
    structure_set(folder / "rs.dcm", stack, rois, identify)


def copy_patient(folder, make, seed, **options) -> None:
    """Copies the DICOM files of phantom `make(seed)`; each process writes them once."""
    for name, content in _patient_files(make, seed, **options).items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@functools.cache
def _patient_files(make, seed, **options) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        write_patient(folder, make(seed), **options)
        paths = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _drawn(stack, mask) -> list[Dataset]:
    """The contours about a mask [X, Y, Z], holes joined by keyholes."""
    return [
        contour(stack, k, contours.keyhole(piece), image=k)
        for k in np.flatnonzero(mask.any((0, 1)))
        for piece in contours.outline(mask[..., k])
    ]


def with_identity(dataset, k):
    """For `ct`: a name that needs a character set, in a study that was made anonymous."""
    dataset.SpecificCharacterSet, dataset.PatientName = "ISO_IR 192", "Müller^Jörg"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethodCodeSequence = [code]


def dice(a, b) -> float:
    """Of two masks that are not both empty."""
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def validated(path) -> list[str]:
    """The errors that dciodvfy finds."""
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, timeout=60)
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]


def by_plastimatch(structures, ct_folder, output, *options) -> dict[str, np.ndarray]:
    """Name of the ROI to bool [X, Y, Z], as plastimatch fills it on the CT's voxels."""
    import SimpleITK as sitk

    command = ["plastimatch", "convert", "--input", structures, "--referenced-ct", ct_folder]
    command += ["--output-prefix", output, "--prefix-format", "nii.gz", *options]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, timeout=300)
    return {
        path.name.removesuffix(".nii.gz"): sitk.GetArrayFromImage(sitk.ReadImage(path)).T > 0
        for path in output.glob("*.nii.gz")
    }
