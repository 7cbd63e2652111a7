"""Organs of a side in slices that the augmentation mirrors: left becomes right, and right left.

A mirrored left lung is a right lung, so that its labels, and whether it was contoured, are those of
its partner in the table of organs. Nothing else exchanges sides; see `segthor.sides`.
"""

import numpy as np
import tensorflow as tf

from segthor import sides
from segthor.organs import Organs
from trainer import augment


def exchange_sides(labels, contoured, index, seed, strengths, organs: Organs):
    """Labels and contoured organs as they are in the pictures that `augment.augment` gives.

    labels: uint8 [N, H, W], already moved with the picture. contoured: [N, all organs of the
    table]. index, seed, strengths: As given to `augment.augment`. organs: The dataset's table.
    """
    partners = sides.mirrored_labels(organs)
    if not strengths.flip_left_right or (partners == np.arange(len(partners))).all():
        return labels, contoured
    mirrored = augment.mirrored(index, seed, strengths)
    # Gathered as float32: there is no GPU kernel for uint8.
    of_partner = tf.gather(tf.constant(partners, tf.float32), tf.cast(labels, tf.int32))
    labels = tf.where(mirrored[:, None, None], tf.cast(of_partner, tf.uint8), labels)
    places = tf.constant(sides.mirrored_places(organs, organs.names))
    return labels, tf.where(mirrored[:, None], tf.gather(contoured, places, axis=1), contoured)
