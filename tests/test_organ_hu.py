"""The augmentation that gives organs another mean HU, beside numpy, and who calls it."""

import dataclasses

import numpy as np
import pytest
import slices
import tensorflow as tf

import trainer
from segthor import records
from segthor.organs import SEGTHOR
from segthor.recipe import Recipe
from trainer import batches, data, organ_hu, preview, sources, step
from trainer.config import Config
from trainer.learner import Learner
from trainer.strengths import Strengths

ALWAYS = dataclasses.replace(Strengths.none(), organ_hu=1.0)
RANGES = [(2, 100.0, 200.0), (4, 30.0, 40.0)]


def batch(count=3, size=16):
    """Slices with labels 0, 1, 2 and 4; label 4 is missing in the first one."""
    random = np.random.default_rng(0)
    images = random.uniform(60, 90, (count, size, size, 3)).astype(np.float32)
    labels = random.choice(np.uint8([0, 1, 2, 4]), (count, size, size))
    labels[0][labels[0] == 4] = 0
    return images, labels


def change(images, labels, strengths=ALWAYS, ranges=RANGES, index=None, seed=(5, 7)):
    index = np.arange(len(images)) if index is None else index
    where = tf.constant(index, tf.int32), tf.constant(seed, tf.int32)
    return organ_hu.change_organs(
        tf.constant(images), tf.constant(labels), *where, strengths, ranges
    ).numpy()


def test_ranges_are_the_tables_in_grey_levels():
    # Level -130 and width 700: -480 HU are 0, 220 HU are 255.
    recipe = Recipe(window_level="-130", window_width_hu=700.0)
    found = {label: (low, high) for label, low, high in organ_hu.grey_ranges(recipe, SEGTHOR)}
    assert found == {1: (120, 230), 2: (168, 255), 3: (0, 0), 4: (171, 255)}
    unchecked = [dataclasses.replace(organ, mean_hu=None) for organ in SEGTHOR]
    assert organ_hu.grey_ranges(recipe, unchecked) == []
    own_level = Recipe(window_level="median:heart")
    assert organ_hu.grey_ranges(own_level, SEGTHOR) == []


def test_each_organ_moves_as_a_whole_into_its_range_and_nothing_else_moves():
    images, labels = batch()
    changed = change(images, labels)
    moved = changed - images
    assert (moved[~np.isin(labels, (2, 4))] == 0).all()
    for label, lowest, highest in RANGES:
        for before, after, own in zip(images, changed, labels == label, strict=True):
            if own.any():
                shift = (after - before)[own]  # the same for all pixels and all channels
                np.testing.assert_allclose(shift, shift[0, 0], atol=1e-4)
                assert lowest <= after[own][:, 1].mean() <= highest


def test_means_are_uniform_in_the_range_and_organs_are_chosen_independently():
    images, labels = batch(2000, 4)
    half = dataclasses.replace(ALWAYS, organ_hu=0.5)
    moved = np.abs(change(images, labels, half) - images)[..., 1]
    hearts, aortas = (labels == 2).any((1, 2)), (labels == 4).any((1, 2))
    changed = [(moved * (labels == label)).max((1, 2)) > 0 for label in (2, 4)]
    assert changed[0][hearts].mean() == pytest.approx(0.5, abs=0.05)
    both = hearts & aortas
    assert (changed[0] & changed[1])[both].mean() == pytest.approx(0.25, abs=0.05)
    always = zip(change(images, labels), labels == 2, strict=True)
    means = [one[own][:, 1].mean() for one, own in always if own.any()]
    quarters = np.histogram(means, [100, 125, 150, 175, 200])[0] / len(means)
    np.testing.assert_allclose(quarters, 0.25, atol=0.05)


def test_a_slice_changes_alike_in_any_batch_and_otherwise_at_another_place_step_or_seed():
    images, labels = batch()
    whole = change(images, labels)
    np.testing.assert_allclose(change(images[1:], labels[1:], index=[1, 2]), whole[1:], atol=1e-4)
    np.testing.assert_array_equal(change(images, labels), whole)
    for seed in ((5, 8), (6, 7)):
        assert np.abs(change(images, labels, seed=seed) - whole).max() > 1
    equal = change(np.repeat(images[1:2], 3, 0), np.repeat(labels[1:2], 3, 0))
    assert all(np.abs(one - equal[0]).max() > 1 for one in equal[1:])


def test_grey_stays_between_black_and_white():
    images, labels = batch()
    bright = change(images * 2, labels, ranges=[(2, 255.0, 255.0)])
    assert bright.max() <= 255 and bright.min() >= 0


def test_strength_0_and_no_ranges_change_nothing():
    images, labels = batch()
    np.testing.assert_array_equal(change(images, labels, Strengths.none()), images)
    np.testing.assert_array_equal(change(images, labels, ranges=[]), images)


def test_training_step_batches_layer_and_preview_apply_it_alike(tmp_path, monkeypatch):
    slices.make(tmp_path, patients=3, slices=3)
    source = sources.open_source(str(tmp_path), None)
    config = Config(batch_size=2, seed=3, backbone="resnet18", augment=ALWAYS)
    config = config.of_table(source.organs)
    ranges = organ_hu.grey_ranges(source.dataset.recipe, source.organs)
    stored = next(iter(data.per_replica(data.training(source, config, 2), 2)))
    images, labels = stored[records.IMAGE], stored[records.LABELS]
    draw = stored[data.INDEX], tf.constant([3, 0])
    grey = tf.cast(images, tf.float32)
    expected = organ_hu.change_organs(grey, labels, *draw, ALWAYS, ranges).numpy()
    assert np.abs(expected - images.numpy()).max() > 5

    found = next(iter(batches.dataset(tmp_path, "train", 2, ALWAYS, 3)))[0]
    np.testing.assert_array_equal(found, expected)
    layer = trainer.Augmentation(tmp_path, ALWAYS, 3)
    plain = next(iter(batches.dataset(tmp_path, "train", 2, None, 3)))
    np.testing.assert_array_equal(layer(plain, training=True)[0], expected)

    seen = []
    learner = Learner(config, source, tf.distribute.get_strategy(), 1)
    logits = learner.logits
    learner.logits = lambda images, training: seen.append(images) or logits(images, training)
    step._compute_gradients(learner, stored, tf.constant(0))
    np.testing.assert_array_equal(seen[0], expected)

    drawn = []
    monkeypatch.setattr(preview.drawing, "overlay", lambda image, **_: drawn.append(image))
    fullest = preview.read_fullest_slices(source, 2)
    preview.draw_slices(fullest, 0, config, source.dataset.recipe, source.organs)
    pixels = np.stack([one.image for one in fullest])
    truth = np.stack([one.labels for one in fullest])
    shown = change(pixels.astype(np.float32), truth, ranges=ranges, seed=(3, 0))
    np.testing.assert_array_equal(drawn, np.rint(shown[..., 1]))
