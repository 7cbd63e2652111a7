"""Structure sets written: they give the label map back, and hold what planning systems ask for."""

import itertools
import os
import resource
from dataclasses import replace
from unittest import mock

import numpy as np
import pydicom
import pytest
from scipy import ndimage

from segthor import contours, phantom
from segthor.dicom import DicomError, headers, index, places, stacks, structures
from segthor.dicom.origin import roi_name
from segthor.dicom.segmentation import write_segmentation
from segthor.dicom.structure_writer import outlines, write_structures
from segthor.organs import Organ, Organs
from segthor.volume import LabelMap
from tests import dicom_phantoms, file_order
from tests import structure_cases as cases
from tests.structure_cases import (
    NAMELESS,
    ORGANS,
    ORIGIN,
    POSITIONS,
    TILTS,
    USED,
    needs_dciodvfy,
    needs_plastimatch,
    validated,
    with_identity,
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    return cases.ct(tmp_path_factory.mktemp("ct"))


@pytest.fixture(scope="module")
def labels(stack):
    return cases.labels(stack.shape)


@pytest.fixture(scope="module")
def written(stack, labels, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("out") / "set.dcm")
    write_structures(path, stack, outlines(labels.T, USED), ORIGIN)
    return path


def probabilities(shape, seed=0) -> np.ndarray:
    """[5, X, Y, Z]: smooth, of five classes that sum to 1, with ties here and there."""
    rng = np.random.default_rng(seed)
    fields = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), 2) for _ in range(5)])
    shares = np.exp(fields / fields.std())
    return np.round(shares / shares.sum(0), 2 if seed % 2 else 6)


def margin_of(shares):
    """As `outlines` takes it."""
    return lambda organ, k: contours.margins(shares[..., k])[organ.label]


# Each pose and tilt with one of the grids; with the other one, a second each, they are thorough.
@pytest.mark.parametrize(
    "pose, tilt, spacing_mm",
    [
        pytest.param(*turned, grid, marks=[pytest.mark.thorough] * ((number + place) % 2))
        for number, turned in enumerate(itertools.product(POSITIONS, TILTS))
        for place, grid in enumerate([(1.3, 0.9, 3.0), (0.35, 0.35, 0.6)])
    ],
)
def test_what_is_written_is_read_back_voxel_for_voxel(tmp_path, pose, tilt, spacing_mm):
    stack = cases.ct(tmp_path / "ct", pose=pose, tilt_degrees=tilt, spacing_mm=spacing_mm)
    shares = probabilities(stack.shape, seed=POSITIONS.index(pose) + TILTS.index(tilt))
    decided = shares.argmax(0).astype(np.uint8)
    cleaned = np.where(ndimage.binary_opening(decided > 0), decided, 0).astype(np.uint8)
    cleaned[12:15, 12:15] = 2  # post-processing may add as well
    for labels, margin in (
        (cases.labels(stack.shape), None),
        (decided, margin_of(shares)),
        (cleaned, margin_of(shares)),
    ):
        path = str(tmp_path / "set.dcm")
        write_structures(path, stack, outlines(labels.T, USED, margin), ORIGIN)
        found = structures.read(path, stack, ORGANS)
        np.testing.assert_array_equal(file_order.of(found).array, labels)
        assert (found.contoured, found.findings) == (USED.names, ())


def test_the_seven_organs_of_a_phantom_come_back(tmp_path):
    made = phantom.make(5, "small", organs=ORGANS)
    hu, affine = dicom_phantoms.posed(np.clip(made.hu, -1024, 3071), made.affine, "HFP", 12)
    labels, _ = dicom_phantoms.posed(made.labels, made.affine, "HFP", 12)
    paths = dicom_phantoms.write_series(tmp_path / "ct", hu, affine, patient_position="HFP")
    (stack,) = stacks.make_stacks([headers.read(path) for path in paths]).stacks
    path = str(tmp_path / "set.dcm")
    write_structures(path, stack, outlines(labels.T, ORGANS), ORIGIN)
    found = structures.read(path, stack, ORGANS)
    np.testing.assert_array_equal(file_order.of(found).array, labels)
    assert found.contoured == ORGANS.names and not found.findings


