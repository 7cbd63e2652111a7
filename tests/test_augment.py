"""What an example gets follows from seed, step and place; strengths mean what they say."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from segthor.errors import InputError
from trainer.augment import augment
from trainer.strengths import Strengths

NAMES = [spec.name for spec in dataclasses.fields(Strengths)]
HIGHEST = {spec.name: spec.metadata["within"][1] for spec in dataclasses.fields(Strengths)}
GEOMETRY = ["flip_left_right", "flip_front_back", "rotation_deg", "scale", "shift", "elastic_px"]
NONE = Strengths.none()
SEED = (3, 100)


def only(**strengths):
    return dataclasses.replace(NONE, **{"probability": 1.0, **strengths})


def batch(count=8, height=64, width=96):
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=(count, height, width, 3)), (0, 3, 3, 0))
    images = (127 + 127 * smooth / np.abs(smooth).max()).astype(np.uint8)
    return images, (images[..., 1] // 52).astype(np.uint8)


@functools.cache
def graph_of(strengths):
    """Augmentation in a graph, as the training step runs it; traced once for each shape."""
    return tf.function(lambda *arguments: augment(*arguments, strengths))


def run(images, labels, strengths, index=None, seed=SEED):
    index = np.arange(len(images)) if index is None else index
    found = graph_of(strengths)(
        tf.constant(images), tf.constant(labels), tf.constant(index, tf.int32), tf.constant(seed)
    )
    return found[0].numpy(), found[1].numpy()


@pytest.mark.parametrize("strengths", [NONE, only()], ids=["none", "probability alone"])
def test_strengths_of_0_give_the_slices_as_stored(strengths):
    images, labels = batch()
    found = run(images, labels, strengths)
    np.testing.assert_array_equal(found[0], images)
    np.testing.assert_array_equal(found[1], labels)
    assert found[0].dtype == np.float32 and found[1].dtype == np.uint8


def test_a_batch_equals_its_halves_and_any_order_of_its_examples():
    images, labels = batch()
    whole = run(images, labels, Strengths())
    for part in (np.arange(4), np.arange(4, 8), np.array([6, 1, 3])):
        found = run(images[part], labels[part], Strengths(), part)
        # A power of the batch's last numbers may differ from the others in its last bit.
        np.testing.assert_allclose(found[0], whole[0][part], atol=0.01)
        np.testing.assert_array_equal(found[1], whole[1][part])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "probability"])
def test_each_strength_alone_does_something_and_something_else_per_example_step_and_seed(name):
    image, labels = batch(1)
    flip = name.startswith("flip")
    count = 24 if flip else 4  # of four, every eighth stream of draws flips all or none
    images, labels = np.repeat(image, count, 0), np.repeat(labels, count, 0)
    strength = 0.5 if flip else HIGHEST[name] / 4
    found, labels_found = run(images, labels, only(**{name: strength}))
    assert (found != images).any()
    assert (labels_found != labels).any() == (name in GEOMETRY)
    assert any((found[0] != other).any() for other in found[1:])
    for seed in ((3, 101), (4, 100)):
        assert (run(images, labels, only(**{name: strength}), seed=seed)[0] != found).any()
    np.testing.assert_array_equal(run(images, labels, only(**{name: strength}))[0], found)


def test_switching_one_kind_off_leaves_the_others_as_they_were():
    images, labels = batch()
    _, expected = run(images, labels, Strengths())
    for off in ("noise", "blur_px", "gamma", "cutout", "probability"):
        found = run(images, labels, dataclasses.replace(Strengths(), **{off: 0.0}))[1]
        np.testing.assert_array_equal(found, expected)


def test_damage_befalls_the_stated_share_of_the_examples():
    images, labels = np.full((600, 4, 4, 1), 128, np.uint8), np.zeros((600, 4, 4), np.uint8)
    found, _ = run(images, labels, only(probability=0.3, noise=0.2))
    damaged = (found != images).any((1, 2, 3)).mean()
    assert abs(damaged - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 600)


def test_noise_has_the_drawn_deviation_and_none_of_it_is_shared():
    images, labels = np.full((64, 48, 48, 2), 128, np.uint8), np.zeros((64, 48, 48), np.uint8)
    noise = run(images, labels, only(noise=0.1))[0] - 128
    deviations = noise.std((1, 2, 3))
    assert 0 < deviations.min() and 0.09 * 255 < deviations.max() < 0.1 * 255 * 1.02
    assert abs(deviations.mean() - 0.05 * 255) < 2  # uniform between 0 and the strength
    flat = noise.reshape(128 // 2, -1)
    correlation = np.corrcoef(np.concatenate([flat[:, ::2], flat[:, 1::2]]))
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 6 / np.sqrt(48 * 48)


def test_a_flip_of_strength_1_mirrors_every_slice_and_half_strength_half_of_them():
    images, labels = batch(200, 8, 8)
    found = run(images, labels, only(flip_left_right=1.0))
    np.testing.assert_array_equal(found[0], images[:, :, ::-1])
    np.testing.assert_array_equal(found[1], labels[:, :, ::-1])
    half = run(images, labels, only(flip_left_right=0.5))[1]
    mirrored = (half == labels[:, :, ::-1]).all((1, 2))
    assert ((half == labels).all((1, 2)) | mirrored).all()
    assert abs(mirrored.mean() - 0.5) < 4 * np.sqrt(0.25 / 200)


@pytest.mark.parametrize("case", range(8))
def test_whatever_the_strengths_greys_stay_in_range_and_labels_stay_labels(case):
    rng = np.random.default_rng(case)
    values = {name: [0, highest / 7, highest][rng.integers(3)] for name, highest in HIGHEST.items()}
    seed, step = rng.integers(0, 2**31, 2)
    images, labels = batch(3, 32, 64)
    found = run(images, labels, Strengths(**values), seed=(int(seed), int(step)))
    assert np.isfinite(found[0]).all() and found[0].min() >= 0 and found[0].max() <= 255
    assert found[0].shape == images.shape and found[1].dtype == np.uint8
    assert set(np.unique(found[1])) <= set(np.unique(labels)) | {0}


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_number_of_context_slices(channels):
    images, labels = batch(2)
    images = np.repeat(images[..., :1], channels, -1)
    found, _ = run(images, labels, dataclasses.replace(Strengths(), noise=0.0))
    assert found.shape == images.shape
    np.testing.assert_allclose(found, np.repeat(found[..., :1], channels, -1), atol=1e-3)


def test_nothing_at_the_top_of_the_scale_overflows_in_the_middle_of_a_batch():
    images, labels = np.full((4, 32, 32, 3), 255, np.uint8), np.zeros((4, 32, 32), np.uint8)
    found, _ = run(images, labels, only(gamma=4.0))
    np.testing.assert_array_equal(found, images)


@pytest.mark.parametrize("name, value", [("noise", -0.1), ("elastic_px", 16), ("probability", 2)])
def test_a_strength_out_of_range_is_refused_by_name_with_what_was_expected(name, value):
    with pytest.raises(InputError, match=f"{name}.*expected 0 to .*found {value}"):
        Strengths(**{name: value})
