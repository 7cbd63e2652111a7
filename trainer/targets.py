"""What the network should give: labels of the dataset to channels of the network."""

import tensorflow as tf

from segthor import ignored
from segthor.organs import Organs


class Targets:
    """The organs that a network learns, among those of the dataset's table."""

    def __init__(self, organs: Organs, names, has_ignored: bool = False):
        """organs: the dataset's table. names: the organs that the network learns.

        has_ignored: whether pixels of the dataset may be ignored; see `segthor.ignored`.
        """
        self.table = organs
        channels = {label: channel for channel, label in enumerate(organs.labels(names), 1)}
        highest = ignored.LABEL if has_ignored else organs.highest_label
        self._channel_of_label = [channels.get(n, 0) for n in range(1 + highest)]
        self._has_ignored = has_ignored
        self._columns = organs.places(names)
        self._count = len(names)

    def channels(self, labels):
        """Label values to channels, uint8 [N, H, W]; organs not learnt are background."""
        # GatherV2 has no GPU kernel for uint8, and int32 arithmetic would run on the host.
        table = tf.constant(self._channel_of_label, tf.float32)
        return tf.cast(tf.gather(table, tf.cast(labels, tf.int32)), tf.uint8)

    def annotated(self, labels):
        """float32 [N, H, W], 0 where a pixel is ignored and 1 elsewhere; None where none can be."""
        return tf.cast(labels != ignored.LABEL, tf.float32) if self._has_ignored else None

    def contoured(self, contoured):
        """The columns of its organs: [N, all organs] to [N, K]."""
        return tf.gather(contoured, tf.constant(self._columns), axis=1)

    def one_hot(self, channels):
        """bool [N, H, W, K]: the pixels of each organ."""
        return channels[..., None] == tf.constant([*range(1, self._count + 1)], channels.dtype)

    def present(self, channels):
        """bool [N, K]: whether a slice holds the organ."""
        return tf.reduce_any(self.one_hot(channels), [1, 2])
