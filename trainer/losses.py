"""Losses per slice, float32, so that their sum over a batch is the same however it is shared out.

Partly contoured patients. An organ that was not contoured may lie anywhere in what is labelled
background. So its probability is added to the background's before anything is compared (the
marginal loss of Shi et al., Medical Image Analysis 70, 2021): moving probability between the two
changes nothing, and the organ has no Dice term of its own.

Ignored pixels, which are not annotated, are left out of every sum and mean over pixels.
"""

import numpy as np
import tensorflow as tf

from trainer.config import CLASSIFY, SEGMENT

FOCAL_GAMMA = 2.0  # Lin et al., ICCV 2017
TVERSKY_FALSE_POSITIVES, TVERSKY_FALSE_NEGATIVES = 0.3, 0.7  # Salehi et al., MLMI 2017
BCE_SHARE = 0.1  # the original system's 0.1 x BCE - Dice
CLASSIFY_SHARE = 0.1  # of the classifier's loss beside the outlines' in a joint network
_SMOOTH_PX = 1.0  # an organ that a slice lacks: Dice is 1 without, near 0 with a false outline
_NOTHING = -1e9  # the logit of probability 0, finite so that its gradient is 0 and not NaN


def of_slices(config, logits, truth, targets, contoured, annotated=None):
    """The loss of each slice for the configuration's task, float32 [N].

    logits: task -> the network's logits. truth: uint8 [N, H, W], channels. targets:
    `trainer.targets.Targets`. contoured: [N, K]. annotated: as for `segment`.
    """
    total = 0.0
    if SEGMENT in logits:
        total += segment(config.loss, logits[SEGMENT], truth, contoured, annotated)
    if CLASSIFY in logits:
        present = targets.present(truth)
        shown = known(present, contoured, annotated)
        loss = classify(config.loss, logits[CLASSIFY], present, shown)
        total += loss if config.task == CLASSIFY else CLASSIFY_SHARE * loss
    return total


def segment(kind: str, logits, truth, contoured, annotated=None):
    """The loss of each slice, float32 [N].

    kind: one of `config.LOSSES`. logits: [N, H, W, 1 + K], background first. truth: int [N, H, W],
    0 or 1 + k. contoured: [N, K], 1 where organ k was contoured in the slice's patient. annotated:
    float32 [N, H, W], 0 where a pixel is ignored and 1 elsewhere; None where none is.
    """
    contoured = tf.cast(contoured, tf.float32)
    logits = tf.cast(logits, tf.float32)
    log_p, truth = _visible(logits, truth, contoured)
    if kind == "ce":
        return _cross_entropy(log_p, truth, annotated)
    if kind == "focal":
        return _cross_entropy(log_p, truth, annotated, FOCAL_GAMMA)
    if kind == "tversky":
        share = (TVERSKY_FALSE_POSITIVES, TVERSKY_FALSE_NEGATIVES)
        return _overlap_loss(log_p, truth, contoured, annotated, *share)
    dice = _overlap_loss(log_p, truth, contoured, annotated, 0.5, 0.5)
    if kind == "dice":
        return dice
    if kind == "dice_ce":
        return dice + _cross_entropy(log_p, truth, annotated)
    return dice + BCE_SHARE * _binary_cross_entropy(logits, log_p, truth, contoured, annotated)


def classify(kind: str, logits, truth, contoured):
    """The mean over the contoured organs of each slice's binary loss, float32 [N].

    kind: 'focal', anything else is cross entropy. logits: [N, K]. truth: [N, K], 1 where the slice
    holds the organ. contoured: as for `segment`.
    """
    contoured, truth = tf.cast(contoured, tf.float32), tf.cast(truth, tf.float32)
    loss = tf.nn.sigmoid_cross_entropy_with_logits(truth, tf.cast(logits, tf.float32))
    if kind == "focal":
        loss *= (1 - tf.exp(-loss)) ** FOCAL_GAMMA  # exp(-loss) is the true answer's probability
    return _organ_mean(loss, contoured)


