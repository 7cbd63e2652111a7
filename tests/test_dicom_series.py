"""A series read back is the voxels and the places that were written, whatever its encoding.

SimpleITK, the phantom's own array and a NIfTI of the same patient are the judges.
"""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from segthor.dicom import DicomError, headers, index, series, stacks
from tests import dicom_phantoms as phantoms
from tests import file_order
from tests.cases import tiny_patient

STORED = {
    "signed16": {},
    "unsigned12": dict(signed=False, bits=12, intercept=-1024),
    "signed13": dict(bits=13),
    "unsigned16": dict(signed=False, intercept=-1024),
}


@pytest.fixture(scope="module")
def patient():
    """(hu, affine): 44 x 36 x 12 voxels of unequal sides."""
    phantom = tiny_patient(3)
    hu = np.clip(phantom.hu, -1024, 3071)[2:46, 6:42, 2:14]
    affine = phantom.affine @ np.diag([1, 1.25, 0.3, 1])
    affine[:3, 3] = affine[:3] @ [2, 6, 2, 1]
    return hu, affine


def volumes_of(paths):
    return stacks.make_stacks([headers.read(path) for path in paths]).stacks


def stack_of(paths):
    (stack,) = volumes_of(paths)
    if isinstance(stack, DicomError):
        raise stack
    return stack


def read_stack(stack, *rest):
    """What `series.read_stack` gives, [X, Y, Z] in the order of the stack."""
    return file_order.of(series.read_stack(stack, *rest))


def itk_scan(paths):
    """(array [X, Y, Z], affine RAS+) as SimpleITK reads them."""
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(paths if len(paths) > 1 else paths[0])
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize("enhanced", [False, True], ids=["slices", "enhanced"])
@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("syntax", phantoms.SYNTAXES)
def test_every_transfer_syntax_gives_the_hu_back(tmp_path, patient, syntax, stored, enhanced):
    hu, affine = phantoms.posed(*patient)
    options = dict(syntax=syntax, enhanced=enhanced, **STORED[stored])
    paths = phantoms.write_series(tmp_path, hu, affine, **options)
    scan = read_stack(stack_of(paths))
    assert scan.array.dtype == np.int16
    np.testing.assert_array_equal(scan.array, hu)
    np.testing.assert_allclose(scan.grid.affine, affine, atol=1e-6)
    array, itk_affine = itk_scan(paths)
    np.testing.assert_array_equal(scan.array, array)
    np.testing.assert_allclose(scan.grid.affine, itk_affine, atol=1e-4)


@pytest.mark.parametrize("tilt", [0, -18.5])
@pytest.mark.parametrize("pose", phantoms.POSES)
def test_every_patient_position_comes_back_in_place(tmp_path, patient, pose, tilt):
    hu, affine = phantoms.posed(*patient, pose, tilt)
    paths = phantoms.write_series(tmp_path, hu, affine, patient_position=pose, shuffle=1)
    stack = stack_of(paths)
    scan = read_stack(stack)
    np.testing.assert_array_equal(scan.array, hu)
    np.testing.assert_allclose(scan.grid.affine, affine, atol=1e-6)
    np.testing.assert_allclose(stack.positions_mm, phantoms.positions_mm(affine, 12), atol=1e-6)
    assert [code for code, _ in stack.findings] == ["series_tilted"] * bool(tilt)
    for k, instance in enumerate(stack.instances):  # SimpleITK cannot keep a tilt, but each slice
        array, itk_affine = itk_scan([instance.path])
        np.testing.assert_array_equal(scan.array[:, :, k], array[:, :, 0])
        for corner in ([0, 0], [43, 0], [0, 35], [43, 35]):
            place = scan.grid.affine @ [*corner, k, 1]
            np.testing.assert_allclose(place, itk_affine @ [*corner, 0, 1], atol=1e-4)


@pytest.mark.parametrize("pose", phantoms.POSES)
def test_the_phantoms_poses_leave_the_patient_where_it_is(patient, pose):
    hu, affine = patient
    turned, turned_affine = phantoms.posed(hu, affine, pose)
    rng = np.random.default_rng(0)
    for voxel in rng.integers(0, turned.shape, (50, 3)):
        place = np.linalg.solve(affine, turned_affine @ [*voxel, 1])[:3]
        assert np.abs(place - np.rint(place)).max() < 1e-9
        assert hu[tuple(np.rint(place).astype(int))] == turned[tuple(voxel)]


