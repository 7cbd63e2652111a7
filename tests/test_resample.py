"""Resampling by weights: equal to the dense product, whatever lies in the volume."""

import numpy as np
import pytest
from scipy import ndimage

from segthor.resample import label_boxes, linear_weights, nonzero_box, resample, resample_labels

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
    np.testing.assert_array_equal(resample_labels(zyx, rows, columns)[decided], expected[decided])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1)])
@pytest.mark.parametrize("share", [0, 1e-3, 0.02, 1])
@pytest.mark.parametrize("values", [[1, 2, 4], [7], [3, 8, 40, 63]])
def test_boxes_are_those_of_scipy_in_every_memory_order(order, share, values):
    labels = np.zeros((17, 13, 11), np.uint8)
    picked = RNG.random(labels.shape) < share
    labels[picked] = RNG.choice(values, picked.sum())
    volume = np.ascontiguousarray(labels.transpose(order)).transpose(np.argsort(order))[:, ::-1]
    found = ndimage.find_objects(volume.astype(int))
    assert label_boxes(volume) == {v + 1: box for v, box in enumerate(found) if box is not None}
    whole = ndimage.find_objects((volume > 0).astype(int))
    assert nonzero_box(volume) == (whole[0] if whole else (slice(0, 0),) * 3)
