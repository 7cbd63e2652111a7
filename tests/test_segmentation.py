"""Segmentations written as DICOM SEG: their voxels lie where they should, for readers not ours."""

import os
import time
from dataclasses import replace

import highdicom
import numpy as np
import pydicom
import pytest

from segthor.dicom.segmentation import BINARY, LABELMAP, write_segmentation
from segthor.organs import Organs
from tests import structure_cases as cases
from tests.structure_cases import (
    NAMELESS,
    ORGANS,
    ORIGIN,
    POSITIONS,
    TILTS,
    USED,
    needs_dciodvfy,
    validated,
    with_identity,
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    return cases.ct(tmp_path_factory.mktemp("ct"))


@pytest.fixture(scope="module")
def labels(stack):
    return cases.labels(stack.shape)


def in_place(path, stack, pixels) -> np.ndarray:
    """bool [organ, X, Y, Z]: each frame laid on the CT slice that SimpleITK has at its place.

    pixels: [frame, Y, X], of a BINARY SEG.
    """
    sitk = pytest.importorskip("SimpleITK")
    slices = [sitk.ReadImage(instance.path) for instance in stack.instances]
    dataset = pydicom.dcmread(path)
    (shared,) = dataset.SharedFunctionalGroupsSequence
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    cosines = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3))
    found = np.zeros((len(dataset.SegmentSequence), *stack.shape), bool)
    for frame, plane in zip(dataset.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        first = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        last = first + cosines[0].astype(float) * spacing[1] * (plane.shape[1] - 1)
        last = last + cosines[1].astype(float) * spacing[0] * (plane.shape[0] - 1)
        ends = [first.tolist(), last.tolist()]
        (k,) = [
            k
            for k, image in enumerate(slices)
            if abs(image.TransformPhysicalPointToContinuousIndex(ends[0])[2]) < 0.01
        ]
        indices = [slices[k].TransformPhysicalPointToContinuousIndex(end)[:2] for end in ends]
        np.testing.assert_allclose(
            indices, [(0, 0), (plane.shape[1] - 1, plane.shape[0] - 1)], atol=1e-3
        )
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        assert source.ReferencedSOPInstanceUID == stack.instances[k].sop_instance_uid
        found[number - 1, :, :, k] = plane.T > 0
    return found


@pytest.mark.parametrize("kind", [BINARY, LABELMAP])
def test_pydicom_would_encode_every_element_so(tmp_path, stack, labels, kind):
    path, again = tmp_path / "seg.dcm", tmp_path / "again.dcm"
    write_segmentation(str(path), stack, labels.T, USED, ORIGIN, kind)
    dataset = pydicom.dcmread(path)
    dataset.walk(lambda within, element: within.set_original_encoding(None, None))
    pydicom.dcmwrite(again, dataset, implicit_vr=False, little_endian=True)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("tilt", TILTS)
@pytest.mark.parametrize("pose", [*POSITIONS, "HFDR"])
def test_simpleitk_reads_the_voxels_in_place(tmp_path, pose, tilt):
    sitk = pytest.importorskip("SimpleITK")
    stack = cases.ct(tmp_path / "ct", pose=pose, tilt_degrees=tilt)
    labels, path = cases.labels(stack.shape), str(tmp_path / "seg.dcm")
    write_segmentation(path, stack, labels.T, USED, ORIGIN)
    pixels = sitk.GetArrayFromImage(sitk.ReadImage(path))
    assert len(pixels) == 4 * stack.shape[2], "frames without a voxel are kept"
    found = in_place(path, stack, pixels)
    for organ, mask in zip(USED, found, strict=True):
        np.testing.assert_array_equal(mask, labels == organ.label)


def test_labels_are_the_tables_and_segments_are_numbered_from_1(tmp_path):
    stack = cases.ct(tmp_path / "ct", enhanced=False)
    numbers = {"spinal_cord": 255, "aorta": 9, "trachea": 4}
    organs = Organs(tuple(replace(ORGANS[name], label=label) for name, label in numbers.items()))
    labels = np.zeros(stack.shape, np.uint8)
    labels[3:9, 3:9, 2], labels[20:30, 3:9, 5], labels[1, 1, 1] = 255, 4, 7
    path = str(tmp_path / "seg.dcm")
    write_segmentation(path, stack, labels.T, organs, ORIGIN)
    dataset = pydicom.dcmread(path)
    assert [one.SegmentNumber for one in dataset.SegmentSequence] == [1, 2, 3]
    assert [one.SegmentLabel for one in dataset.SegmentSequence] == [o.tg263 for o in organs]
    found = in_place(path, stack, dataset.pixel_array)
    for organ, mask in zip(organs, found, strict=True):
        np.testing.assert_array_equal(mask, labels == organ.label)


@pytest.mark.parametrize("kind", [BINARY, LABELMAP])
def test_highdicom_reads_the_volume_back(stack, labels, tmp_path, kind):
    path = str(tmp_path / "seg.dcm")
    write_segmentation(path, stack, labels.T, USED, ORIGIN, kind)
    read = highdicom.seg.segread(path)
    assert read.segmentation_type.value == kind.upper()
    volume = read.get_volume(combine_segments=True)
    places = np.argwhere(volume.array)
    voxels = np.linalg.inv(stack.affine) @ np.diag([-1, -1, 1, 1]) @ volume.affine
    x, y, z = np.rint(voxels @ np.c_[places, np.ones(len(places))].T)[:3].astype(int)
    found = np.zeros_like(labels)
    found[x, y, z] = volume.array[tuple(places.T)]
    np.testing.assert_array_equal(found, labels)


@needs_dciodvfy
@pytest.mark.parametrize("organs", [USED, NAMELESS], ids=["table", "without codes"])
@pytest.mark.parametrize(
    "options",
    [
        dict(syntax="implicit"),
        dict(syntax="big_endian", change=with_identity),
        dict(enhanced=True, change=with_identity),
        dict(without=["PatientID", "PatientSex", "StudyTime", "AccessionNumber"]),
        dict(without=["SliceThickness"]),
    ],
    ids=["implicit", "big endian", "enhanced", "lacking", "no thickness"],
)
def test_dciodvfy_finds_no_error(tmp_path, options, organs):
    stack = cases.ct(tmp_path / "ct", **options)
    path = str(tmp_path / "seg.dcm")
    write_segmentation(path, stack, cases.labels(stack.shape).T, organs, ORIGIN)
    assert validated(path) == []


def test_frames_of_an_enhanced_file_are_referred_to(tmp_path, capfd):
    stack = cases.ct(tmp_path / "ct", enhanced=True)
    labels, path = cases.labels(stack.shape), str(tmp_path / "seg.dcm")
    write_segmentation(path, stack, labels.T, USED, ORIGIN)
    assert capfd.readouterr() == ("", "")
    dataset = pydicom.dcmread(path)
    uid = stack.instances[0].sop_instance_uid
    (series,) = dataset.ReferencedSeriesSequence
    assert [one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence] == [uid]
    for frame, plane in zip(
        dataset.PerFrameFunctionalGroupsSequence, dataset.pixel_array, strict=True
    ):
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        assert source.ReferencedSOPInstanceUID == uid
        k = source.ReferencedFrameNumber - 1
        organ = USED.rows[frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1]
        np.testing.assert_array_equal(plane.T > 0, labels[..., k] == organ.label)


@pytest.mark.parametrize("kind", [BINARY, LABELMAP])
def test_a_segmentation_says_what_it_is_and_whose(tmp_path, kind):
    stack = cases.ct(tmp_path / "ct", change=with_identity)
    path = str(tmp_path / "seg.dcm")
    write_segmentation(path, stack, cases.labels(stack.shape).T, USED, ORIGIN, kind)
    dataset, ct = pydicom.dcmread(path), pydicom.dcmread(stack.instances[0].path)
    assert str(dataset.PatientName) == "Müller^Jörg"
    for keyword in ("PatientID", "PatientBirthDate", "StudyDate", "StudyInstanceUID",
                    "FrameOfReferenceUID", "PatientIdentityRemoved"):  # fmt: skip
        assert dataset[keyword].value == ct[keyword].value
    assert (dataset.ContentDate, dataset.ContentTime) == ("20260102", "030405")
    assert dataset.ContentLabel == "DRAFT"
    segments = [one for one in dataset.SegmentSequence if one.SegmentNumber]
    for organ, segment in zip(USED, segments, strict=True):
        assert segment.SegmentLabel == organ.tg263
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == organ.snomed


@pytest.mark.parametrize("kind", [BINARY, LABELMAP])
def test_the_same_input_gives_the_same_bytes_and_any_other_other_uids(
    stack, labels, tmp_path, kind
):
    def uids(of_labels=labels, organs=USED, origin=ORIGIN):
        path = str(tmp_path / "seg.dcm")
        write_segmentation(path, stack, of_labels.T, organs, origin, kind)
        dataset = pydicom.dcmread(path)
        contents.append((tmp_path / "seg.dcm").read_bytes())
        return str(dataset.SOPInstanceUID), str(dataset.SeriesInstanceUID)

    contents, moved = [], labels.copy()
    moved[10, 10, 5] = 3 if moved[10, 10, 5] != 3 else 0
    found = [
        uids(),
        uids(moved),
        uids(organs=ORGANS),
        uids(origin=replace(ORIGIN, model="another")),
    ]
    assert len({uid for pair in found for uid in pair}) == 2 * len(found)
    assert uids() == found[0] and contents[-1] == contents[0]
    today = time.strftime("%Y%m%d").encode()
    assert today not in contents[-1], "a file tells when its job ran first, not when again"
    assert os.listdir(tmp_path) == ["seg.dcm"]
