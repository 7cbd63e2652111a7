"""The augmentation as a Keras layer, for other training steps; see docs/python.md."""

from dataclasses import replace

import tensorflow as tf

from segthor import sides
from segthor.organs import Organs
from trainer.augment import augment
from trainer.batches import open_input
from trainer.exchange import exchange_sides
from trainer.strengths import Strengths


class Augmentation(tf.keras.layers.Layer):
    """The trainer's augmentation on the device, for other training steps.

      augmentation = trainer.Augmentation("data/dataset", trainer.Strengths())
      images, labels, contoured = augmentation(batch, training=True)

    Takes and returns what `dataset` yields, with images as float32; without `training` nothing
    changes. Each call is one step. The augmentation of a slice depends on seed, step and its index
    in the batch of all replicas, as in `trainer.main`.
    """

    def __init__(self, folder, strengths: Strengths, seed: int = 0, organs=(), **layer):
        """Reads the table of organs of a dataset.

        folder, seed, organs: As for `dataset`.
        layer: Arguments of the Keras layer, such as its name.

        Raises:
          InputError: As `dataset`; or slices are mirrored left to right, and `organs` lacks the
            mirror image of one of them.
        """
        super().__init__(trainable=False, **layer)
        source, config = open_input(folder, 1, strengths, seed, organs, -1)
        self._table = _number_organs(source.organs, config.organs)
        self._config = config
        self._step = tf.Variable(
            0,
            trainable=False,
            dtype=tf.int32,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def call(self, batch, training=False):
        """Returns images, labels and contoured, augmented if `training`."""
        images, labels, contoured = batch
        if not training:
            return tf.cast(images, tf.float32), labels, contoured
        size, replica = tf.shape(labels)[0], tf.distribute.get_replica_context()
        index = tf.range(size) + replica.replica_id_in_sync_group * size
        draw = index, tf.stack([self._config.seed, self._step]), self._config.augment
        images, labels = augment(images, labels, *draw)
        labels, contoured = exchange_sides(labels, contoured, *draw, self._table)
        self._step.assign_add(1)
        return images, labels, contoured


def _number_organs(table: Organs, names) -> Organs:
    """Numbers the organs of `names` 1, 2, ... in their order.

    Raises:
      InputError: The mirror image of an organ is not among them.
    """
    sides.mirrored_places(table, names)
    rows = {organ.name: organ for organ in table.select(names)}
    return Organs(tuple(replace(rows[name], label=k) for k, name in enumerate(names, 1)))