def test_names_of_files_do_not_matter(tmp_path, patient):
    found = []
    for seed in (None, 1, 2):
        folder = tmp_path / str(seed)
        stack = stack_of(phantoms.write_series(folder, *phantoms.posed(*patient), shuffle=seed))
        digest = hashlib.sha256()
        scan = read_stack(stack, digest)
        found.append((scan.array.tobytes(), scan.grid.affine.tobytes(), digest.hexdigest()))
        whole = b"".join(Path(path).read_bytes() for path in stack.paths)
        assert found[-1][2] == hashlib.sha256(whole).hexdigest()
        assert len(stack.paths) == 12
    assert found[0] == found[1] == found[2]


def test_an_enhanced_file_is_read_once(tmp_path, patient):
    paths = phantoms.write_series(tmp_path, *phantoms.posed(*patient), enhanced=True)
    digest, stack = hashlib.sha256(), stack_of(paths)
    read_stack(stack, digest)
    assert digest.hexdigest() == hashlib.sha256(Path(paths[0]).read_bytes()).hexdigest()
    assert [instance.frame for instance in stack.instances] == list(range(12))


@pytest.mark.parametrize(
    "options, dtype",
    [
        (dict(slope=[1 + k % 2 for k in range(12)], intercept=-1024, signed=False), np.int16),
        (dict(slope=0.5, intercept=-1000.5), np.float32),
        (dict(slope=[1.0] * 11 + [0.25]), np.float32),
        (dict(intercept=[-1000 - k for k in range(12)]), np.int16),
    ],
)
@pytest.mark.parametrize("enhanced", [False, True])
def test_slope_and_intercept_are_each_slices_own(tmp_path, patient, options, dtype, enhanced):
    hu, affine = phantoms.posed(*patient)
    hu = hu - (hu % 2)  # a slope of 2 holds even numbers alone
    paths = phantoms.write_series(tmp_path, hu, affine, enhanced=enhanced, **options)
    scan = read_stack(stack_of(paths))
    assert scan.array.dtype == dtype
    np.testing.assert_allclose(scan.array, hu, atol=0.5 if options["slope" if "slope" in options
                               else "intercept"] == 0.5 else 0)  # fmt: skip


def test_values_beyond_16_bits_widen_the_array(tmp_path, patient):
    hu, affine = phantoms.posed(*patient)
    hu = hu.astype(np.int32)
    hu[3, 4, 7] = 60000
    paths = phantoms.write_series(tmp_path, hu, affine, signed=False, intercept=-1024)
    scan = read_stack(stack_of(paths))
    assert scan.array.dtype == np.int32
    np.testing.assert_array_equal(scan.array, hu)
    np.testing.assert_array_equal(scan.array, itk_scan(paths)[0])


def test_signed_and_unsigned_slices_may_be_mixed_and_padding_stays(tmp_path, patient):
    hu, affine = phantoms.posed(*patient)
    hu = hu.copy()
    hu[:3, :, :6] = -2000
    even = dict(missing=range(1, 12, 2), copy="a", change=_padding(-2000))
    odd = dict(missing=range(0, 12, 2), copy="b", signed=False, intercept=-3000)
    paths = phantoms.write_series(tmp_path, hu, affine, **even)
    paths += phantoms.write_series(tmp_path, hu, affine, **odd, change=_padding(1000))
    np.testing.assert_array_equal(read_stack(stack_of(paths)).array, hu)


def _padding(value):
    def change(dataset, k):
        dataset.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)

    return change


@pytest.mark.parametrize("syntax", ["jpeg_2000_lossless", "jpeg_ls", "rle", "jpeg_lossless"])
@pytest.mark.parametrize("bits", [13, 16])
def test_signed_values_in_an_unsigned_codestream_stay_signed(tmp_path, patient, syntax, bits):
    """As some archives compress: the codestream knows bits only, the header says what they are."""
    hu, affine = phantoms.posed(*patient)
    raw = hu.astype(np.int64) % (1 << bits)

    def signed(dataset, k):
        dataset.PixelRepresentation = 1

    options = dict(syntax=syntax, bits=bits, signed=False, change=signed)
    scan = read_stack(stack_of(phantoms.write_series(tmp_path, raw, affine, **options)))
    np.testing.assert_array_equal(scan.array, hu)


