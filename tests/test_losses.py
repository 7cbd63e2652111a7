"""The losses against plain numpy, and the laws that make them safe to share out."""

import numpy as np
import pytest
import tensorflow as tf

from trainer import losses
from trainer.config import LOSSES

N, SIZE, ORGANS = 3, 6, 4
ALL = np.ones([N, ORGANS], np.int64)


def some(seed=0, organs=ORGANS):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (N, SIZE, SIZE, 1 + organs)).astype(np.float32)
    return logits, rng.integers(0, 1 + organs, (N, SIZE, SIZE))


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True).astype(np.float64))
    return shifted / shifted.sum(-1, keepdims=True)


def reference_dice_loss(p, truth, false_positives=0.5, false_negatives=0.5):
    """Slice by slice and organ by organ, as the formula is written."""
    result = []
    for slice_p, slice_truth in zip(p, truth, strict=True):
        terms = []
        for organ in range(1, p.shape[-1]):
            mask = slice_truth == organ
            both = slice_p[..., organ][mask].sum()
            wrong, missed = slice_p[..., organ][~mask].sum(), mask.sum() - both
            index = (both + 0.5) / (both + false_positives * wrong + false_negatives * missed + 0.5)
            terms.append(1 - index)
        result.append(np.mean(terms))
    return np.array(result)


def true_p(p, truth):
    return np.take_along_axis(p, truth[..., None], -1)[..., 0]


def test_cross_entropy_is_the_mean_over_the_pixels():
    logits, truth = some()
    expected = -np.log(true_p(softmax(logits), truth)).mean((1, 2))
    np.testing.assert_allclose(losses.segment("ce", logits, truth, ALL), expected, rtol=1e-5)


def test_focal_weighs_each_pixel_by_its_error_squared():
    logits, truth = some()
    p = true_p(softmax(logits), truth)
    expected = (-((1 - p) ** 2) * np.log(p)).mean((1, 2))
    np.testing.assert_allclose(losses.segment("focal", logits, truth, ALL), expected, rtol=1e-4)


@pytest.mark.parametrize("kind, weights", [("dice", (0.5, 0.5)), ("tversky", (0.3, 0.7))])
def test_overlap_losses_follow_their_formula(kind, weights):
    logits, truth = some()
    expected = reference_dice_loss(softmax(logits), truth, *weights)
    np.testing.assert_allclose(losses.segment(kind, logits, truth, ALL), expected, rtol=1e-5)


def test_dice_of_a_hand_worked_slice():
    # Four pixels, two of them the organ; the network is sure of one of them and of one beside.
    truth = np.array([[[1, 1], [0, 0]]])
    logits = np.full([1, 2, 2, 2], -50.0, np.float32)
    logits[0, 0, 0, 1] = logits[0, 1, 0, 1] = logits[0, 0, 1, 0] = logits[0, 1, 1, 0] = 50.0
    # Dice (2 x 1 + 1) / (2 + 2 + 1) with the smoothing pixel
    found = losses.segment("dice", logits, truth, np.ones([1, 1]))
    np.testing.assert_allclose(found, [1 - 3 / 5], rtol=1e-6)


def test_dice_ce_is_the_sum_of_both():
    logits, truth = some()
    parts = [losses.segment(kind, logits, truth, ALL) for kind in ("dice", "ce")]
    found = losses.segment("dice_ce", logits, truth, ALL)
    np.testing.assert_allclose(found, parts[0] + parts[1], rtol=1e-6)


def test_bce_dice_for_one_organ_is_the_original_binary_loss():
    # Two softmax channels are one sigmoid of their difference.
    logits, truth = some(organs=1)
    p = 1 / (1 + np.exp(-(logits[..., 1] - logits[..., 0]).astype(np.float64)))
    bce = -(truth * np.log(p) + (1 - truth) * np.log(1 - p)).mean((1, 2))
    dice = reference_dice_loss(np.stack([1 - p, p], -1), truth)
    found = losses.segment("bce_dice", logits, truth, np.ones([N, 1]))
    np.testing.assert_allclose(found, 0.1 * bce + dice, rtol=1e-5)


