"""Each change of grey values against scipy, against the recipe's window, or worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from segthor import recipe
from trainer import appearance

ONE = [1.0, 1.0]


@pytest.fixture
def images():
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(2, 48, 64, 3)), 2)
    return (127 + 120 * smooth / np.abs(smooth).max()).astype(np.float32)


def floats(values):
    return tf.constant(values, tf.float32)


def test_the_ways_of_drawing_reach_their_ends():
    assert list(appearance.both_ways(floats([0, 0.5, 1]))) == [-1, 0, 1]
    np.testing.assert_allclose(appearance.factor(floats([0, 0.5, 1]), 0.25), [0.8, 1, 1.25], 1e-6)
    drawn = appearance.sometimes(floats([0, 0.1, 0.1999, 0.2, 0.9]), 0.2)
    np.testing.assert_allclose(drawn, [0, 0.5, 0.9995, 0, 0], atol=1e-6)
    assert not appearance.sometimes(floats([0, 0.5, 0.99]), 0.0).numpy().any()


def test_blur_is_scipys_gaussian_with_each_examples_own_width(images):
    found = appearance.degrade(images, floats([0.8, 2.5]), floats(ONE))
    for image, sigma, blurred in zip(images, (0.8, 2.5), found, strict=True):
        expected = ndimage.gaussian_filter(image, (sigma, sigma, 0), truncate=8)
        inner = np.s_[15:-15, 15:-15]  # scipy mirrors at the border
        np.testing.assert_allclose(blurred.numpy()[inner], expected[inner], atol=0.02)


def test_no_blur_and_pixels_of_their_own_size_change_nothing(images):
    np.testing.assert_array_equal(appearance.degrade(images, floats([0, 0]), floats(ONE)), images)


def test_pixels_of_twice_the_size_are_block_means_interpolated_back(images):
    found = appearance.degrade(images, floats([0, 0]), floats([2, 2]))
    means = images.reshape(2, 24, 2, 32, 2, 3).mean((2, 4))
    expected = ndimage.zoom(means, (1, 2, 2, 1), order=1, grid_mode=True, mode="nearest")
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_pixels_cut_short_by_the_border_by_hand():
    image = np.array([10.0, 20, 60], np.float32).reshape(1, 3, 1, 1)
    found = appearance.degrade(image, floats([0.0]), floats([2.0]))
    # Cells of two pixels: 15 with its centre at 1.0 (pixel edges), and 60 at 3.0.
    expected = [15, 0.75 * 15 + 0.25 * 60, 0.25 * 15 + 0.75 * 60]
    np.testing.assert_allclose(found.numpy().ravel(), expected, rtol=1e-5)


@pytest.mark.parametrize("pixel", [1.3, 2.9, 7.0])
def test_larger_pixels_lose_detail_but_keep_slopes(pixel):
    rows = np.broadcast_to(np.arange(60, dtype=np.float32)[:, None], (60, 60))
    speckle = np.random.default_rng(1).normal(size=(60, 60)).astype(np.float32)
    pair = np.stack([rows, speckle])[..., None]
    slope, flat = appearance.degrade(pair, floats([0, 0]), floats([pixel, pixel])).numpy()
    inner = np.s_[8:-8, 8:-8]
    # A cell that ends inside a pixel takes it for uniform: on a slope of 1 its mean is off by
    # share x (1 - share) / (2 x pixel) at most, at either end.
    np.testing.assert_allclose(slope[..., 0][inner], rows[inner], atol=1 / (8 * pixel) + 1e-3)
    assert flat[inner].std() < 0.75 * speckle[inner].std()


def test_a_moved_window_is_the_recipes_window_of_the_same_hu():
    level, width, moved, wider = 50.0, 350.0, 0.1, 1.25
    hu = np.linspace(-125, 225, 64 * 64, dtype=np.float32).reshape(1, 64, 64, 1)
    stored = recipe.window(hu, level, width).astype(np.float32)
    found = appearance.rewindow(stored, floats([moved]), floats([wider]))
    expected = recipe.window(hu, level + moved * width, wider * width).astype(float)
    np.testing.assert_allclose(found, expected, atol=1.01)  # each is rounded or was, once
    assert (expected.min(), expected.max()) == (5, 209)  # 127.5 - 210 x 255 / 437.5, + 140 x ...


def test_what_leaves_a_moved_window_is_cut_off():
    ramp = np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1)
    found = appearance.rewindow(ramp, floats([0.25]), floats([0.5])).numpy().ravel()
    assert (found[:128] == 0).all() and found[255] == 255 and (np.diff(found[128:255]) > 1.9).all()


def test_gamma_keeps_black_and_white_and_raises_the_greys():
    grey = np.array([0, 51, 127.5, 255], np.float32).reshape(1, 2, 2, 1)
    found = appearance.bend(grey, floats([2.0])).numpy().ravel()
    np.testing.assert_allclose(found, [0, 51**2 / 255, 127.5**2 / 255, 255], rtol=1e-5)


def test_contrast_turns_about_each_examples_mean_and_brightness_adds(images):
    found = appearance.stretch(images, floats([1.5, 0.5]), floats([10, -20])).numpy()
    for image, result, contrast, added in zip(images, found, (1.5, 0.5), (10, -20), strict=True):
        expected = (image - image.mean()) * contrast + image.mean() + added
        np.testing.assert_allclose(result, expected, atol=0.01)


@pytest.mark.parametrize("sharpen, emboss", [(1.0, 0.0), (0.0, 0.5), (0.7, 0.3)])
def test_sharpen_and_emboss_are_scipys_filters(images, sharpen, emboss):
    found = appearance.emphasise(images, floats([sharpen, 0]), floats([0, emboss])).numpy()
    binomial = np.outer([1, 2, 1], [1, 2, 1]) / 16
    towards = np.array([[-1, -1, 0], [-1, 0, 1], [0, 1, 1]])
    for channel in range(3):
        first, second = (image[..., channel] for image in images)
        smooth = ndimage.correlate(first, binomial, mode="reflect")
        slope = ndimage.correlate(second, towards, mode="reflect")
        sharpened, embossed = first + sharpen * (first - smooth), second + emboss * slope
        np.testing.assert_allclose(found[0, ..., channel], sharpened, atol=0.01)
        np.testing.assert_allclose(found[1, ..., channel], embossed, atol=0.01)


def test_a_uniform_slice_stays_uniform():
    flat = np.full((2, 33, 47, 3), 90, np.float32)
    values = floats([1.7, 3.1])
    for found in (
        appearance.degrade(flat, values, values),
        appearance.emphasise(flat, values, values),
        appearance.stretch(flat, values, floats([0, 0])),
        appearance.cut_out(flat, (values / 5, values / 5), (values / 5, values / 5)),
    ):
        np.testing.assert_allclose(found, flat, atol=0.01)


def test_a_cut_out_rectangle_by_hand():
    image = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1)
    sides, centres = (floats([0.5]), floats([0.25])), (floats([0.5]), floats([0.0]))
    found = appearance.cut_out(image, sides, centres).numpy()[0, ..., 0]
    expected = image[0, ..., 0].copy()
    expected[2:6, 0:1] = 31.5  # half the rectangle's width lies outside
    np.testing.assert_array_equal(found, expected)
