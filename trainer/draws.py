"""Random numbers that are a function of seed, step and place in the global batch, and of no more.

TensorFlow's stateless operations take one seed for a whole tensor, so a seed of its own for each
example would be a loop over the examples. pcg4d (Jarzynski and Olano, Hash Functions for GPU
Rendering, JCGT 9(3), 2020) hashes four words into four, here number, place, step and seed, all
examples at once; every operation of uint32 that it takes has a GPU kernel.
"""

import math

import numpy as np
import tensorflow as tf

_WORDS = 4  # that one hash gives
_STREAM_BITS = 28  # numbers of one stream: 2^28 x 4 words, more than any slice needs


def uniform(seed, places, stream: int, count: int):
    """Numbers in [0, 1), float32 [N, count]; the first ones do not depend on how many there are.

    seed: int32 [2], the run's seed and the step. places: int32 [N], in the global batch. stream:
    draws of different streams have nothing in common.
    """
    words = tf.stack(_words(seed, places, stream, count), -1)
    return _unit(tf.reshape(words, [-1, words.shape[1] * _WORDS])[:, :count])


def normal(seed, places, stream: int, shape):
    """Standard normal numbers, float32 [N, *shape], by Box and Muller; see `uniform`."""
    count = math.prod(shape)
    words = _words(seed, places, stream, count)
    numbers = []
    for first, second in (words[:2], words[2:]):
        # 1 - [0, 1) is (0, 1], whose logarithm is finite.
        radius = tf.sqrt(-2 * tf.math.log(1 - _unit(first)))
        angle = 2 * math.pi * _unit(second)
        numbers += [radius * tf.cos(angle), radius * tf.sin(angle)]
    return tf.reshape(tf.concat(numbers, 1)[:, :count], [-1, *shape])


def _words(seed, places, stream: int, count: int) -> list:
    """Four tensors, uint32 [N, a quarter of `count`, rounded up]."""
    hashes = -(-count // _WORDS)
    number = tf.constant(np.arange(hashes, dtype=np.uint32)[None] + (stream << _STREAM_BITS))
    run, step = tf.unstack(seed)
    places, step, run = (tf.cast(value, tf.uint32) for value in (places, step, run))
    words = (number, tf.reshape(places, [-1, 1]), step, run)
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
