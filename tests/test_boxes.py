"""Boxes: those that every voxel looked at by itself gives, in every memory order."""

import numpy as np
import pytest

from segthor.boxes import around, label_boxes, nonzero_box, with_margin

RNG = np.random.default_rng(4)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1)])
@pytest.mark.parametrize("share", [0, 1e-3, 0.02, 1])
@pytest.mark.parametrize("values", [[1, 2, 4], [7], [3, 8, 40, 63], [5, 64, 255]])
def test_boxes_are_those_of_each_voxel_in_every_memory_order(order, share, values):
    labels = np.zeros((17, 13, 11), np.uint8)
    picked = RNG.random(labels.shape) < share
    labels[picked] = RNG.choice(values, picked.sum())
    volume = np.ascontiguousarray(labels.transpose(order)).transpose(np.argsort(order))[:, ::-1]
    expected = {value: box_of(volume == value) for value in values if (volume == value).any()}
    assert label_boxes(volume) == expected
    assert nonzero_box(volume) == box_of(volume > 0)
    assert around(label_boxes(volume).values()) == nonzero_box(volume)


def box_of(mask):
    index = np.argwhere(mask)
    if not len(index):
        return (slice(0, 0),) * 3
    ends = zip(index.min(0), index.max(0), strict=True)
    return tuple(slice(int(low), int(high) + 1) for low, high in ends)


@pytest.mark.parametrize("margin_px", [0, 1, 2.4, 30])
def test_a_margin_is_added_at_either_end_and_ends_at_the_border(margin_px):
    box, shape = (slice(2, 5), slice(0, 9), slice(8, 9)), (20, 9, 12)
    grown = with_margin(box, (margin_px,) * 3, shape)
    for part, inner, length in zip(grown, box, shape, strict=True):
        low = [n for n in range(length) if n + 1 > inner.start - margin_px]
        high = [n for n in range(length) if n <= inner.stop - 1 + margin_px]
        assert (part.start, part.stop) == (low[0], high[-1] + 1)
