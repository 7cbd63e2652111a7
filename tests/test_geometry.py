"""The way to the network's grid and the way back."""

import dataclasses
import itertools
import json

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from segthor import fields
from segthor.boxes import label_boxes
from segthor.geometry import AIR_HU, Orientation, Placement
from segthor.volume import Grid
from tests.way_back import labels_back

ALL_AXCODES = [
    "".join(pair[flip] for pair, flip in zip(order, flips, strict=True))
    for order in itertools.permutations(("LR", "PA", "SI"))
    for flips in itertools.product((0, 1), repeat=3)
]


def affine_of(axcodes, spacing_mm=(1.0, 1.0, 1.0), shape=(1, 1, 1), oblique_deg=0.0):
    """An affine whose axes run along `axcodes`, by nibabel's own orientation functions."""
    target = nibabel.orientations.axcodes2ornt(axcodes)
    affine = nibabel.orientations.inv_ornt_aff(target, shape)
    tilt = np.deg2rad(oblique_deg)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    directions = turn @ np.linalg.inv(affine)[:3, :3]
    result = np.eye(4)
    result[:3, :3] = directions * np.asarray(spacing_mm)
    result[:3, 3] = (-31.5, 17.25, 112.0)
    return result


def placed(shape, affine, *box):
    """(grid, placement) of a file's shape and affine; box: as `Placement.centred` takes it."""
    grid = Grid(shape, affine)
    return grid, Placement.centred(grid.shape_zyx, grid.spacing_mm, *box)


def test_all_48_orientations_are_distinct():
    assert len(set(ALL_AXCODES)) == 48


@pytest.mark.parametrize("axcodes", ALL_AXCODES)
def test_orientation_agrees_with_nibabel_for_every_axis_order_and_flip(axcodes):
    rng = np.random.default_rng(0)
    scan = rng.integers(0, 100, (3, 4, 5))
    affine = affine_of(axcodes, (0.9, 1.1, 2.5), scan.shape, oblique_deg=12)
    image = nibabel.Nifti1Image(scan.astype(np.int16), affine)
    start = nibabel.io_orientation(affine)
    to_lps = nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt("LPS"))
    expected = np.asarray(image.as_reoriented(to_lps).dataobj).transpose(2, 1, 0)
    orientation = Orientation.of(affine)
    np.testing.assert_array_equal(orientation.to_zyx(scan), expected)
    np.testing.assert_array_equal(orientation.to_file(orientation.to_zyx(scan)), scan)
    grid = Grid(scan.shape, affine)
    np.testing.assert_array_equal(grid.to_zyx(scan), expected)
    np.testing.assert_array_equal(grid.to_file(expected), scan)
    assert np.shares_memory(grid.to_zyx(scan), scan) and grid.shape_zyx == expected.shape
    zooms = image.as_reoriented(to_lps).header.get_zooms()
    assert grid.spacing_mm == pytest.approx(zooms[::-1], rel=1e-5)
    reoriented = image.as_reoriented(to_lps).affine
    np.testing.assert_allclose(grid.lps_affine(), reoriented, atol=0.05 + 1e-5)
    np.testing.assert_allclose(grid.lps_affine()[:, :3], reoriented[:, :3], atol=1e-6)
    assert orientation.is_lps == (axcodes == "LPS")


@pytest.mark.parametrize("axcodes", ALL_AXCODES)
@pytest.mark.parametrize("shape", [(40, 37, 33), (37, 40, 34)])
def test_native_round_trip_is_exact_for_every_axis_order_and_flip(axcodes, shape):
    affine = affine_of(axcodes, (0.9, 1.3, 2.5), shape, oblique_deg=7)
    labels = np.random.default_rng(1).integers(0, 5, shape).astype(np.uint8)
    center = (17.25, 19.5)
    grid, placement = placed(shape, affine, center, 64, 0)
    zyx = grid.to_zyx(labels)
    boxes = label_boxes(zyx)
    prepared = placement.labels_to_model(zyx, boxes)
    assert prepared.shape == (len(zyx), 64, 64)
    assert placement.labels_outside(zyx, boxes) == 0
    np.testing.assert_array_equal(grid.to_file(labels_back(placement, prepared)), labels)


