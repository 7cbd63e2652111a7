"""Reading and writing NIfTI, against nibabel's own reader."""

import gzip
import hashlib

import nibabel
import numpy as np
import pytest

from segthor import nifti
from segthor.errors import InputError
from segthor.volume import Grid
from tests import file_order

AFFINE = np.array([[-0.97, 0, 0.05, 250], [0, -0.97, 0, 200], [0.02, 0, 2.5, -700], [0, 0, 0, 1.0]])


def saved(tmp_path, array, name="scan.nii.gz", kind=nibabel.Nifti1Image, slope=None, inter=None):
    image = kind(array, AFFINE)
    image.header.set_xyzt_units("mm")
    path = str(tmp_path / name)
    if slope is None:
        nibabel.save(image, path)
        return path
    image.header.set_slope_inter(slope, inter)
    image.header.set_data_dtype(array.dtype)
    raw = image.header.copy()
    raw["vox_offset"] = 352
    content = raw.binaryblock + bytes(4) + array.tobytes(order="F")
    open(path, "wb").write(gzip.compress(content) if path.endswith(".gz") else content)
    return path


@pytest.mark.parametrize(
    "dtype", ["int16", "uint16", "uint8", "int32", "float32", "float64", ">i2"]
)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_read_equals_nibabel_for_every_type(tmp_path, dtype, name, kind):
    array = np.random.default_rng(0).integers(0, 200, (5, 6, 7)).astype(dtype)
    path = saved(tmp_path, array, name, kind)
    scan = file_order.read(path)
    np.testing.assert_array_equal(scan.array, np.asarray(nibabel.load(path).dataobj))
    np.testing.assert_array_equal(scan.grid.affine, nibabel.load(path).affine)
    assert scan.array.dtype.isnative


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32"])
@pytest.mark.parametrize(
    ("slope", "inter"), [(1, -1024), (2, 0), (0.5, 10), (1, -1024.5), (40, -9)]
)
def test_slope_and_intercept_are_applied_as_nibabel_does(tmp_path, dtype, slope, inter):
    array = np.random.default_rng(0).integers(0, 4000, (5, 6, 7)).astype(dtype)
    path = saved(tmp_path, array, slope=slope, inter=inter)
    scan = file_order.read(path)
    np.testing.assert_allclose(scan.array, nibabel.load(path).get_fdata(), rtol=1e-6)
    if dtype != "float32" and float(slope).is_integer() and float(inter).is_integer():
        assert scan.array.dtype.kind == "i"


@pytest.mark.parametrize("name", ["out.nii", "out.nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_labels_written_on_a_scans_grid_keep_every_header_fact_of_place(tmp_path, name, kind):
    image = kind(np.zeros((5, 6, 7), np.int16), AFFINE)
    image.set_qform(np.diag([0.5, 0.5, 2, 1]), code=1)
    image.set_sform(AFFINE, code=2)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, tmp_path / "scan.nii.gz")
    labels = np.random.default_rng(0).integers(0, 5, (5, 6, 7)).astype(np.uint8)
    file_order.write(
        str(tmp_path / name), labels, file_order.read(str(tmp_path / "scan.nii.gz")).grid
    )
    written = nibabel.load(tmp_path / name)
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels)
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(written.affine, image.affine)
    for form in ("get_qform", "get_sform"):
        matrix, code = getattr(written, form)(coded=True)
        expected, expected_code = getattr(image, form)(coded=True)
        assert code == expected_code
        np.testing.assert_allclose(matrix, expected, atol=1e-6)
    assert written.header.get_xyzt_units() == ("mm", "sec")


def test_writing_twice_gives_the_same_bytes(tmp_path):
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    grid = Grid(array.shape, AFFINE)
    for name in ("a.nii.gz", "b.nii.gz"):
        file_order.write(str(tmp_path / name), array, grid)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz"]


def test_metres_become_millimetres(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.diag([0.001, 0.001, 0.002, 1]))
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "m.nii")
    assert nifti.read_grid(str(tmp_path / "m.nii")).spacing_mm == pytest.approx((2, 1, 1))


def test_every_truncation_of_a_compressed_file_is_refused(tmp_path):
    array = np.random.default_rng(0).integers(0, 4000, (8, 8, 8)).astype(np.int16)
    content = open(saved(tmp_path, array), "rb").read()
    short = tmp_path / "short.nii.gz"
    for length in range(0, len(content), 7):
        short.write_bytes(content[:length])
        with pytest.raises(InputError, match="short.nii.gz"):
            file_order.read(str(short))


