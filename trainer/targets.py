"""From the dataset's label maps to the channels of the network, which are its targets."""

import tensorflow as tf

from segthor import ignored
from segthor.organs import Organs


class Targets:
    """The K organs that a network learns, out of those in the dataset's table.

    table: All organs of the dataset.
    """

    def __init__(self, organs: Organs, names, has_ignored: bool = False):
        """Prepares the mapping.

        organs: The dataset's table.
        names: Names of the organs to learn, in the order of the network's channels.
        has_ignored: Whether the dataset has pixels that are not annotated; see `segthor.ignored`.
        """
        self.table = organs
        channels = {label: channel for channel, label in enumerate(organs.labels(names), 1)}
        highest = ignored.LABEL if has_ignored else organs.highest_label
        self._channel_of_label = [channels.get(n, 0) for n in range(1 + highest)]
        self._has_ignored = has_ignored
        self._columns = organs.places(names)
        self._count = len(names)

    def channels(self, labels):
        """Channels uint8 [N, H, W] of labels uint8 [N, H, W]; organs not learnt are background."""
        # float32, since GatherV2 has no GPU kernel for uint8 and int32 would run on the host.
        channel_of_label = tf.constant(self._channel_of_label, tf.float32)
        return tf.cast(tf.gather(channel_of_label, tf.cast(labels, tf.int32)), tf.uint8)

    def annotated(self, labels):
        """float32 [N, H, W], 0 at ignored pixels and 1 elsewhere; None if the dataset has none."""
        return tf.cast(labels != ignored.LABEL, tf.float32) if self._has_ignored else None

    def contoured(self, contoured):
        """Selects the learnt organs: [N, all organs of the table] to [N, K]."""
        return tf.gather(contoured, tf.constant(self._columns), axis=1)

    def one_hot(self, channels):
        """Organ masks bool [N, H, W, K] of channels [N, H, W]."""
        return channels[..., None] == tf.constant([*range(1, self._count + 1)], channels.dtype)

    def present(self, channels):
        """bool [N, K], whether each slice holds each organ, of channels [N, H, W]."""
        return tf.reduce_any(self.one_hot(channels), [1, 2])
