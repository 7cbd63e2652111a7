"""Image and labels move by the map that the docstring states; scipy is the independent witness."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import interpolate, ndimage

from trainer import warp
from trainer.strengths import ELASTIC_GRID_PX, NO_FOLDING

HEIGHT, WIDTH = 64, 96
LIMIT_PX = NO_FOLDING * ELASTIC_GRID_PX


def field(
    height=HEIGHT, width=WIDTH, *, flip=(1, 1), degrees=0, scale=1, shift=(0, 0), control=None
):
    """Rows and columns [H, W] of one example."""
    one = [np.float32]
    if control is not None:
        control = tf.constant(control[None], tf.float32)
    rows, columns = warp.positions(
        height,
        width,
        flips=tuple(tf.constant([f], tf.float32) for f in flip),
        rotation=tf.constant([np.radians(degrees)], *one),
        scale=tf.constant([scale], *one),
        shift=tuple(tf.constant([s], tf.float32) for s in shift),
        control=control,
    )
    return rows, columns


def moved(image, labels, rows, columns):
    found = warp.resample(tf.constant(image[None]), tf.constant(labels[None]), rows, columns)
    return found[0].numpy()[0], found[1].numpy()[0]


@pytest.fixture
def scan():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    labels = ndimage.zoom(rng.integers(0, 5, (8, 12), np.uint8), 8, order=0)
    return image, labels


def test_nothing_asked_for_is_every_pixel_from_its_own_place(scan):
    rows, columns = field()
    np.testing.assert_array_equal(rows[0], np.indices((HEIGHT, WIDTH))[0])
    np.testing.assert_array_equal(columns[0], np.indices((HEIGHT, WIDTH))[1])
    image, labels = moved(*scan, rows, columns)
    np.testing.assert_array_equal(image, scan[0])
    np.testing.assert_array_equal(labels, scan[1])


@pytest.mark.parametrize("flip, axes", [((-1, 1), 0), ((1, -1), 1), ((-1, -1), (0, 1))])
def test_a_flip_is_numpys_flip_and_twice_is_nothing(scan, flip, axes):
    once = moved(*scan, *field(flip=flip))
    np.testing.assert_array_equal(once[0], np.flip(scan[0], axes))
    np.testing.assert_array_equal(once[1], np.flip(scan[1], axes))
    again = moved(once[0], once[1], *field(flip=flip))
    np.testing.assert_array_equal(again[0], scan[0])
    np.testing.assert_array_equal(again[1], scan[1])


@pytest.mark.parametrize("shift", [(5, 0), (0, -7), (-3, 11), (HEIGHT, 0)])
def test_a_shift_by_whole_pixels_moves_up_and_left_and_brings_in_air(scan, shift):
    image, labels = moved(*scan, *field(shift=shift))
    expected = [np.zeros_like(a) for a in scan]
    rows, columns = np.indices((HEIGHT, WIDTH))
    rows, columns = rows + shift[0], columns + shift[1]
    inside = (rows >= 0) & (rows < HEIGHT) & (columns >= 0) & (columns < WIDTH)
    for out, source in zip(expected, scan, strict=True):
        out[inside] = source[rows[inside], columns[inside]]
    np.testing.assert_array_equal(image, expected[0])
    np.testing.assert_array_equal(labels, expected[1])


def test_a_positive_quarter_turn_is_clockwise():
    image = np.arange(48 * 48, dtype=np.float32).reshape(48, 48, 1)
    labels = (image[..., 0] % 5).astype(np.uint8)
    turned = moved(image, labels, *field(48, 48, degrees=90))
    np.testing.assert_allclose(turned[0], np.rot90(image, -1), atol=0.01)
    np.testing.assert_array_equal(turned[1], np.rot90(labels, -1))


@pytest.mark.parametrize("degrees, scale, shift, flip", [
    (17, 1.0, (0, 0), (1, 1)),
    (-33, 1.2, (4.3, -2.7), (1, 1)),
    (140, 0.8, (-6.1, 9.9), (1, -1)),
])  # fmt: skip
def test_rotation_scale_shift_and_flip_agree_with_scipys_affine(scan, degrees, scale, shift, flip):
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag(flip) / scale
    centre = (np.array([HEIGHT, WIDTH]) - 1) / 2
    offset = centre - matrix @ centre + shift

    def expected(plane):
        return ndimage.affine_transform(
            plane.astype(float), matrix, offset, order=1, mode="grid-constant"
        )

    rows, columns = field(degrees=degrees, scale=scale, shift=shift, flip=flip)
    image, labels = moved(*scan, rows, columns)
    for channel in range(3):
        np.testing.assert_allclose(image[..., channel], expected(scan[0][..., channel]), atol=0.02)
    shares = np.stack([expected(scan[1] == label) for label in range(1, 5)])
    shares = np.concatenate([1 - shares.sum(0, keepdims=True), shares])
    lead = np.diff(np.sort(shares, 0)[-2:], axis=0)[0]
    clear = lead > 1e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(labels[clear], shares.argmax(0)[clear])


def test_scale_above_one_enlarges():
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[28:36, 44:52] = 3
    image = np.repeat(labels[..., None] * 50, 3, -1)
    _, larger = moved(image, labels, *field(scale=2))
    assert (larger == 3).sum() == 4 * (labels == 3).sum()


def test_the_elastic_map_is_scipys_cubic_b_spline_through_the_same_control_points():
    control = np.random.default_rng(1).uniform(-9, 9, warp.control_shape(HEIGHT, WIDTH))
    rows, columns = field(control=control)
    grid = np.indices((HEIGHT, WIDTH)).astype(float)
    for found, values, base in zip((rows, columns), control, grid, strict=True):
        for axis, side in enumerate((HEIGHT, WIDTH)):
            count = values.shape[axis]
            knots = (np.arange(count + 4) - 3) * ELASTIC_GRID_PX
            spline = interpolate.BSpline(knots, values, 3, axis=axis)
            values = spline(np.arange(side))
        np.testing.assert_allclose(found[0], base + values, atol=1e-3)


def test_control_points_that_all_move_alike_are_a_shift():
    shape = warp.control_shape(HEIGHT, WIDTH)
    control = np.broadcast_to(np.array([3.25, -1.5])[:, None, None], shape)
    for found, expected in zip(field(control=control), field(shift=(3.25, -1.5)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_the_strongest_elastic_map_does_not_fold(seed):
    shape = warp.control_shape(HEIGHT, WIDTH)
    control = LIMIT_PX * np.random.default_rng(seed).choice([-1.0, 1.0], shape)
    rows, columns = (f.numpy()[0] for f in field(control=control))
    (rr, rc), (cr, cc) = np.gradient(rows), np.gradient(columns)
    assert (rr * cc - rc * cr).min() > 0


def test_a_map_that_is_known_to_fold_is_seen_to_fold():
    shape = warp.control_shape(HEIGHT, WIDTH)
    control = 3 * LIMIT_PX * np.random.default_rng(0).choice([-1.0, 1.0], shape)
    rows, columns = (f.numpy()[0] for f in field(control=control))
    (rr, rc), (cr, cc) = np.gradient(rows), np.gradient(columns)
    assert (rr * cc - rc * cr).min() < 0


def test_image_and_labels_move_together():
    """Half the grey of an organ drawn white is where its label ends, whatever the map."""
    rng = np.random.default_rng(2)
    organ = ndimage.gaussian_filter(rng.normal(size=(HEIGHT, WIDTH)), 6) > 0.01
    image = np.repeat(np.where(organ, 200, 0)[..., None], 3, -1).astype(np.uint8)
    control = rng.uniform(-12, 12, warp.control_shape(HEIGHT, WIDTH))
    rows, columns = field(degrees=25, scale=0.9, shift=(3.3, -5.2), flip=(1, -1), control=control)
    warped, labels = moved(image, organ.astype(np.uint8) * 4, rows, columns)
    clear = np.abs(warped[..., 0] - 100) > 0.1
    assert clear.mean() > 0.99 and 0.2 < (labels > 0).mean() < 0.8
    np.testing.assert_array_equal((labels == 4)[clear], (warped[..., 0] > 100)[clear])


def test_each_example_has_its_own_map():
    image = np.random.default_rng(3).integers(0, 256, (2, 40, 40, 1), np.uint8)
    labels = (image[..., 0] // 60).astype(np.uint8)
    apart = [field(40, 40, degrees=d) for d in (10, 75)]
    rows, columns = (tf.concat(part, 0) for part in zip(*apart, strict=True))
    together = warp.resample(tf.constant(image), tf.constant(labels), rows, columns)
    for i, (one_rows, one_columns) in enumerate(apart):
        alone = moved(image[i], labels[i], one_rows, one_columns)
        np.testing.assert_array_equal(together[0][i], alone[0])
        np.testing.assert_array_equal(together[1][i], alone[1])
