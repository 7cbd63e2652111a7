"""Contours lie on the organs' edges in their colours, and nothing else of the slice is touched."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from segthor import drawing, files, organs
from segthor.organs import SEGTHOR

HEART = organs.SEGTHOR["heart"]


@pytest.fixture
def square():
    labels = np.zeros((12, 14), np.uint8)
    labels[3:9, 4:11] = HEART.label
    return labels


def slice_of(shape, value=100):
    return np.full(shape, value, np.uint8)


def test_without_labels_the_slice_comes_back_grey():
    image = np.random.default_rng(0).integers(0, 256, (9, 7), np.uint8)
    np.testing.assert_array_equal(drawing.overlay(image, organs=SEGTHOR), np.stack([image] * 3, -1))


def test_a_predicted_contour_is_the_organs_edge_pixels_and_no_others(square):
    rgb = drawing.overlay(slice_of(square.shape), predicted=square, organs=SEGTHOR)
    inside = square > 0
    edge = inside & ~ndimage.binary_erosion(inside, np.ones((3, 3)))
    assert (rgb[edge] == HEART.rgb).all()
    assert (rgb[~edge] == 100).all()


def test_a_true_contour_is_dashed_on_the_same_edge_on_every_side(square):
    rgb = drawing.overlay(slice_of(square.shape), truth=square, organs=SEGTHOR)
    drawn = (rgb != 100).any(-1)
    inside = square > 0
    edge = inside & ~ndimage.binary_erosion(inside, np.ones((3, 3)))
    assert not (drawn & ~edge).any()
    for side in (np.s_[3, 4:11], np.s_[8, 4:11], np.s_[3:9, 4], np.s_[3:9, 10]):
        assert 0 < drawn[side].sum() < drawn[side].size


def test_where_truth_and_prediction_agree_both_are_seen(square):
    rgb = drawing.overlay(slice_of(square.shape), square, square, organs=SEGTHOR)
    colours = {tuple(int(v) for v in pixel) for pixel in rgb[3, 4:11]}
    assert HEART.rgb in colours and len(colours) == 2


def test_two_organs_that_touch_each_keep_their_own_edge():
    labels = np.zeros((10, 10), np.uint8)
    labels[2:8, 1:5], labels[2:8, 5:9] = 1, 4
    rgb = drawing.overlay(slice_of(labels.shape), predicted=labels, organs=SEGTHOR)
    assert tuple(rgb[5, 4]) == organs.SEGTHOR["esophagus"].rgb
    assert tuple(rgb[5, 5]) == organs.SEGTHOR["aorta"].rgb


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_scale_enlarges_both_sides_and_keeps_the_contour_in_place(square, scale):
    rgb = drawing.overlay(slice_of(square.shape), predicted=square, scale=scale, organs=SEGTHOR)
    assert rgb.shape == (12 * scale, 14 * scale, 3)
    rows, columns = np.nonzero((rgb != 100).any(-1))
    assert (rows.min(), rows.max()) == (3 * scale, 9 * scale - 1)
    assert (columns.min(), columns.max()) == (4 * scale, 11 * scale - 1)


def test_a_sheet_holds_each_tile_unchanged_in_reading_order():
    shades = [40, 90, 140, 190, 240]
    tiles = [np.full((20 + i, 30, 3), shade, np.uint8) for i, shade in enumerate(shades)]
    page = drawing.sheet(tiles, 3, ["one", "two", "three", "four", "five"], "note", organs=SEGTHOR)
    places = []
    for tile in tiles:
        matches = (page == tile[0, 0]).all(-1)
        blocks, _ = ndimage.label(matches)
        areas = [s for s in ndimage.find_objects(blocks) if page[s].shape == tile.shape]
        assert len(areas) == 1
        places.append((areas[0][0].start, areas[0][1].start))
    assert places == sorted(places) and len({row for row, _ in places}) == 2


def test_a_saved_picture_reads_back_the_same_and_leaves_nothing_beside_it(tmp_path):
    rgb = np.random.default_rng(1).integers(0, 256, (8, 6, 3), np.uint8)
    path = str(tmp_path / "new" / "picture.png")
    drawing.save_png(path, rgb)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), rgb)
    assert files.listdir(str(tmp_path / "new")) == ["picture.png"]
    assert len(list((tmp_path / "new").iterdir())) == 1
