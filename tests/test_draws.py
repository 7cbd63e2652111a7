"""Random numbers follow from seed, step, place and stream; the hash is that of its paper."""

import numpy as np
import tensorflow as tf
from scipy import stats

from trainer import draws

SEED = tf.constant([3, 100])


def pcg4d(x, y, z, w):
    """Jarzynski and Olano, JCGT 9(3), 2020, listing of pcg4d, word by word in Python's integers."""
    bits = 2**32 - 1
    x, y, z, w = ((v * 1664525 + 1013904223) & bits for v in (x, y, z, w))
    for shifted in (False, True):
        if shifted:
            x, y, z, w = (v ^ (v >> 16) for v in (x, y, z, w))
        x = (x + y * w) & bits
        y = (y + z * x) & bits
        z = (z + x * y) & bits
        w = (w + y * z) & bits
    return x, y, z, w


def test_each_number_is_the_papers_hash_of_number_place_step_and_seed():
    found = draws.uniform(SEED, tf.constant([7, 2**31 - 1]), 5, 7).numpy()
    for row, place in zip(found, (7, 2**31 - 1), strict=True):
        words = [word for n in range(2) for word in pcg4d((5 << 28) + n, place, 100, 3)]
        expected = [word >> 8 for word in words[:7]]
        np.testing.assert_array_equal(row, np.array(expected, np.float32) / 2**24)


def test_a_place_draws_the_same_numbers_whatever_stands_beside_it():
    whole = draws.normal(SEED, tf.range(16), 2, [5, 3]).numpy()
    for places in ([0, 1, 2], [9], [15, 3, 8]):
        found = draws.normal(SEED, tf.constant(places), 2, [5, 3]).numpy()
        # The cosine of a tensor's last numbers may differ in its last bit.
        np.testing.assert_allclose(found, whole[places], atol=1e-6)


def test_the_first_numbers_do_not_depend_on_how_many_are_drawn():
    whole = draws.uniform(SEED, tf.range(4), 1, 50).numpy()
    for count in (1, 2, 19):
        found = draws.uniform(SEED, tf.range(4), 1, count).numpy()
        np.testing.assert_array_equal(found, whole[:, :count])


def test_numbers_are_uniform_or_normal_and_share_nothing():
    drawn = [
        draw(tf.constant(seed), tf.range(32), stream, shape).numpy().astype(float)
        for draw, shape in ((draws.uniform, 3000), (draws.normal, [3000]))
        for seed, stream in (((3, 100), 1), ((3, 100), 2), ((3, 101), 1), ((4, 100), 1))
    ]
    for numbers, law in zip(drawn, ["uniform"] * 4 + ["norm"] * 4, strict=True):
        assert stats.kstest(numbers.ravel(), law).pvalue > 1e-3
        assert abs(np.corrcoef(numbers[:, 1:].ravel(), numbers[:, :-1].ravel())[0, 1]) < 0.02
    rows = np.concatenate([np.concatenate(drawn[:4]), np.concatenate(drawn[4:])])
    correlation = np.corrcoef(rows)
    half = len(rows) // 2
    for block in (correlation[:half, :half], correlation[half:, half:]):
        assert np.abs(block - np.eye(half)).max() < 6 / np.sqrt(3000)
