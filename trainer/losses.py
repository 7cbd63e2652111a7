"""Losses per slice, float32. Their sum over a batch does not depend on the number of replicas.

Partly contoured patients: an organ that was not contoured may lie anywhere in the background. Its
probability is therefore added to that of the background before the comparison (the marginal loss of
Shi et al., Medical Image Analysis 70, 2021), and it has no Dice term of its own.

Ignored pixels, which are not annotated, are left out of every sum and mean over pixels.
"""

import numpy as np
import tensorflow as tf

from trainer.config import CLASSIFY, SEGMENT

FOCAL_GAMMA = 2.0  # Lin et al., ICCV 2017
TVERSKY_FALSE_POSITIVES, TVERSKY_FALSE_NEGATIVES = 0.3, 0.7  # Salehi et al., MLMI 2017
BCE_SHARE = 0.1  # weight of the cross entropy in bce_dice, as in the original system
CLASSIFY_SHARE = 0.1  # weight of the classifier's loss in a joint network
_SMOOTH_PX = 1.0  # makes the Dice of an absent organ 1, or near 0 with a false positive
_NOTHING = -1e9  # logit of probability 0; finite, so that its gradient is 0 and not NaN


def slice_losses(config, logits, truth, targets, contoured, annotated=None):
    """Computes the loss of each slice for the configured task, float32 [N].

    logits: Task to the network's logits.
    truth: uint8 [N, H, W], channels.
    targets: `trainer.targets.Targets`.
    contoured, annotated: As for `segment`.
    """
    total = 0.0
    if SEGMENT in logits:
        total += segment(config.loss, logits[SEGMENT], truth, contoured, annotated)
    if CLASSIFY in logits:
        present = targets.present(truth)
        known = mask_known(present, contoured, annotated)
        loss = classify(config.loss, logits[CLASSIFY], present, known)
        total += loss if config.task == CLASSIFY else CLASSIFY_SHARE * loss
    return total


def segment(kind: str, logits, truth, contoured, annotated=None):
    """Computes the segmentation loss of each slice, float32 [N].

    kind: One of `config.LOSSES`.
    logits: [N, H, W, 1 + K], background first.
    truth: int [N, H, W], 0 for background, 1 + k for organ k.
    contoured: [N, K], 1 where organ k was contoured in the slice's patient.
    annotated: float32 [N, H, W], 0 at ignored pixels and 1 elsewhere; None if there are none.
    """
    contoured = tf.cast(contoured, tf.float32)
    logits = tf.cast(logits, tf.float32)
    log_p, truth = _merge_hidden(logits, truth, contoured)
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
    """Computes each slice's binary loss, averaged over the contoured organs, float32 [N].

    kind: 'focal', or any other name for cross entropy.
    logits: [N, K].
    truth: [N, K], 1 where the slice holds the organ.
    contoured: As for `segment`.
    """
    contoured, truth = tf.cast(contoured, tf.float32), tf.cast(truth, tf.float32)
    loss = tf.nn.sigmoid_cross_entropy_with_logits(truth, tf.cast(logits, tf.float32))
    if kind == "focal":
        loss *= (1 - tf.exp(-loss)) ** FOCAL_GAMMA  # exp(-loss) is the true class' probability
    return _organ_mean(loss, contoured)


def mask_known(present, contoured, annotated):
    """Masks slices of which it is known whether they hold the organ: [N, K], 1 if known.

    An organ that is not seen may lie in ignored pixels.

    present: bool [N, K], whether an annotated pixel belongs to the organ.
    contoured, annotated: As for `segment`.
    """
    if annotated is None:
        return contoured
    whole = tf.reduce_min(annotated, [1, 2]) > 0
    return tf.cast(contoured, tf.float32) * tf.cast(present | whole[:, None], tf.float32)


def _merge_hidden(logits, truth, contoured):
    """Adds organs that were not contoured to the background.

    Returns log probabilities and one-hot truth, [N, H, W, 1 + K] each.
    """
    visible = contoured[:, None, None, :]
    # On a CPU the gradient of a split is several times as fast as that of a slice.
    background, organs = tf.split(logits, [1, logits.shape[-1] - 1], -1)
    # The log of a sum of probabilities: contoured organs contribute 0 to it.
    hidden = tf.concat([background, organs + visible * _NOTHING], -1)
    total = tf.reduce_logsumexp(logits, -1, keepdims=True)
    log_background = tf.reduce_logsumexp(hidden, -1, keepdims=True)
    log_p = tf.concat([log_background, organs], -1) - total
    truth = tf.one_hot(tf.cast(truth, tf.int32), tf.shape(logits)[-1])[..., 1:] * visible
    return log_p, tf.concat([1 - tf.reduce_sum(truth, -1, keepdims=True), truth], -1)


def _cross_entropy(log_p, truth, annotated, gamma=0.0):
    """Mean over the pixels of -(1 - p)^gamma log p of the true class."""
    log_true = tf.reduce_sum(log_p * truth, -1)
    loss = -log_true
    if gamma:
        loss *= (1 - tf.exp(log_true)) ** gamma
    return _pixel_mean(loss, annotated)


def _binary_cross_entropy(logits, log_p, truth, contoured, annotated):
    """Mean over pixels and contoured organs of the cross entropy of organ against rest."""
    # [N, H, W, class, class]: for each class the logits of all others.
    rest = logits[..., None, :] + np.eye(logits.shape[-1], dtype=np.float32) * _NOTHING
    log_rest = tf.reduce_logsumexp(rest, -1) - tf.reduce_logsumexp(logits, -1, keepdims=True)
    loss = -(truth * log_p + (1 - truth) * log_rest)[..., 1:]
    return _organ_mean(_pixel_mean(loss, annotated), contoured)


def _overlap_loss(log_p, truth, contoured, annotated, false_positives, false_negatives):
    """1 - soft Tversky index, mean over the contoured organs; weights 0.5 and 0.5 give Dice."""
    _, log_organs = tf.split(log_p, [1, log_p.shape[-1] - 1], -1)
    p, truth = tf.exp(log_organs), truth[..., 1:]
    if annotated is not None:
        p, truth = p * annotated[..., None], truth * annotated[..., None]
    both = tf.reduce_sum(p * truth, [1, 2])
    wrong = false_positives * (tf.reduce_sum(p, [1, 2]) - both)
    missed = false_negatives * (tf.reduce_sum(truth, [1, 2]) - both)
    index = (both + _SMOOTH_PX / 2) / (both + wrong + missed + _SMOOTH_PX / 2)
    return _organ_mean(1 - index, contoured)


def _pixel_mean(values, annotated):
    """Mean over the annotated pixels of [N, H, W] or [N, H, W, K]; 0 for a slice without any."""
    if annotated is None:
        return tf.reduce_mean(values, [1, 2])
    weights = annotated if len(values.shape) == 3 else annotated[..., None]
    total = tf.reduce_sum(values * weights, [1, 2])
    return tf.math.divide_no_nan(total, tf.reduce_sum(weights, [1, 2]))


def _organ_mean(values, contoured):
    """Mean over the contoured organs of [N, K]; 0 for a slice without any."""
    total = tf.reduce_sum(values * contoured, -1)
    return tf.math.divide_no_nan(total, tf.reduce_sum(contoured, -1))