@pytest.mark.parametrize("center", [(0, 0), (-40, 5), (39, 36), (90, 90), (12.5, 7.49)])
@pytest.mark.parametrize("size_px", [8, 15, 32])
def test_box_over_the_edge_is_padded_and_what_it_holds_comes_back_exactly(center, size_px):
    shape = (40, 37, 3)
    affine = affine_of("LPS", (1, 1, 2))
    rng = np.random.default_rng(2)
    labels = rng.integers(1, 5, shape).astype(np.uint8)
    grid, placement = placed(shape, affine, center, size_px, 0)
    zyx = grid.to_zyx(labels)
    boxes = label_boxes(zyx)
    back = grid.to_file(labels_back(placement, placement.labels_to_model(zyx, boxes)))
    kept = back > 0
    np.testing.assert_array_equal(back[kept], labels[kept])
    assert placement.labels_outside(zyx, boxes) == np.count_nonzero(~kept)
    hu = grid.to_zyx(rng.integers(0, 9, shape).astype(np.int16))
    hu = np.stack([*placement.image_to_model(hu)])
    assert np.count_nonzero(hu != AIR_HU) == np.count_nonzero(kept)
    # By hand: the box spans first .. first + size - 1 in rows (Y) and columns (X).
    first = [int(np.floor(c - (size_px - 1) / 2 + 0.5)) for c in center]
    expected = np.zeros(shape, bool)
    rows = slice(max(first[0], 0), max(first[0] + size_px, 0))
    columns = slice(max(first[1], 0), max(first[1] + size_px, 0))
    expected[columns, rows] = True
    np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize("pixel_mm", [0.7, 1.0, 1.9, 3.0])
def test_resampling_agrees_with_linear_interpolation_where_pixels_do_not_grow(pixel_mm):
    shape, spacing = (50, 44, 3), (1.9, 1.9, 4.0)
    hu = np.random.default_rng(3).normal(0, 300, shape).astype(np.float32)
    grid, placement = placed(shape, affine_of("LPS", spacing), (20.3, 24.1), 32, pixel_mm)
    prepared = np.stack([*placement.image_to_model(grid.to_zyx(hu))])
    step = placement.step_px[0]
    assert step == pytest.approx(pixel_mm / 1.9)
    positions = [first + step * np.arange(32) for first in placement.first_px]
    if step <= 1:
        for z in range(3):
            mesh = np.meshgrid(*positions, indexing="ij")
            expected = ndimage.map_coordinates(hu[:, :, z].T, mesh, order=1, cval=AIR_HU)
            inside = (mesh[0] >= 0) & (mesh[0] <= 43) & (mesh[1] >= 0) & (mesh[1] <= 49)
            np.testing.assert_allclose(prepared[z][inside], expected[inside], atol=1e-2)
    flat = np.full(shape, 37, np.int16)
    flat = np.stack([*placement.image_to_model(grid.to_zyx(flat))])
    inside = (positions[0] >= 2) & (positions[0] <= 41)
    np.testing.assert_allclose(flat[:, inside][:, :, 14:18], 37, atol=1e-3)


def test_a_linear_ramp_survives_resampling_at_every_pixel_size():
    shape, spacing = (60, 60, 2), (1.2, 0.8, 3.0)
    x, y = np.meshgrid(np.arange(60) * 1.2, np.arange(60) * 0.8, indexing="ij")
    hu = np.repeat((3 * x - 2 * y)[..., None], 2, axis=2).astype(np.float32)
    for pixel_mm in (0.5, 1.0, 1.6):
        grid, placement = placed(shape, affine_of("LPS", spacing), (30, 30), 16, pixel_mm)
        rows = (placement.first_px[0] + placement.step_px[0] * np.arange(16)) * 0.8
        columns = (placement.first_px[1] + placement.step_px[1] * np.arange(16)) * 1.2
        expected = 3 * columns[None, :] - 2 * rows[:, None]
        # A sampled triangle wider than a pixel keeps its centre to within 0.05 source pixels.
        shift_px = 0.05 if max(placement.step_px) > 1 else 0.005
        tolerance_hu = shift_px * (2 * 0.8 + 3 * 1.2)
        np.testing.assert_allclose(
            np.stack([*placement.image_to_model(grid.to_zyx(hu))])[0], expected, atol=tolerance_hu
        )


