"""The centre of body and organs: neither couch nor arms decide."""

import numpy as np
import pytest
from scipy import ndimage

from segthor.body import _open, body_center_px, organ_center_px
from segthor.boxes import label_boxes


def body_phantom():
    """[Z, Y, X] at 2 mm: an elliptic body about (90, 110), arms, and a couch below."""
    y, x = np.mgrid[:200, :220]
    plane = np.full(y.shape, -1000)
    plane[((y - 90) / 50) ** 2 + ((x - 110) / 75) ** 2 < 1] = 40
    for side in (-0.2, 0.6):
        plane[((y - 90) / 16) ** 2 + ((x - 110 * (1 + side) - 98 * side) / 12) ** 2 < 1] = 40
    plane[150:153, 10:210] = 200
    return np.repeat(plane[None], 6, axis=0)


def test_neither_couch_nor_one_arm_moves_the_bodys_centre():
    row, column = body_center_px(body_phantom(), (5.0, 2.0, 2.0))
    assert abs(row - 90) <= 2 and abs(column - 110) <= 2


def test_air_has_no_body():
    assert body_center_px(np.full((4, 50, 50), -1000), (5, 2, 2)) is None


def test_organ_centre_is_the_centre_of_its_box():
    zyx = np.zeros((3, 20, 30), np.uint8)
    zyx[1, 4:9, 10:21], zyx[2, 15, 2] = 2, 4
    assert organ_center_px(label_boxes(zyx), [2]) == (6, 15)
    assert organ_center_px(label_boxes(zyx), [2, 4]) == (9.5, 11)
    assert organ_center_px(label_boxes(zyx), [1]) is None


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_opening_is_that_of_scipy(radius):
    masks = np.random.default_rng(radius).random((4, 30, 26)) < 0.8
    in_plane = np.zeros((3, 3, 3), bool)
    in_plane[1] = ndimage.generate_binary_structure(2, 1)
    expected = ndimage.binary_opening(masks, in_plane, iterations=radius)
    np.testing.assert_array_equal(_open(masks, radius), expected)
