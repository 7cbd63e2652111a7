"""Exchanges left and right organs in slices that the augmentation mirrors.

A mirrored left lung is a right lung: it takes the label, and the contoured flag, of its partner in
the table of organs. See `segthor.sides`.
"""

import numpy as np
import tensorflow as tf

from segthor import sides
from segthor.organs import Organs
from trainer import augment


def exchange_sides(labels, contoured, index, seed, strengths, organs: Organs):
    """Exchanges the sides in labels and contoured flags of mirrored slices; returns both.

    labels: uint8 [N, H, W], as returned by `augment.augment`.
    contoured: [N, all organs of the table].
    index, seed, strengths: As passed to `augment.augment`.
    organs: The dataset's table.
    """
    partners = sides.mirrored_labels(organs)
    if not strengths.flip_left_right or (partners == np.arange(len(partners))).all():
        return labels, contoured
    mirrored = augment.mirrored(index, seed, strengths)
    # float32, since GatherV2 has no GPU kernel for uint8.
    exchanged = tf.gather(tf.constant(partners, tf.float32), tf.cast(labels, tf.int32))
    labels = tf.where(mirrored[:, None, None], tf.cast(exchanged, tf.uint8), labels)
    columns = tf.constant(sides.mirrored_places(organs, organs.names))
    return labels, tf.where(mirrored[:, None], tf.gather(contoured, columns, axis=1), contoured)