@pytest.mark.parametrize("axcodes", ["LPS", "RAS", "PIR", "SAL"])
def test_resampled_labels_come_back_nearly_whole(axcodes):
    shape = (70, 64, 66)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    labels = np.zeros(shape, np.uint8)
    labels[((grid - (35, 30, 33)) ** 2).sum(-1) < 18**2] = 2
    labels[((grid - (35, 52, 33)) ** 2).sum(-1) < 7**2] = 1
    affine = affine_of(axcodes, (1.3,) * 3, shape)
    grid, placement = placed(shape, affine, (33, 33), 128, 1.0)
    zyx = grid.to_zyx(labels)
    back = labels_back(placement, placement.labels_to_model(zyx, label_boxes(zyx)))
    back = grid.to_file(back)
    for value, least in ((1, 0.95), (2, 0.97)):
        both = np.count_nonzero((back == value) & (labels == value))
        dice = 2 * both / (np.count_nonzero(back == value) + np.count_nonzero(labels == value))
        assert dice >= least


def test_the_most_probable_class_is_that_of_every_pixel_resampled_without_short_cuts():
    rng = np.random.default_rng(5)
    shape = (44, 40, 6)
    probabilities = rng.dirichlet([2, 1, 1], (6, 32, 32)).astype(np.float32)
    probabilities[0] = [0.9, 0.06, 0.04]
    probabilities[1:4, :20, 9:] = [0.6, 0.3, 0.1]
    for center, pixel_mm in (((20, 22), 1.0), ((20, 22), 2.4), ((3, 41), 1.3), ((90, 90), 1.0)):
        placement = placed(shape, affine_of("LPS", (1.4, 1.1, 3)), center, 32, pixel_mm)[1]
        rows, columns = (weights.toarray() for weights in placement._way_back[0])
        maps = np.einsum("yh,nhwk,xw->nkyx", rows, probabilities, columns, optimize=True)
        lead = np.diff(np.sort(maps, 1)[:, -2:], axis=1)[:, 0]
        clear = (lead == 0) | (lead > 1e-5)  # a tie of zeros, or no tie in another order of adding
        classes, shares = placement.most_probable(probabilities)
        assert classes.shape == shares.shape == (6, 40, 44)
        np.testing.assert_array_equal(classes[clear], maps.argmax(1)[clear])
        np.testing.assert_allclose(placement.planes(probabilities), maps, atol=1e-5)
        expected = np.where(maps.argmax(1), maps.max(1), 0)
        np.testing.assert_allclose(shares[clear], expected[clear], atol=1e-5)
        assert not classes[0].any() and classes[1:].any() == (center != (90, 90))


def test_placement_survives_json():
    placement = placed((40, 44, 5), affine_of("PIR"), (1.1, 2 / 3), 32, 1.7)[1]
    stored = json.loads(json.dumps(dataclasses.asdict(placement)))
    assert fields.from_json(Placement, stored, "placement") == placement


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("pixel_mm", [0, 1.5])
def test_beyond_a_scan_without_a_sign_lies_air_too(dtype, pixel_mm):
    scan = np.random.default_rng(0).integers(0, 250, (30, 40, 3)).astype(dtype)
    grid, placement = placed(scan.shape, affine_of("LPS"), (15, 20), 96, pixel_mm)
    prepared = np.stack(list(placement.image_to_model(grid.to_zyx(scan))))
    signed = np.stack(list(placement.image_to_model(grid.to_zyx(scan.astype(np.int16)))))
    np.testing.assert_array_equal(prepared, signed)
    assert prepared.min() == AIR_HU
