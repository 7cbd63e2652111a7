"""The augmentation as a layer, for a training step of one's own; see docs/python.md."""

from dataclasses import replace

import tensorflow as tf

from segthor import sides
from segthor.organs import Organs
from trainer.augment import augment
from trainer.batches import open_input
from trainer.exchange import exchange_sides
from trainer.strengths import Strengths


class Augmentation(tf.keras.layers.Layer):
    """The trainer's augmentation on the device, for a training step of one's own.

      augmentation = trainer.Augmentation("data/dataset", trainer.Strengths())
      images, labels, contoured = augmentation(batch, training=True)

    Takes and gives what `dataset` yields, images as float32. Without `training` nothing changes.
    Each call is a step of its own; seed, step and a slice's place in the batch of all replicas
    decide what it gets, as in `trainer.main`.
    """

    def __init__(self, folder, strengths: Strengths, seed: int = 0, organs=(), **layer):
        """folder, seed, organs: As for `dataset`. layer: What Keras gives a layer, as its name.

        Raises:
          InputError: as `dataset`; or slices are to be mirrored left to right, and `organs` leaves
            out what one of them becomes.
        """
        super().__init__(trainable=False, **layer)
        source, config = open_input(folder, 1, strengths, seed, organs, -1)
        self._table = _numbered(source.organs, config.organs)
        self._config = config
        self._step = tf.Variable(
            0,
            trainable=False,
            dtype=tf.int32,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def call(self, batch, training=False):
        """(images, labels, contoured), augmented if `training`."""
        images, labels, contoured = batch
        if not training:
            return tf.cast(images, tf.float32), labels, contoured
        size, replica = tf.shape(labels)[0], tf.distribute.get_replica_context()
        index = tf.range(size) + replica.replica_id_in_sync_group * size
        drawn = index, tf.stack([self._config.seed, self._step]), self._config.augment
        images, labels = augment(images, labels, *drawn)
        labels, contoured = exchange_sides(labels, contoured, *drawn, self._table)
        self._step.assign_add(1)
        return images, labels, contoured


def _numbered(table: Organs, names) -> Organs:
    """The organs of `names`, labelled 1, 2, ... in their order.

    Raises:
      InputError: an organ's mirror image is not among them.
    """
    sides.mirrored_places(table, names)
    rows = {organ.name: organ for organ in table.only(names)}
    return Organs(tuple(replace(rows[name], label=k) for k, name in enumerate(names, 1)))