@pytest.mark.parametrize("syntax", ["implicit", "explicit"])
def test_files_without_the_first_part_are_read(tmp_path, patient, syntax):
    hu, affine = phantoms.posed(*patient)
    paths = phantoms.write_series(tmp_path, hu, affine, preamble=False, syntax=syntax)
    assert b"DICM" not in Path(paths[0]).read_bytes()
    np.testing.assert_array_equal(read_stack(stack_of(paths)).array, hu)


def test_step_and_shoot_is_one_volume(tmp_path, patient):
    hu, affine = phantoms.posed(*patient)
    paths = phantoms.write_series(tmp_path, hu, affine, acquisition=lambda k: 20 - k // 4)
    np.testing.assert_array_equal(read_stack(stack_of(paths)).array, hu)


@pytest.mark.parametrize("shift", [0, 0.4], ids=["same places", "between, unevenly"])
def test_acquisitions_that_fill_no_grid_together_are_several_volumes(tmp_path, patient, shift):
    hu, affine = phantoms.posed(*patient)
    moved = affine @ np.array(np.eye(4) + shift * np.eye(4)[[2]].T * [[0, 0, 0, 1]])
    paths = phantoms.write_series(tmp_path, hu, affine, acquisition=1)
    paths += phantoms.write_series(tmp_path, hu[::-1], moved, acquisition=2, copy="b")
    one, other = volumes_of(paths)
    np.testing.assert_array_equal(read_stack(one).array, hu)
    np.testing.assert_array_equal(read_stack(other).array, hu[::-1])


@pytest.mark.parametrize("number", [lambda k: k % 2, lambda k: k, lambda k: k * 7 % 3])
def test_acquisitions_that_alternate_are_one_volume(tmp_path, patient, number):
    hu, affine = phantoms.posed(*patient)
    paths = phantoms.write_series(tmp_path, hu, affine, acquisition=number)
    np.testing.assert_array_equal(read_stack(stack_of(paths)).array, hu)


@pytest.mark.parametrize("missing", [5, 10])
def test_a_slice_that_lacks_among_alternating_acquisitions_is_a_gap(tmp_path, patient, missing):
    options = dict(acquisition=lambda k: k % 2, missing=[missing])
    paths = phantoms.write_series(tmp_path, *phantoms.posed(*patient), **options)
    assert [code for code, _ in stack_of(paths).findings] == ["series_gap"]


def test_of_a_position_that_two_acquisitions_share_one_image_is_read(tmp_path, patient):
    hu, affine = phantoms.posed(*patient)
    lower, upper = range(6, 12), range(0, 5)
    paths = phantoms.write_series(tmp_path, hu, affine, missing=lower)
    again = dict(acquisition=2, copy="b", missing=upper)
    paths += phantoms.write_series(tmp_path, hu + 1, affine, **again)
    found = stacks.make_stacks([headers.read(path) for path in paths])
    (stack,) = found.stacks
    assert [code for code, _ in stack.findings] == ["series_shared_positions"]
    ((why, path),) = found.left_aside
    assert why == stacks.SECOND_IMAGE and path == paths[6]
    expected = np.concatenate([hu[..., :6], hu[..., 6:] + 1], axis=2)
    np.testing.assert_array_equal(read_stack(stack).array, expected)


def test_a_second_scan_of_one_slice_is_left_out(tmp_path, patient):
    hu, affine = phantoms.posed(*patient)
    paths = phantoms.write_series(tmp_path, hu, affine)
    again = dict(missing=[k for k in range(12) if k != 5], acquisition=2, copy="b")
    paths += phantoms.write_series(tmp_path, hu[::-1], affine, **again)
    found = stacks.make_stacks([headers.read(path) for path in paths])
    assert found.left_aside == (("single image", paths[-1]),)
    np.testing.assert_array_equal(read_stack(found.stacks[0]).array, hu)


@pytest.mark.parametrize("count", [32767, 32768])
def test_more_slices_than_a_label_map_can_have_are_refused(count):
    planes = [headers.Plane((0, 0, k / 4), (1, 0, 0, 0, 1, 0), (1, 1)) for k in range(count)]
    uids = ("patient", "1.2.840", "1.2", "1.3", "1.4", "1.5")
    header = headers.Header("all.dcm", headers.CT, *uids, "1", 4, 4, True, planes=tuple(planes))
    (found,) = stacks.make_stacks([header]).stacks
    if count == 32767:
        assert found.grid.shape == (4, 4, count)
    else:
        assert found.code == "file_too_large"


@pytest.mark.parametrize("shift_mm, is_off", [(0.019, False), (0.55, False), (0.7, True)])
@pytest.mark.parametrize("axis, code", [(0, "series_bent"), (2, "series_uneven")])
def test_a_slice_may_lie_a_tenth_of_a_step_off(tmp_path, patient, shift_mm, is_off, axis, code):
    hu, affine = phantoms.posed(*patient)  # steps of 5.7 mm
    assert 5 < np.linalg.norm(affine[:3, 2]) < 6

    def shift(dataset, k):
        if k == 6:
            place = [float(mm) for mm in dataset.ImagePositionPatient]
            place[axis] += shift_mm
            dataset.ImagePositionPatient = place

    (volume,) = volumes_of(phantoms.write_series(tmp_path, hu, affine, change=shift))
    if isinstance(volume, DicomError):
        assert is_off and volume.code == code == "series_bent"
    else:
        assert [found for found, _ in volume.findings] == [code] * is_off
        assert (volume.offsets_mm is not None) == is_off


def with_step(affine, step_mm):
    """The affine with slices at other distances, from a whole millimetre on."""
    affine = affine.copy()
    affine[:3, 2] *= step_mm / np.linalg.norm(affine[:3, 2])
    affine[2, 3] = -40
    return affine


def rounded_to(unit_mm, halves=np.rint):
    def change(dataset, k):
        place = [float(mm) for mm in dataset.ImagePositionPatient]
        place[2] = float(halves(place[2] / unit_mm) * unit_mm)
        dataset.ImagePositionPatient = [f"{mm:.8g}" for mm in place]

    return change


def half_up(value):
    return np.floor(value + 0.5)


@pytest.mark.parametrize("halves", [np.rint, half_up], ids=["to even", "up"])
@pytest.mark.parametrize(
    "step_mm, unit_mm, code",
    [(1.25, 0.1, None), (2.56, 0.1, None), (0.625, 0.1, None), (3.3, 1, "series_rounded"),
     (1.5, 1, "series_rounded"), (1.25, 1, "series_rounded"), (1.75, 1, "series_rounded"),
     (2.5, 1, "series_rounded"), (0.75, 0.5, "series_rounded")],
)  # fmt: skip
def test_rounded_positions_are_read_at_the_fitted_step(
    tmp_path, patient, step_mm, unit_mm, code, halves
):
    hu, affine = phantoms.posed(*patient)
    hu, affine = np.concatenate([hu] * 4, axis=2), with_step(affine, step_mm)
    paths = phantoms.write_series(tmp_path, hu, affine, change=rounded_to(unit_mm, halves))
    stack = stack_of(paths)
    assert np.linalg.norm(stack.affine[:3, 2]) == pytest.approx(step_mm, rel=0.01)
    assert [found for found, _ in stack.findings] == [code] * bool(code)
    np.testing.assert_array_equal(read_stack(stack).array, hu)


@pytest.mark.parametrize("step_mm, missing", [(1, [20]), (1, [7, 30]), (2, [20]), (3, [4]),
                                              (1, range(2, 48, 3)), (1, [46])])  # fmt: skip
def test_missing_slices_at_whole_millimetres_are_not_taken_for_rounding(
    tmp_path, patient, step_mm, missing
):
    hu, affine = phantoms.posed(*patient)
    hu = np.concatenate([hu] * 4, axis=2)
    options = dict(missing=missing, change=rounded_to(1))
    paths = phantoms.write_series(tmp_path, hu, with_step(affine, step_mm), **options)
    ((code, _),) = stack_of(paths).findings
    assert code == ("series_uneven" if len(missing) > 2 else "series_gap")


@pytest.mark.parametrize("step_mm", [0.7, 1, 3])
def test_positions_that_jitter_are_read_at_the_fitted_step(tmp_path, patient, step_mm):
    hu, affine = phantoms.posed(*patient)
    rng = np.random.default_rng(2)

    def jitter(dataset, k):
        place = [float(mm) for mm in dataset.ImagePositionPatient]
        place[2] += rng.uniform(-0.03, 0.03)
        dataset.ImagePositionPatient = [f"{mm:.8g}" for mm in place]

    paths = phantoms.write_series(tmp_path, hu, with_step(affine, step_mm), change=jitter)
    stack = stack_of(paths)
    assert np.linalg.norm(stack.affine[:3, 2]) == pytest.approx(step_mm, rel=0.01)
    fitted = stack.positions_mm[0, 2] + 0.0 * stack.affine[2, 2]
    assert abs(stack.affine[2, 3] - fitted) <= 0.06 and not stack.findings


def test_positions_that_drift_are_kept_where_they_are(tmp_path, patient):
    hu, affine = phantoms.posed(*patient)
    hu = np.concatenate([hu] * 12, axis=2)

    def bend(dataset, k):
        place = [float(mm) for mm in dataset.ImagePositionPatient]
        place[2] += 0.0003 * k**2 / 2  # each step within the tolerance, their sum not
        dataset.ImagePositionPatient = [f"{mm:.8f}" for mm in place]

    stack = stack_of(phantoms.write_series(tmp_path, hu, affine, change=bend))
    assert [code for code, _ in stack.findings] == ["series_uneven"]
    places = np.linalg.norm(stack.positions_mm - stack.positions_mm[0], axis=1)
    np.testing.assert_allclose(stack.grid.planes.offsets_mm, places, atol=1e-3)


def _moved(dataset, k):
    if k == 5:
        dataset.ImagePositionPatient[0] += 2


def _garbled(dataset, k):
    if k == 5:
        pixels = bytearray(dataset.PixelData)
        pixels[20:-8] = b"\x17" * (len(pixels) - 28)
        dataset.PixelData = bytes(pixels)


def _claims(rows):
    def change(dataset, k):
        dataset.Rows = rows

    return change


REFUSED = [
    ("series_bent", dict(change=_moved), "straight line"),
    ("series_no_position", dict(without=["ImagePositionPatient"]), "position"),
    ("series_no_position", dict(without=["ImageOrientationPatient"]), "orientation"),
    ("series_no_position", dict(without=["PixelSpacing"]), "spacing"),
    ("series_no_rescale", dict(without=["RescaleSlope"]), "slope"),
    ("series_no_rescale", dict(without=["RescaleIntercept"]), "slope"),
    ("series_no_rescale", dict(change=lambda d, k: setattr(d, "RescaleSlope", 0)), "slope"),
    ("file_truncated", dict(without=["PixelData"]), "no pixel data"),
    ("file_truncated", dict(change=_claims(40)), "instead of"),
    ("file_damaged", dict(syntax="jpeg_2000_lossless", change=_claims(40)), "decoded"),
    ("file_damaged", dict(syntax="jpeg_ls", change=_claims(40)), "decoded"),
    ("file_damaged", dict(syntax="rle", change=_claims(40)), "decoded"),
    *[
        ("file_damaged", dict(syntax=syntax, change=_garbled), "decoded")
        for syntax in ("rle", "jpeg_lossless", "jpeg_ls", "jpeg_2000_lossless")
    ],
    ("file_damaged", dict(change=lambda d, k: setattr(d, "SamplesPerPixel", 0)), "decoded"),
    ("file_damaged", dict(change=lambda d, k: setattr(d, "BitsAllocated", 13)), "decoded"),
]  # fmt: skip


@pytest.mark.parametrize(
    "missing, words", [([5], ["1 between"]), ([5, 6, 9], ["2 between", "1 between"])]
)
def test_a_gap_is_a_finding_that_rejects(tmp_path, patient, missing, words):
    hu, affine = phantoms.posed(*patient)
    paths = phantoms.write_series(tmp_path, hu, affine, missing=missing)
    scan = series.read_stack(stack_of(paths))
    (finding,) = scan.findings
    assert (finding.code, finding.severity) == ("series_gap", "reject")
    assert all(word in finding.message for word in words)
    np.testing.assert_array_equal(file_order.of(scan).array, np.delete(hu, missing, axis=2))


@pytest.mark.parametrize("code, options, words", REFUSED)
def test_what_is_no_volume_ends_under_its_code(tmp_path, patient, code, options, words):
    paths = phantoms.write_series(tmp_path, *phantoms.posed(*patient), **options)
    with pytest.raises(DicomError) as error:
        read_stack(stack_of(paths))
    assert error.value.code == code
    assert words in str(error.value) and str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value) and "Secret" not in str(error.value)


