"""Changes the mean HU of single organs in the augmentation, as contrast agent does.

A heart has 40 HU without contrast agent and up to some 500 HU with it. A network that was trained
on few patients has seen few of these values. The table of organs holds the plausible range of each
organ's mean HU.
"""

import numpy as np
import tensorflow as tf

from segthor.organs import Organs
from segthor.recipe import Recipe, window
from trainer import appearance, draws

_STREAM = 4  # of random numbers, see `draws`; `trainer.augment` uses others


def grey_ranges(recipe: Recipe, organs: Organs) -> list[tuple[int, float, float]]:
    """Returns label, lowest and highest mean grey, 0 to 255, of each organ that has a range of HU.

    None of an organ where each patient has a window level of its own, since it moves with the
    organs' HU.
    """
    level_hu = recipe.constant_level_hu
    if level_hu is None:
        return []
    ranges = []
    for organ in organs:
        if organ.mean_hu:
            grey = window(np.float32(organ.mean_hu), level_hu, recipe.window_width_hu)
            ranges.append((organ.label, *map(float, grey)))
    return ranges


def change_organs(images, labels, index, seed, strengths, ranges):
    """Gives some organs of each slice another mean grey, drawn uniformly from their range.

    images: float32 [N, H, W, C], 0 to 255, as returned by `augment.augment`. The neighbouring
      slices change where the middle one does, since there are no labels of them.
    labels: uint8 [N, H, W].
    index, seed, strengths: As passed to `augment.augment`.
    ranges: Label, lowest and highest grey of each organ, see `grey_ranges`.

    Returns images of the same shape.
    """
    if not (strengths.organ_hu and ranges):
        return images
    middle = images[..., images.shape[-1] // 2]
    numbers = tf.unstack(draws.uniform(seed, index, _STREAM, 2 * len(ranges)), axis=1)
    added = tf.zeros_like(middle)
    for (label, lowest, highest), chosen, place in zip(
        ranges, numbers[::2], numbers[1::2], strict=True
    ):
        inside = tf.cast(labels == label, tf.float32)
        mean = tf.math.divide_no_nan(
            tf.reduce_sum(inside * middle, [1, 2]), tf.reduce_sum(inside, [1, 2])
        )
        change = lowest + (highest - lowest) * place - mean
        change = tf.where(chosen < strengths.organ_hu, change, 0.0)
        added += inside * change[:, None, None]
    return tf.clip_by_value(images + added[..., None], 0.0, appearance.WHITE)
