"""Resampling by weights: equal to the dense product, whatever lies in the volume."""

import numpy as np
import pytest

from segthor.boxes import label_boxes
from segthor.resample import largest, linear_weights, resample, resample_labels

RNG = np.random.default_rng(4)


def weights(source, target, step, first):
    return linear_weights(first + step * np.arange(target), step, source)


CASES = [
    ((23, 31), (16, 16), 1.02, (2.3, 4.1)),
    ((23, 31), (40, 32), 0.6, (-3.2, 1.7)),
    ((40, 37), (12, 12), 2.7, (1.1, -4.0)),
    ((12, 10), (8, 8), 1.0, (100.0, 3.0)),  # the box lies beside the scan
]


@pytest.mark.parametrize(("plane", "target", "step", "first"), CASES)
@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32, np.uint8])
def test_resampling_is_the_product_with_both_weights(plane, target, step, first, dtype):
    rows, columns = (weights(n, m, step, f) for n, m, f in zip(plane, target, first, strict=True))
    zyx = RNG.integers(0, 200, (3, *plane)).astype(dtype)
    expected = np.einsum("hy,zyx,wx->zhw", rows, zyx.astype(float) + 1000, columns) - 1000
    found = list(resample(zyx, rows, columns, outside=-1000))
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize(("plane", "target", "step", "first"), CASES)
def test_labels_are_decided_as_if_every_map_were_resampled_whole(plane, target, step, first):
    rows, columns = (weights(n, m, step, f) for n, m, f in zip(plane, target, first, strict=True))
    zyx = np.zeros((5, *plane), np.uint8)
    zyx[1:4, 3:9, 2:8] = RNG.integers(0, 5, (3, 6, 6))
    zyx[2, -1], zyx[3, :, 0] = 2, 4
    shares = np.stack(
        [np.einsum("hy,zyx,wx->zhw", rows, zyx == value, columns) for value in range(1, 5)]
    )
    background = 1 - shares.sum(0)
    expected = np.where(shares.max(0) > background + 1e-5, shares.argmax(0) + 1, 0)
    order = np.sort(np.concatenate([shares, background[None]]), axis=0)
    decided = order[-1] - order[-2] > 1e-4  # a tie may fall either way by rounding
    assert decided.mean() > 0.9
    found = resample_labels(zyx, label_boxes(zyx), rows, columns)
    np.testing.assert_array_equal(found[decided], expected[decided])


@pytest.mark.parametrize("shape", [(1, 4), (2, 0), (5, 7, 9), (200, 3, 4)])
def test_the_largest_map_is_the_first_of_equal_ones(shape):
    maps = np.random.default_rng(3).integers(0, 4, shape).astype(np.float32)
    winner, most = largest(maps)
    np.testing.assert_array_equal(winner, maps.argmax(0))
    np.testing.assert_array_equal(most, maps.max(0))