@pytest.mark.parametrize(
    "uid, words",
    [
        ("1.2.840.10008.1.2.4.50", "JPEG Baseline"),
        ("1.2.840.10008.1.2.4.201", "High-Throughput"),
        ("1.2.3.4", "an unknown one"),
    ],
)
def test_a_transfer_syntax_that_is_not_known_is_named(tmp_path, patient, uid, words):
    paths = phantoms.write_series(tmp_path, *phantoms.posed(*patient), syntax="jpeg_lossless")
    content = Path(paths[3]).read_bytes()
    start = content.index(b"1.2.840.10008.1.2.4.57")
    length, padded = content[start - 2 : start], uid.encode() + b"\0" * (len(uid) % 2)
    assert length == (22).to_bytes(2, "little")
    group = int.from_bytes(content[140:144], "little") + len(padded) - 22
    changed = len(padded).to_bytes(2, "little") + padded + content[start + 22 :]
    content = content[:140] + group.to_bytes(4, "little") + content[144 : start - 2] + changed
    Path(paths[3]).write_bytes(content)
    with pytest.raises(DicomError, match=words) as error:
        read_stack(stack_of(paths))
    assert error.value.code == "dicom_syntax" and paths[3] in str(error.value)


@pytest.mark.parametrize("syntax", ["explicit", "deflated", "jpeg_lossless", "rle"])
def test_a_file_that_ends_too_soon_is_refused(tmp_path, patient, syntax):
    paths = phantoms.write_series(tmp_path, *phantoms.posed(*patient), syntax=syntax)
    stack, content = stack_of(paths), Path(paths[4]).read_bytes()
    for share in (0.95, 0.7, 0.3, 0.01, 0):
        Path(paths[4]).write_bytes(content[: int(share * len(content))])
        with pytest.raises(DicomError) as error:
            read_stack(stack)
        assert error.value.code in {"file_truncated", "file_damaged", "file_changed",
                                    "file_not_dicom"}  # fmt: skip
        assert error.value.code == "file_truncated" or share < 0.9 or syntax == "deflated"