def test_outlines_by_probabilities_run_where_these_are_equal():
    x = np.arange(30)[:, None, None] + np.zeros((1, 20, 2))
    share = np.clip((14.8 - x) / 8 + 0.5, 0, 1)
    shares = np.stack([1 - share, share])
    labels = (share > 0.5).astype(np.uint8)
    ((_, rings),) = outlines(labels.T, USED, margin_of(shares))
    assert sorted(rings) == [0, 1]
    for (ring,) in rings.values():
        inner = ring[(ring[:, 0] > 10) & (abs(ring[:, 1] - 9.5) < 9)]
        np.testing.assert_allclose(inner[:, 0], 14.8, atol=1e-9)


@needs_plastimatch
@pytest.mark.parametrize("by", ["mask", "probabilities"])
@pytest.mark.parametrize("pose", POSITIONS)
def test_plastimatch_reads_the_same_voxels(tmp_path, pose, by):
    stack = cases.ct(tmp_path / "ct", pose=pose)
    shares = probabilities(stack.shape)
    labels, margin = cases.labels(stack.shape), None
    if by == "probabilities":
        labels, margin = shares.argmax(0), margin_of(shares)
    path = str(tmp_path / "set.dcm")
    write_structures(path, stack, outlines(labels.T, USED, margin), ORIGIN)
    filled = cases.by_plastimatch(path, tmp_path / "ct", tmp_path / "masks", "--xor-contours")
    assert set(filled) == {organ.tg263 for organ in USED}
    for organ in USED:
        assert np.count_nonzero(filled[organ.tg263] != (labels == organ.label)) <= 5


@needs_plastimatch
@pytest.mark.thorough  # plastimatch takes seven seconds for a real scan
def test_a_real_patients_organs_come_back_ours_and_by_plastimatch(real_ct, tmp_path):
    folder = real_ct / "lung1_002_dicom"
    (patient,) = index.index_folder(str(folder)).patients
    stack, path = patient.cases[0].stack, str(tmp_path / "set.dcm")
    found = structures.read(patient.cases[0].structures.path, stack, ORGANS)
    write_structures(path, stack, outlines(stack.to_planes(found.zyx), ORGANS), ORIGIN)
    again = structures.read(path, stack, ORGANS)
    np.testing.assert_array_equal(file_order.of(again).array, file_order.of(found).array)
    assert (again.contoured, again.findings) == (found.contoured, ())
    filled = cases.by_plastimatch(path, folder, tmp_path / "masks", "--xor-contours")
    for organ in ORGANS.select(found.contoured):
        mask = file_order.of(found).array == organ.label
        assert np.count_nonzero(filled[organ.tg263] != mask) <= 5, organ.name


@needs_dciodvfy
@pytest.mark.parametrize("organs", [USED, NAMELESS], ids=["table", "without codes"])
@pytest.mark.parametrize(
    "options",
    [
        dict(syntax="implicit"),
        dict(syntax="big_endian", change=with_identity),
        dict(enhanced=True, change=with_identity),
        dict(without=["PatientID", "PatientSex", "StudyTime", "AccessionNumber"]),
    ],
    ids=["implicit", "big endian", "enhanced", "lacking"],
)
def test_dciodvfy_finds_no_error(tmp_path, options, organs):
    stack = cases.ct(tmp_path / "ct", **options)
    path = str(tmp_path / "set.dcm")
    write_structures(path, stack, outlines(cases.labels(stack.shape).T, organs), ORIGIN)
    assert validated(path) == []


@needs_dciodvfy
def test_dciodvfy_would_find_an_error(written, tmp_path):
    dataset = pydicom.dcmread(written)
    del dataset.StructureSetLabel
    dataset.save_as(tmp_path / "bad.dcm")
    assert validated(str(tmp_path / "bad.dcm"))


def test_references_lead_from_the_frame_of_reference_to_every_image(stack, written):
    dataset = pydicom.dcmread(written)
    (frame,) = dataset.ReferencedFrameOfReferenceSequence
    (study,) = frame.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    assert frame.FrameOfReferenceUID == stack.frame_of_reference_uid
    assert dataset.StudyInstanceUID == study.ReferencedSOPInstanceUID == stack.study_uid
    assert series.SeriesInstanceUID == stack.series_uid
    uids = [instance.sop_instance_uid for instance in stack.instances]
    assert [one.ReferencedSOPInstanceUID for one in series.ContourImageSequence] == uids
    for roi, drawn in zip(dataset.StructureSetROISequence, dataset.ROIContourSequence, strict=True):
        assert roi.ROINumber == drawn.ReferencedROINumber
        assert roi.ReferencedFrameOfReferenceUID == stack.frame_of_reference_uid
        for contour in drawn.ContourSequence:
            (image,) = contour.ContourImageSequence
            k = uids.index(image.ReferencedSOPInstanceUID)
            assert contour.ContourData[2] == pytest.approx(stack.positions_mm[k, 2], abs=5e-4)


