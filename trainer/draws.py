"""Random numbers that depend on seed, step and index in the global batch alone.

TensorFlow's stateless operations take one seed per tensor, so a seed per example would need a loop
over the examples. The hash pcg4d (Jarzynski and Olano, Hash Functions for GPU Rendering, JCGT 9(3),
2020) maps four words to four, here number, index, step and seed, for all examples at once. All its
operations have GPU kernels for uint32.
"""

import math

import numpy as np
import tensorflow as tf

_WORDS = 4  # words of one hash
_STREAM_BITS = 28  # a stream has 2^28 x 4 words, more than any slice needs


def uniform(seed, indices, stream: int, count: int):
    """Draws uniform numbers in [0, 1), float32 [N, count].

    The first numbers do not depend on `count`.

    seed: int32 [2], the run's seed and the step.
    indices: int32 [N], index of each example in the global batch.
    stream: Number of an independent stream.
    """
    words = tf.stack(_words(seed, indices, stream, count), -1)
    return _unit(tf.reshape(words, [-1, words.shape[1] * _WORDS])[:, :count])


def normal(seed, indices, stream: int, shape):
    """Draws standard normal numbers, float32 [N, *shape], by Box and Muller; see `uniform`."""
    count = math.prod(shape)
    words = _words(seed, indices, stream, count)
    numbers = []
    for first, second in (words[:2], words[2:]):
        # 1 - u lies in (0, 1], where the logarithm is finite.
        radius = tf.sqrt(-2 * tf.math.log(1 - _unit(first)))
        angle = 2 * math.pi * _unit(second)
        numbers += [radius * tf.cos(angle), radius * tf.sin(angle)]
    return tf.reshape(tf.concat(numbers, 1)[:, :count], [-1, *shape])


def _words(seed, indices, stream: int, count: int) -> list:
    """Hashes; returns four tensors uint32 [N, count / 4 rounded up]."""
    hashes = -(-count // _WORDS)
    number = tf.constant(np.arange(hashes, dtype=np.uint32)[None] + (stream << _STREAM_BITS))
    run, step = tf.unstack(seed)
    indices, step, run = (tf.cast(value, tf.uint32) for value in (indices, step, run))
    words = (number, tf.reshape(indices, [-1, 1]), step, run)
    x, y, z, w = (word * 1664525 + 1013904223 for word in words)
    x, y, z, w = _mix(x, y, z, w)
    x, y, z, w = (tf.bitwise.bitwise_xor(v, tf.bitwise.right_shift(v, 16)) for v in (x, y, z, w))
    return list(_mix(x, y, z, w))


def _mix(x, y, z, w):
    x += y * w
    y += z * x
    z += x * y
    w += y * z
    return x, y, z, w


def _unit(word):
    """uint32 to float32 in [0, 1): the upper 24 bits, which float32 holds exactly."""
    return tf.cast(tf.bitwise.right_shift(word, 8), tf.float32) * 2.0**-24