def test_a_file_that_changes_or_goes_after_indexing_is_refused(tmp_path, patient):
    paths = phantoms.write_series(tmp_path, *phantoms.posed(*patient))
    stack = stack_of(paths)
    shutil.copy(paths[2], paths[3])
    with pytest.raises(DicomError, match=paths[3]) as error:
        read_stack(stack)
    assert error.value.code == "file_changed"
    Path(paths[3]).unlink()
    with pytest.raises(DicomError, match=paths[3]) as error:
        read_stack(stack)
    assert error.value.code == "file_missing"


@pytest.mark.parametrize("copy", [None, "again"], ids=["byte for byte", "under another UID"])
def test_images_that_lie_there_twice_count_once(tmp_path, patient, copy):
    hu, affine = phantoms.posed(*patient)
    paths = phantoms.write_series(tmp_path, hu, affine)
    if copy:
        paths += phantoms.write_series(tmp_path, hu, affine, copy=copy, missing=range(3, 12))
    else:
        paths += [shutil.copy(path, path + ".copy") for path in paths[:3]]
    stack = stack_of(paths)
    assert stack.findings == (("series_duplicates", "3 images lie in the series twice"),)
    np.testing.assert_array_equal(read_stack(stack).array, hu)
    assert sorted(stack.paths) == sorted(paths)


