"""Augmentation in the training step: batched, on the device, a function of (seed, step, place).

`augment` first moves image and labels by one map (`trainer.warp`), then changes the image alone
(`trainer.appearance`). What an example gets depends on its place in the global batch, never on its
neighbours, so that one replica and several see the same pictures, and so does a resumed run.
"""

import math

import numpy as np
import tensorflow as tf

from trainer import appearance, draws, warp
from trainer.strengths import Strengths

# One number in [0, 1) per example for each; a choice keeps its own when others are switched off.
_CHOICES = (
    *("flip_left_right", "flip_front_back", "rotation", "scale", "shift_rows", "shift_columns"),
    *("window_level", "window_width", "gamma", "contrast", "brightness"),
    *("blur", "low_resolution", "sharpen", "emboss", "noise"),
    *("cutout", "cutout_aspect", "cutout_row", "cutout_column"),
)
_NORMAL, _UNIFORM = 2, 3  # streams of random numbers
_GEOMETRY = ("flip_left_right", "flip_front_back", "rotation_deg", "scale", "shift", "elastic_px")


def augment(images, labels, index, seed, strengths: Strengths):
    """The batch as the network is to see it.

    images: uint8 [N, H, W, C]. labels: uint8 [N, H, W]. index: int32 [N], each example's place in
    the global batch. seed: int32 [2], the run's seed and the step. H, W and C are static.
    Returns images float32 [N, H, W, C] in 0 to 255 and labels uint8 [N, H, W].
    """
    if strengths == Strengths.none():
        return tf.cast(images, tf.float32), labels
    count, shape = len(_CHOICES), warp.control_shape(*images.shape[1:3])
    numbers = draws.uniform(seed, index, _UNIFORM, count + math.prod(shape))
    choices = dict(zip(_CHOICES, tf.unstack(numbers[:, :count], axis=1), strict=True))
    control = noise = None
    if strengths.elastic_px:
        control = tf.reshape(numbers[:, count:], [-1, *shape])
    if strengths.noise:
        noise = draws.normal(seed, index, _NORMAL, images.shape[1:])
    if any(getattr(strengths, name) for name in _GEOMETRY):
        rows, columns = _positions(choices, control, strengths, images.shape[1:3])
        images, labels = warp.resample(images, labels, rows, columns)
    return appearance.change(tf.cast(images, tf.float32), choices, noise, strengths), labels


def mirrored(index, seed, strengths: Strengths):
    """bool [N]: the examples that `augment` mirrors left to right."""
    place = _CHOICES.index("flip_left_right")
    number = draws.uniform(seed, index, _UNIFORM, place + 1)[:, place]
    return number < strengths.flip_left_right


def _positions(choices, control, strengths, shape):
    def mirrored(name):
        return tf.where(choices[name] < getattr(strengths, name), -1.0, 1.0)

    def both_ways(name):
        return appearance.both_ways(choices[name])

    height, width = shape
    return warp.positions(
        height,
        width,
        flips=(mirrored("flip_front_back"), mirrored("flip_left_right")),
        rotation=both_ways("rotation") * np.radians(strengths.rotation_deg),
        scale=appearance.factor(choices["scale"], strengths.scale),
        shift=(
            both_ways("shift_rows") * strengths.shift * height,
            both_ways("shift_columns") * strengths.shift * width,
        ),
        control=None if control is None else appearance.both_ways(control) * strengths.elastic_px,
    )