def test_a_flipped_bit_is_refused_by_the_checksum(tmp_path):
    array = np.random.default_rng(0).integers(0, 4000, (8, 8, 8)).astype(np.int16)
    content = bytearray(open(saved(tmp_path, array), "rb").read())
    content[-5] ^= 4
    (tmp_path / "bad.nii.gz").write_bytes(content)
    with pytest.raises(nifti.NiftiError, match="CRC") as caught:
        file_order.read(str(tmp_path / "bad.nii.gz"))
    assert caught.value.code == "file_damaged"


def test_what_follows_the_voxels_is_under_the_checksum_too(tmp_path):
    array = np.random.default_rng(0).integers(0, 4000, (8, 8, 8)).astype(np.int16)
    content = gzip.decompress(open(saved(tmp_path, array), "rb").read()) + bytes(100)
    packed = bytearray(gzip.compress(content))
    (tmp_path / "long.nii.gz").write_bytes(packed)
    np.testing.assert_array_equal(file_order.read(str(tmp_path / "long.nii.gz")).array, array)
    packed[-5] ^= 4
    (tmp_path / "long.nii.gz").write_bytes(packed)
    with pytest.raises(nifti.NiftiError, match="CRC"):
        file_order.read(str(tmp_path / "long.nii.gz"))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_the_digest_is_of_the_whole_file(tmp_path, name):
    path = saved(tmp_path, np.random.default_rng(0).integers(0, 9, (90, 90, 90), np.int16), name)
    with open(path, "ab") as stream:
        stream.write(bytes(3))  # gzip allows trailing zeros
    digest = hashlib.sha256()
    file_order.read(path, digest)
    assert digest.hexdigest() == hashlib.sha256(open(path, "rb").read()).hexdigest()


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("vox_offset", np.nan, "file_header"),
        ("vox_offset", 1e30, "file_header"),
        ("vox_offset", -5, "file_header"),
        ("dim", [3, 32767, 32767, 32767, 1, 1, 1, 1], "file_too_large"),
        ("dim", [3, -4, 5, 6, 1, 1, 1, 1], "file_not_3d"),
        ("dim", [900, 4, 5, 6, 1, 1, 1, 1], "file_not_3d"),
        ("srow_x", [np.nan, 0, 0, 0], "file_affine"),
        ("srow_x", [0, 0, 0, 0], "file_affine"),
        ("datatype", 128, "file_type"),  # RGB
        ("datatype", 32, "file_type"),  # complex
        ("datatype", 999, "file_header"),
        ("magic", b"ni1", "file_not_nifti"),
        ("magic", b"xyz", "file_not_nifti"),
        ("dim", [3, 8, 8, 9, 1, 1, 1, 1], "file_truncated"),
        ("dim", [3, 8, 8, 7, 1, 1, 1, 1], "file_surplus"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused_by_its_kind(tmp_path, field, value, code):
    path = saved(tmp_path, np.zeros((8, 8, 8), np.int16), "x.nii")
    content = bytearray(open(path, "rb").read())
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    header[field] = value
    content[:348] = header.binaryblock
    open(path, "wb").write(content)
    with pytest.raises(nifti.NiftiError, match="x.nii") as caught:
        file_order.read(path)
    assert caught.value.code == code


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_signalling_nan_in_the_affine_is_refused_without_a_warning(tmp_path):
    path = saved(tmp_path, np.zeros((8, 8, 8), np.int16), "x.nii")
    content = bytearray(open(path, "rb").read())
    content[280:284] = b"\x01\x00\x80\x7f"  # srow_x[0]
    open(path, "wb").write(content)
    with pytest.raises(nifti.NiftiError, match="x.nii") as caught:
        file_order.read(path)
    assert caught.value.code == "file_affine"


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x1f\x8b", bytes(400), b"\x5c\x01\0\0" + bytes(400)]
)
def test_what_is_no_nifti_is_refused(tmp_path, content):
    (tmp_path / "x.nii").write_bytes(content)
    with pytest.raises(InputError, match="x.nii"):
        file_order.read(str(tmp_path / "x.nii"))


def test_4d_is_refused_and_a_trailing_axis_of_one_is_dropped(tmp_path):
    with pytest.raises(InputError, match="3D"):
        file_order.read(saved(tmp_path, np.zeros((3, 3, 3, 2), np.int16)))
    assert file_order.read(saved(tmp_path, np.zeros((3, 4, 5, 1), np.int16))).array.shape == (
        3,
        4,
        5,
    )


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="none.nii"):
        file_order.read(str(tmp_path / "none.nii"))


def test_stems():
    assert [nifti.stem(p) for p in ("a/B.NII.GZ", "b.nii", "s3://x/c.nii.gz")] == ["B", "b", "c"]