def test_two_images_at_one_place_that_differ_are_several_volumes(tmp_path, patient):
    hu, affine = phantoms.posed(*patient)
    paths = phantoms.write_series(tmp_path, hu, affine)
    other = hu.copy()
    other[7, 8, 11] += 1
    paths += phantoms.write_series(tmp_path, other, affine, copy="b")
    with pytest.raises(DicomError, match=paths[11]) as error:
        read_stack(stack_of(paths))
    assert error.value.code == "series_several_volumes" and paths[23] in str(error.value)


@pytest.mark.parametrize(
    "code, options",
    [
        ("series_derived", dict(image_type="DERIVED\\PRIMARY\\AXIAL")),
        ("series_lossy", dict(syntax="jpeg_2000")),
        ("series_lossy", dict(change=lambda d, k: setattr(d, "LossyImageCompression", "01"))),
        (None, dict(syntax="jpeg_2000_lossless")),
        (None, dict(image_type="ORIGINAL\\SECONDARY\\AXIAL")),
    ],
)
def test_what_deserves_a_warning_gets_one(tmp_path, patient, code, options):
    paths = phantoms.write_series(tmp_path, *phantoms.posed(*patient), **options)
    assert [found for found, _ in stack_of(paths).findings] == [code] * bool(code)


def test_the_header_is_the_first_slices(tmp_path, patient):
    paths = phantoms.write_series(tmp_path, *phantoms.posed(*patient), shuffle=4)
    stack = stack_of(paths)
    assert "PixelData" not in stack.header
    assert stack.header.SOPInstanceUID == stack.instances[0].sop_instance_uid
    assert stack.header == pydicom.dcmread(stack.instances[0].path, stop_before_pixels=True)