@pytest.mark.parametrize("kind", LOSSES)
def test_a_slice_has_its_loss_whatever_lies_beside_it(kind):
    logits, truth = some()
    together = losses.segment(kind, logits, truth, ALL)
    alone = [losses.segment(kind, logits[i : i + 1], truth[i : i + 1], ALL[:1]) for i in range(N)]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-6)
    assert together.dtype == tf.float32 and together.shape == [N]


@pytest.mark.parametrize("kind", LOSSES)
def test_an_organ_that_nobody_contoured_adds_nothing(kind):
    logits, truth = some()
    contoured = np.array([[1, 0, 1, 1]] * N)
    found = losses.segment(kind, logits, truth, contoured)
    # Probability of organ 2 given to the background, or the other way round, changes nothing;
    # nor do labels of organ 2.
    p = softmax(logits)
    p[..., 0], p[..., 2] = p[..., 0] * 0.3 + p[..., 2] * 0.9, p[..., 0] * 0.7 + p[..., 2] * 0.1
    moved = np.log(p).astype(np.float32)
    np.testing.assert_allclose(losses.segment(kind, moved, truth, contoured), found, rtol=1e-4)
    relabelled = np.where(truth == 2, 0, truth)
    np.testing.assert_allclose(losses.segment(kind, logits, relabelled, contoured), found)
    # and the other organs count as if the network had never heard of it
    fewer = np.log(np.stack([p[..., 0] + p[..., 2], p[..., 1], p[..., 3], p[..., 4]], -1))
    channel = np.array([0, 1, 0, 2, 3])[truth]
    np.testing.assert_allclose(
        losses.segment(kind, fewer.astype(np.float32), channel, np.ones([N, 3])), found, rtol=1e-4
    )


@pytest.mark.parametrize("kind", LOSSES)
def test_a_patient_without_any_contours_has_loss_and_gradient_zero(kind):
    logits, truth = some()
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = losses.segment(kind, logits, truth, np.zeros([N, ORGANS]))
    np.testing.assert_allclose(loss, np.zeros(N), atol=1e-6)
    np.testing.assert_allclose(tape.gradient(loss, logits), np.zeros(logits.shape), atol=1e-6)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("contoured", [[1, 1, 1, 1], [0, 1, 0, 1]])
def test_a_network_that_is_surely_wrong_still_has_a_finite_gradient(kind, contoured):
    logits, truth = some()
    logits = tf.constant(logits * 1e4)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = losses.segment(kind, logits, truth, np.array([contoured] * N))
    assert np.isfinite(loss).all() and np.isfinite(tape.gradient(loss, logits)).all()


@pytest.mark.parametrize("kind", LOSSES)
def test_half_precision_logits_give_a_float32_loss(kind):
    logits, truth = some()
    half = logits.astype(np.float16)
    exact = losses.segment(kind, half.astype(np.float32), truth, ALL)
    found = losses.segment(kind, tf.constant(half), truth, ALL)
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found, exact)


@pytest.mark.parametrize("kind", LOSSES)
def test_the_right_answer_costs_next_to_nothing_and_a_wrong_one_does(kind):
    _, truth = some()
    right = 40 * tf.one_hot(truth, 1 + ORGANS)
    wrong = 40 * tf.one_hot((truth + 1) % (1 + ORGANS), 1 + ORGANS)
    assert (losses.segment(kind, right, truth, ALL).numpy() < 1e-5).all()
    assert (losses.segment(kind, wrong, truth, ALL).numpy() > 0.5).all()


def test_classify_is_the_mean_binary_cross_entropy_of_the_contoured_organs():
    logits, truth = np.array([[0.5, -2.0, 3.0, 9.0]]), np.array([[1, 0, 0, 1]])
    contoured = np.array([[1, 1, 1, 0]])
    p = 1 / (1 + np.exp(-logits))
    bce = -(truth * np.log(p) + (1 - truth) * np.log(1 - p))[0, :3]
    found = losses.classify("ce", logits, truth, contoured)
    np.testing.assert_allclose(found, [bce.mean()], rtol=1e-5)
    right = np.where(truth, p, 1 - p)[0, :3]
    focal = losses.classify("focal", logits, truth, contoured)
    np.testing.assert_allclose(focal, [(bce * (1 - right) ** 2).mean()], rtol=1e-5)
    assert losses.classify("ce", logits, truth, np.zeros([1, 4])).numpy() == [0.0]