def test_an_enhanced_files_frames_are_referred_to(tmp_path):
    stack = cases.ct(tmp_path / "ct", enhanced=True)
    path, labels = str(tmp_path / "set.dcm"), cases.labels(stack.shape)
    write_structures(path, stack, outlines(labels.T, USED), ORIGIN)
    np.testing.assert_array_equal(file_order.of(structures.read(path, stack, ORGANS)).array, labels)
    for drawn in pydicom.dcmread(path).ROIContourSequence:
        for contour in drawn.ContourSequence:
            k = contour.ContourImageSequence[0].ReferencedFrameNumber - 1
            assert contour.ContourData[2] == pytest.approx(stack.positions_mm[k, 2], abs=5e-4)


def test_what_planning_systems_refuse_does_not_occur(written):
    dataset = pydicom.dcmread(written)
    assert dataset.file_meta.TransferSyntaxUID.is_implicit_VR
    numbers = [roi.ROINumber for roi in dataset.StructureSetROISequence]
    assert numbers == sorted(set(numbers)) == [1, 2, 3, 4]
    names = [dataset.StructureSetLabel, *(roi.ROIName for roi in dataset.StructureSetROISequence)]
    assert max(map(len, names)) <= 16
    for drawn in dataset.ROIContourSequence:
        for contour in drawn.ContourSequence:
            texts = [number.original_string for number in contour.ContourData]
            assert max(map(len, texts)) <= 16
            points = np.reshape(np.array(contour.ContourData, float), (-1, 3))
            assert contour.NumberOfContourPoints == len(points) >= 3
            assert (points[0] != points[-1]).any() and np.ptp(points[:, 2]) == 0
            assert contour.ContourGeometricType == "CLOSED_PLANAR"


def test_a_set_says_what_it_is_and_whose(stack, written):
    dataset = pydicom.dcmread(written)
    ct = pydicom.dcmread(stack.instances[0].path)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate"):
        assert dataset[keyword] == ct[keyword]
    assert dataset.SeriesInstanceUID != ct.SeriesInstanceUID
    assert dataset.ApprovalStatus == "UNAPPROVED"
    assert (dataset.StructureSetDate, dataset.StructureSetTime) == ("20260102", "030405")
    for organ, roi, drawn, observed in zip(
        USED,
        dataset.StructureSetROISequence,
        dataset.ROIContourSequence,
        dataset.RTROIObservationsSequence,
        strict=True,
    ):
        assert (roi.ROIName, roi.ROIGenerationAlgorithm) == (organ.tg263, "AUTOMATIC")
        assert "0123456789abcdef" in roi.ROIDescription
        assert tuple(drawn.ROIDisplayColor) == organ.rgb
        assert observed.RTROIInterpretedType == "ORGAN"
        assert observed.RTROIIdentificationCodeSequence[0].CodeValue == organ.snomed


def test_organs_without_voxels_are_left_out_and_nothing_is_no_set(stack, labels, tmp_path):
    path = str(tmp_path / "set.dcm")
    write_structures(path, stack, outlines(np.where(labels == 2, 2, 0).T, USED), ORIGIN)
    (roi,) = pydicom.dcmread(path).StructureSetROISequence
    assert roi.ROIName == "Heart"
    before = (tmp_path / "set.dcm").read_bytes()
    with pytest.raises(DicomError) as raised:
        write_structures(path, stack, outlines(np.zeros_like(labels).T, USED), ORIGIN)
    assert raised.value.code == "structures_none"
    assert (tmp_path / "set.dcm").read_bytes() == before and os.listdir(tmp_path) == ["set.dcm"]