def test_a_real_export_equals_its_nifti(real_ct):
    (patient,) = index.index_folder(str(real_ct / "lung1_002_dicom")).patients
    scan, expected = (
        read_stack(patient.cases[0].stack),
        file_order.read(str(real_ct / "lung1_002/ct.nii.gz")),
    )
    assert scan.array.dtype == expected.array.dtype
    np.testing.assert_array_equal(scan.array, expected.array)
    np.testing.assert_allclose(scan.grid.affine, expected.grid.affine, atol=1e-4)
    assert (
        patient.cases[0].structures.path.endswith("/1.dcm") and not patient.cases[0].stack.findings
    )


def test_a_real_tilted_series_with_uneven_steps_is_read_as_itk_places_each_slice(real_ct):
    found = index.index_folder(str(real_ct / "tilted_head_dicom"))
    (patient,) = found.patients
    stack = patient.cases[0].stack
    assert [code for code, _ in stack.findings] == ["series_uneven", "series_tilted"]
    assert "1.14 to 7.38 mm" in stack.findings[0][1]
    scan, planes = read_stack(stack), stack.grid.planes
    along = stack.affine[:3, 2] / np.linalg.norm(stack.affine[:3, 2])
    for k, instance in enumerate(stack.instances):
        array, affine = itk_scan([instance.path])
        np.testing.assert_array_equal(scan.array[:, :, k], array[:, :, 0])
        for corner in ([0, 0], [511, 0], [0, 511]):
            place = stack.affine @ [*corner, 0, 1]
            place[:3] += planes.offsets_mm[k] * along
            np.testing.assert_allclose(place, affine @ [*corner, 0, 1], atol=1e-3)
    ((why, path),) = found.left_aside
    assert why == "localizer" and path.endswith("localizer_of_another_series.dcm")


def test_the_even_part_of_a_real_tilted_series_is_read_as_itk_places_it(real_ct):
    paths = sorted(str(path) for path in (real_ct / "tilted_head_dicom").glob("0*.dcm"))[:14]
    stack = stack_of(paths)
    scan = read_stack(stack)
    assert stack.findings == (("series_tilted", "the gantry was tilted by 18.5 degrees"),)
    for k, instance in enumerate(stack.instances):
        array, affine = itk_scan([instance.path])
        np.testing.assert_array_equal(scan.array[:, :, k], array[:, :, 0])
        for corner in ([0, 0], [511, 0], [0, 511]):
            place = scan.grid.affine @ [*corner, k, 1]
            np.testing.assert_allclose(place, affine @ [*corner, 0, 1], atol=1e-4)
