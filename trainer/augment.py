"""Augmentation of a batch on the device, as part of the training step.

`augment` first deforms images and labels together (`trainer.warp`), then changes the grey values of
the images (`trainer.appearance`). The augmentation of an example depends on seed, step and its
index in the global batch alone, so that a resumed run and any number of replicas give the same.
"""

import math

import numpy as np
import tensorflow as tf

from trainer import appearance, draws, warp
from trainer.strengths import Strengths

# Random numbers per example, one of each name, whether or not it is used: switching one kind of
# augmentation off does not change the others.
_CHOICES = (
    *("flip_left_right", "flip_front_back", "rotation", "scale", "shift_rows", "shift_columns"),
    *("window_level", "window_width", "gamma", "contrast", "brightness"),
    *("blur", "low_resolution", "sharpen", "emboss", "noise"),
    *("cutout", "cutout_aspect", "cutout_row", "cutout_column"),
)
_NORMAL, _UNIFORM = 2, 3  # streams of random numbers
_GEOMETRY = ("flip_left_right", "flip_front_back", "rotation_deg", "scale", "shift", "elastic_px")


def augment(images, labels, index, seed, strengths: Strengths):
    """Augments a batch.

    images: uint8 [N, H, W, C]; H, W and C must be static.
    labels: uint8 [N, H, W].
    index: int32 [N], index of each example in the global batch.
    seed: int32 [2], the run's seed and the step.

    Returns images float32 [N, H, W, C] of 0 to 255 and labels uint8 [N, H, W].
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
        rows, columns = _source_positions(choices, control, strengths, images.shape[1:3])
        images, labels = warp.resample(images, labels, rows, columns)
    return appearance.change(tf.cast(images, tf.float32), choices, noise, strengths), labels


def mirrored(index, seed, strengths: Strengths):
    """bool [N]: the examples that `augment` mirrors left to right."""
    column = _CHOICES.index("flip_left_right")
    number = draws.uniform(seed, index, _UNIFORM, column + 1)[:, column]
    return number < strengths.flip_left_right


def _source_positions(choices, control, strengths, shape):
    def direction(name):
        return tf.where(choices[name] < getattr(strengths, name), -1.0, 1.0)

    def both_ways(name):
        return appearance.both_ways(choices[name])

    height, width = shape
    return warp.positions(
        height,
        width,
        flips=(direction("flip_front_back"), direction("flip_left_right")),
        rotation=both_ways("rotation") * np.radians(strengths.rotation_deg),
        scale=appearance.factor(choices["scale"], strengths.scale),
        shift=(
            both_ways("shift_rows") * strengths.shift * height,
            both_ways("shift_columns") * strengths.shift * width,
        ),
        control=None if control is None else appearance.both_ways(control) * strengths.elastic_px,
    )
