"""Ignored pixels in training: left out of loss and counts, and never made an organ on the way."""

import dataclasses
import types

import numpy as np
import pytest
import slices
import tensorflow as tf

from segthor import ignored, records, sides
from segthor.organs import SEGTHOR
from trainer import data, losses, sources, surfaces
from trainer.augment import augment
from trainer.config import LOSSES, Config
from trainer.learner import Learner
from trainer.strengths import Strengths

HIGHEST = {spec.name: spec.metadata["within"][1] for spec in dataclasses.fields(Strengths)}


def some(seed=0, count=3, size=8, organs=4):
    """Logits, true channels, contoured organs and which pixels are annotated."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, size, size, 1 + organs)).astype(np.float32)
    truth = rng.integers(0, 1 + organs, (count, size, size))
    annotated = (rng.random((count, size, size)) < 0.6).astype(np.float32)
    return logits, truth, np.array([[1] * organs, [1, 0] * (organs // 2), [1] * organs]), annotated


@pytest.mark.parametrize("kind", LOSSES)
def test_the_loss_is_that_of_the_annotated_pixels_alone(kind):
    logits, truth, contoured, annotated = some()
    found = losses.segment(kind, logits, truth, contoured, tf.constant(annotated)).numpy()
    for n in range(len(logits)):
        kept = annotated[n] > 0
        alone = logits[n][kept][None, :, None], truth[n][kept][None, :, None]
        expected = losses.segment(kind, *alone, contoured[n : n + 1]).numpy()
        np.testing.assert_allclose(found[n : n + 1], expected, rtol=2e-5)


@pytest.mark.parametrize("kind", LOSSES)
def test_ignored_pixels_have_no_gradient_and_a_slice_of_them_alone_no_loss(kind):
    logits, truth, contoured, annotated = some(1)
    annotated[2] = 0
    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        found = losses.segment(kind, variable, truth, contoured, tf.constant(annotated))
    gradients = tape.gradient(found, variable).numpy()
    assert np.isfinite(gradients).all() and found[2] == 0
    assert not gradients[annotated == 0].any() and gradients[annotated > 0].any()


@pytest.mark.parametrize("kind", LOSSES)
def test_where_all_is_annotated_nothing_changes(kind):
    logits, truth, contoured, annotated = some(2)
    found = losses.segment(kind, logits, truth, contoured, tf.ones_like(annotated))
    np.testing.assert_allclose(found, losses.segment(kind, logits, truth, contoured), rtol=1e-5)


def test_an_organ_that_is_not_seen_beside_ignored_pixels_is_not_known_to_be_absent():
    present = tf.constant([[True, False], [True, False]])
    annotated = tf.constant(np.array([[[1, 1]], [[1, 0]]], np.float32))
    known = losses.mask_known(present, tf.ones([2, 2], tf.int64), annotated).numpy()
    np.testing.assert_array_equal(known, [[1, 1], [1, 0]])
    contoured = tf.constant([[0, 1], [0, 1]], tf.int64)
    np.testing.assert_array_equal(
        losses.mask_known(present, contoured, annotated), [[0, 1], [0, 0]]
    )
    assert losses.mask_known(present, contoured, None) is contoured


@pytest.mark.parametrize("case", range(6))
def test_no_augmentation_makes_an_organ_of_ignored_pixels(case):
    """Whatever moves them: they stay what they are, and outside of the picture is background."""
    rng = np.random.default_rng(case)
    names = ("flip_left_right", "rotation_deg", "scale", "shift", "elastic_px")
    strengths = {name: HIGHEST[name] * rng.random() for name in names}
    images = rng.integers(0, 256, (4, 32, 64, 3), np.uint8)
    labels = np.where(rng.random((4, 32, 64)) < 0.5, ignored.LABEL, 0).astype(np.uint8)
    labels[:, :, :20] = ignored.LABEL
    arguments = tf.constant(images), tf.constant(labels), tf.range(4), tf.constant([case, 7])
    _, moved = augment(*arguments, dataclasses.replace(Strengths.none(), **strengths))
    assert set(np.unique(moved)) <= {0, ignored.LABEL}
    far = dataclasses.replace(Strengths.none(), shift=1.0)
    whole = np.full_like(labels, ignored.LABEL)
    _, moved = augment(arguments[0], tf.constant(whole), *arguments[2:], far)
    assert set(np.unique(moved)) == {0, ignored.LABEL}
    assert sides.mirrored_labels(SEGTHOR)[ignored.LABEL] == ignored.LABEL


def test_an_organ_keeps_its_outline_beside_ignored_pixels():
    """The label with the largest weight wins, so that a straight border stays where it was."""
    labels = np.zeros((1, 32, 32), np.uint8)
    labels[:, 8:24, 8:16], labels[:, :, 16:] = 2, ignored.LABEL
    images = np.zeros((1, 32, 32, 1), np.uint8)
    strengths = dataclasses.replace(Strengths.none(), shift=0.2, rotation_deg=20.0)
    rest = tf.range(1), tf.constant([1, 2]), strengths
    _, moved = augment(tf.constant(images), tf.constant(labels), *rest)
    other = np.where(labels == ignored.LABEL, 3, labels).astype(np.uint8)  # an organ instead
    _, expected = augment(tf.constant(images), tf.constant(other), *rest)
    np.testing.assert_array_equal(moved == 2, expected == 2)
    np.testing.assert_array_equal(moved == ignored.LABEL, expected == 3)


@pytest.fixture
def source(tmp_path, tiny):
    slices.make(tmp_path / "data", patients=3, slices=4, unannotated=12)
    return sources.open_source(str(tmp_path / "data"), None)


def learner_of(source, **chosen):
    common = {"batch_size": 4, "shuffle_buffer": 1, "ema": 0.0, "augment": Strengths.none()}
    config = Config(**{"organs": SEGTHOR.names, **common, **chosen})
    return Learner(config, source, tf.distribute.get_strategy(), 1)


@pytest.mark.parametrize("xla", [False, True])
def test_the_loss_of_a_step_knows_which_pixels_are_ignored(source, monkeypatch, xla):
    seen = []
    segment = losses.segment

    def spy(*given):
        seen.append(given[4])
        return segment(*given)

    monkeypatch.setattr(losses, "segment", spy)
    learner = learner_of(source, xla=xla)
    batches = data.per_replica(data.training(source, learner.config, 4), 4)
    (stored,) = batches.take(1).as_numpy_iterator()
    assert (stored[records.LABELS] == ignored.LABEL).any()
    first, _ = learner.train(iter(batches), tf.constant(1))
    assert seen[-1] is not None and np.isfinite(first).all()


@pytest.mark.parametrize("task", ["segment", "classify"])
def test_counts_of_a_validation_leave_ignored_pixels_out(source, task):
    learner = learner_of(source, task=task, loss="ce", backbone="resnet18")
    batches = data.per_replica(data.evaluation(source, 4), 4)
    for batch in batches.take(1):
        labels, images = batch[records.LABELS].numpy(), batch[records.IMAGE]
        annotated = labels != ignored.LABEL
        assert not annotated.all()
        _, _, counts = learner.counts(batch)
        for n, k in np.ndindex(len(labels), len(SEGTHOR)):
            true = (labels[n] == k + 1) & annotated[n]
            if task == "segment":
                predicted = (learner.predict(images)[n].numpy() == k + 1) & annotated[n]
                expected = [(true & predicted).sum(), predicted.sum(), true.sum()]
                np.testing.assert_array_equal(counts[n, k], expected)
            elif not true.any() and not annotated[n].all():
                np.testing.assert_array_equal(counts[n, k], 0)
            else:
                assert counts[n, k, 2] == true.any()


def test_surface_distances_of_a_run_leave_them_out(source, tmp_path, monkeypatch):
    seen = []
    score = surfaces.metrics.score
    monkeypatch.setattr(surfaces.metrics, "score", lambda *x: seen.append(x[4]) or score(*x))
    network = learner_of(source).model
    record = types.SimpleNamespace(organs=list(SEGTHOR.names))
    monkeypatch.setattr(surfaces.run, "restore", lambda *_: (network, record))
    surfaces.score(str(tmp_path), source)
    assert seen and all(left_out.any() for left_out in seen)