def known(present, contoured, annotated):
    """[N, K], 1 where it is known whether a slice holds the organ.

    present: bool [N, K], whether an annotated pixel is the organ. Where a slice has ignored pixels,
    an organ that is not seen may lie in them. contoured, annotated: as for `segment`.
    """
    if annotated is None:
        return contoured
    whole = tf.reduce_min(annotated, [1, 2]) > 0
    return tf.cast(contoured, tf.float32) * tf.cast(present | whole[:, None], tf.float32)


def _visible(logits, truth, contoured):
    """Log probabilities and one-hot truth, [N, H, W, 1 + K], hidden organs in the background."""
    shown = contoured[:, None, None, :]
    background = tf.concat([logits[..., :1], logits[..., 1:] + shown * _NOTHING], -1)
    total = tf.reduce_logsumexp(logits, -1, keepdims=True)
    log_background = tf.reduce_logsumexp(background, -1, keepdims=True)
    log_p = tf.concat([log_background, logits[..., 1:]], -1) - total
    organs = tf.one_hot(tf.cast(truth, tf.int32), tf.shape(logits)[-1])[..., 1:] * shown
    return log_p, tf.concat([1 - tf.reduce_sum(organs, -1, keepdims=True), organs], -1)


def _cross_entropy(log_p, truth, annotated, gamma=0.0):
    """Mean over the pixels of -(1 - p)^gamma log p of the true class."""
    log_true = tf.reduce_sum(log_p * truth, -1)
    loss = -log_true
    if gamma:
        loss *= (1 - tf.exp(log_true)) ** gamma
    return _pixel_mean(loss, annotated)


def _binary_cross_entropy(logits, log_p, truth, contoured, annotated):
    """Mean over pixels and contoured organs of each organ's own cross entropy against the rest."""
    classes = logits.shape[-1]
    others = (
        logits[..., None, :] + np.eye(classes, dtype=np.float32) * _NOTHING
    )  # for each class, all but itself
    log_rest = tf.reduce_logsumexp(others, -1) - tf.reduce_logsumexp(logits, -1, keepdims=True)
    loss = -(truth * log_p + (1 - truth) * log_rest)[..., 1:]
    return _organ_mean(_pixel_mean(loss, annotated), contoured)


def _overlap_loss(log_p, truth, contoured, annotated, false_positives, false_negatives):
    """1 - Tversky index, soft, mean over the contoured organs; 0.5 and 0.5 give Dice."""
    p, truth = tf.exp(log_p[..., 1:]), truth[..., 1:]
    if annotated is not None:
        p, truth = p * annotated[..., None], truth * annotated[..., None]
    both = tf.reduce_sum(p * truth, [1, 2])
    wrong = false_positives * (tf.reduce_sum(p, [1, 2]) - both)
    missed = false_negatives * (tf.reduce_sum(truth, [1, 2]) - both)
    index = (both + _SMOOTH_PX / 2) / (both + wrong + missed + _SMOOTH_PX / 2)
    return _organ_mean(1 - index, contoured)


def _pixel_mean(values, annotated):
    """Mean of [N, H, W] or [N, H, W, K] over the annotated pixels; 0 for a slice without any."""
    if annotated is None:
        return tf.reduce_mean(values, [1, 2])
    weights = annotated if len(values.shape) == 3 else annotated[..., None]
    total = tf.reduce_sum(values * weights, [1, 2])
    return tf.math.divide_no_nan(total, tf.reduce_sum(weights, [1, 2]))


def _organ_mean(values, contoured):
    """Mean of [N, K] over the contoured organs; 0 for a slice without any."""
    return tf.math.divide_no_nan(
        tf.reduce_sum(values * contoured, -1), tf.reduce_sum(contoured, -1)
    )