@pytest.mark.parametrize("kind", ["structures", "segmentation"])
def test_a_disk_that_is_full_leaves_what_was_there(stack, labels, tmp_path, kind):
    path = tmp_path / "out.dcm"
    path.write_text("before")
    drawn, _ = outlines(labels.T, USED), stack.header
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(OSError):
            if kind == "structures":
                write_structures(str(path), stack, drawn, ORIGIN)
            else:
                write_segmentation(str(path), stack, labels.T, USED, ORIGIN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["out.dcm"]


def test_the_same_input_gives_the_same_bytes_and_any_other_other_uids(stack, labels, tmp_path):
    def uids(of_labels=labels, organs=USED, origin=ORIGIN, of_stack=stack):
        path = str(tmp_path / "set.dcm")
        write_structures(path, of_stack, outlines(of_labels.T, organs), origin)
        dataset = pydicom.dcmread(path)
        contents.append((tmp_path / "set.dcm").read_bytes())
        return str(dataset.SOPInstanceUID), str(dataset.SeriesInstanceUID)

    contents = []
    moved = labels.copy()
    moved[10, 10, 5] = 3 if moved[10, 10, 5] != 3 else 0
    coloured = Organs(tuple(replace(organ, rgb=(9, 9, organ.label)) for organ in USED))
    other = cases.ct(tmp_path / "other", series="2")
    found = [
        uids(),
        uids(moved),
        uids(organs=coloured),
        uids(origin=replace(ORIGIN, model="another")),
        uids(origin=replace(ORIGIN, time="030406")),
        uids(of_stack=other),
    ]
    assert len({uid for pair in found for uid in pair}) == 2 * len(found)
    assert uids() == found[0] and contents[-1] == contents[0]
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for pair in found for uid in pair)


def test_a_contour_that_passes_to_the_next_organ_gives_another_uid(stack, tmp_path):
    one, two, three = (cases.square(x, 5, x + 4, 9) for x in (5, 12, 19))
    first, second = tuple(USED)[:2]
    uids = set()
    for drawn in ([(first, {3: [one, two]}), (second, {3: [three]})],
                  [(first, {3: [one]}), (second, {3: [two, three]})]):  # fmt: skip
        write_structures(str(tmp_path / "set.dcm"), stack, drawn, ORIGIN)
        uids.add(pydicom.dcmread(tmp_path / "set.dcm").SOPInstanceUID)
    assert len(uids) == 2


@pytest.mark.parametrize(
    "organ, name",
    [
        (Organ("heart", 2, (0, 0, 0), tg263="Heart"), "Heart"),
        (Organ("a" * 16, 2, (0, 0, 0)), "a" * 16),
        (Organ("a" * 17, 2, (0, 0, 0)), "a" * 14 + "_2"),
        (Organ("a" * 25, 203, (0, 0, 0)), "a" * 12 + "_203"),
    ],
)
def test_names_end_where_planning_systems_cut_them(organ, name):
    assert roi_name(organ) == name


def nested(depth: int) -> pydicom.Dataset:
    """A code that holds codes, with a private text at each level."""
    item = pydicom.Dataset()
    for _ in range(depth):
        outer = pydicom.Dataset()
        outer.CodeValue, outer.CodingSchemeDesignator, outer.CodeMeaning = "113100", "DCM", "Basic"
        outer.add_new(0x00091001, "LO", "PrivateText")
        outer.DeidentificationMethodCodeSequence = [item]
        item = outer
    return item


@pytest.mark.parametrize("depth", [1, 2, 20])
def test_of_codes_in_codes_the_outer_ones_texts_are_copied(labels, tmp_path, depth):
    def codes(dataset, k):
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethodCodeSequence = [nested(depth)]

    stack = cases.ct(tmp_path / "ct", change=codes)
    path = tmp_path / "set.dcm"
    write_structures(str(path), stack, outlines(labels.T, USED), ORIGIN)
    (code,) = pydicom.dcmread(path).DeidentificationMethodCodeSequence
    assert {element.keyword: element.value for element in code} == {
        "CodeValue": "113100", "CodingSchemeDesignator": "DCM", "CodeMeaning": "Basic",
    }  # fmt: skip
    assert b"PrivateText" not in path.read_bytes()


@pytest.mark.parametrize("name", ["frame_of_reference_uid", "study_uid", "series_uid"])
@pytest.mark.parametrize("uid", ["", "none", "1" * 65])
def test_a_series_that_nothing_can_refer_to_is_refused(stack, labels, tmp_path, name, uid):
    places.check_references(stack)
    label_map = LabelMap(labels.T, None, USED)
    path = tmp_path / "out.dcm"
    with mock.patch.object(places, "stack", lambda *_: replace(stack, **{name: uid})):
        with pytest.raises(DicomError, match="no structure set or SEG can refer to this series"):
            places.write("", label_map, {"rtstruct": str(path)}, vars(ORIGIN))
    assert not path.exists()
