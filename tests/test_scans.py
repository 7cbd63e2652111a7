"""Reading label maps: on the scan's grid, in this project's labels, or an error that says why."""

import os

import nibabel
import numpy as np
import pytest

from segthor import scans
from segthor.errors import InputError
from segthor.organs import SEGTHOR
from tests import file_order

AFFINE = np.diag([-1.0, -1.5, 3.0, 1.0])


def labels_of(shape=(6, 5, 4)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 5, shape).astype(np.uint8)


def save(path, array, affine=AFFINE, **header):
    image = nibabel.Nifti1Image(array, affine)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return str(path)


def test_labels_that_a_float64_round_trip_moved_are_rounded_and_the_largest_step_is_named(tmp_path):
    labels = labels_of()
    moved = labels * np.float64(1.0000001)
    moved[0, 0, 0] = labels[0, 0, 0] - 0.0009
    found = scans.read_labels(save(tmp_path / "a.nii.gz", moved), organs=SEGTHOR)
    np.testing.assert_array_equal(file_order.of(found).array, labels)
    assert found.zyx.dtype == np.uint8
    (warning,) = found.findings
    assert "a.nii.gz" in warning.message and "up to 0.0009 off" in warning.message


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_whole_labels_of_any_type_raise_no_warning(tmp_path, dtype):
    found = scans.read_labels(save(tmp_path / "a.nii", labels_of().astype(dtype)), organs=SEGTHOR)
    np.testing.assert_array_equal(file_order.of(found).array, labels_of())
    assert found.findings == ()


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_labels_stored_with_a_slope_are_those_that_nibabel_reads(tmp_path, dtype):
    stored = (labels_of() * 10).astype(dtype)
    path = save(tmp_path / "a.nii", stored)
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[112:116] = np.float32(0.1).tobytes()  # scl_slope, at its place in the standard
    content[116:120] = np.float32(0).tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    by_nibabel = np.asarray(nibabel.load(path).dataobj)
    assert (by_nibabel != np.rint(by_nibabel)).any()
    found = file_order.of(scans.read_labels(path, organs=SEGTHOR)).array
    np.testing.assert_array_equal(found, np.rint(by_nibabel))


@pytest.mark.parametrize("value", [1.4, 1.0011, 0.5, np.nan, np.inf, -np.inf])
def test_a_value_between_labels_is_refused(tmp_path, value):
    array = labels_of().astype(np.float64)
    array[1, 1, 1] = value
    with pytest.raises(InputError, match="a.nii: 1 voxels of the contours are not whole numbers"):
        scans.read_labels(save(tmp_path / "a.nii", array), organs=SEGTHOR)


@pytest.mark.parametrize("value", [5.00001, -0.99999, 1e9])
def test_a_rounded_value_must_still_stand_for_an_organ(tmp_path, value):
    array = labels_of().astype(np.float64)
    array[1, 1, 1] = value
    with pytest.raises(InputError, match="stand for no organ"):
        scans.read_labels(save(tmp_path / "a.nii", array), organs=SEGTHOR)


def test_other_label_values_are_found_among_rounded_ones(tmp_path):
    array = np.zeros((4, 4, 2))
    array[0], array[1], array[2] = 7.00001, 9, 2
    found = scans.read_labels(
        save(tmp_path / "a.nii", array), label_values=(("heart", 7), ("aorta", 9)), organs=SEGTHOR
    )
    assert [file_order.of(found).array[x, 0, 0] for x in range(4)] == [2, 4, 0, 0]


def test_a_label_map_without_a_voxel_is_read_with_a_warning(tmp_path):
    found = scans.read_labels(
        save(tmp_path / "a.nii", np.zeros((4, 4, 2), np.uint8)), organs=SEGTHOR
    )
    assert not found.zyx.any()
    (finding,) = found.findings
    assert finding.message == f"{tmp_path / 'a.nii'}: no voxel is labelled"


def test_labels_must_lie_on_the_scans_grid(tmp_path):
    ct = scans.read(save(tmp_path / "ct.nii", labels_of().astype(np.int16)))
    like = (str(tmp_path / "ct.nii"), ct.grid)
    scans.read_labels(save(tmp_path / "same.nii", labels_of()), like, organs=SEGTHOR)
    shifted = AFFINE.copy()
    shifted[2, 3] = 0.5
    for name, array, affine, words in (
        ("shape.nii", labels_of((6, 5, 3)), AFFINE, "6x5x3"),
        ("spacing.nii", labels_of(), np.diag([-1.0, -1.5, 2.5, 1.0]), "2.5 mm"),
        ("moved.nii", labels_of(), shifted, "0.5 mm"),
    ):
        with pytest.raises(InputError, match=f"{name} against .*ct.nii: .*{words}"):
            scans.read_labels(save(tmp_path / name, array, affine), like, organs=SEGTHOR)


def test_the_header_alone_gives_the_grid_that_reading_gives(tmp_path):
    path = save(tmp_path / "a.nii.gz", labels_of())
    grid = scans.read_grid(path)
    assert grid.shape == scans.read(path).grid.shape == file_order.read(path).array.shape
    np.testing.assert_array_equal(grid.affine, scans.read(path).grid.affine)


@pytest.mark.parametrize("seconds", [-5.0, 0.0, 1e11 * 3, 1e18])
def test_a_time_of_change_that_no_calendar_has_is_no_month(tmp_path, monkeypatch, seconds):
    monkeypatch.setattr(os.path, "getmtime", lambda _: seconds)
    assert scans.read_month(str(tmp_path / "GT.nii.gz")) == ""
