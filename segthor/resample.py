"""In-plane resampling of volumes and label maps by linear weights. Numpy and scipy only.

Sums are taken entry by entry in a fixed order, not by a linear algebra library, whose last bits
depend on the processor: the same scan must give the same bytes on every machine.
"""

import numpy as np
from scipy import sparse

from segthor.boxes import Box, support

# Slices that are resampled together, so that each weight is fetched once for all of them; of 4, 8,
# 16 and 32, the quickest: more do not fit beside the weights in a core's cache.
_TOGETHER = 8


def linear_weights(positions: np.ndarray, step: float, length: int) -> np.ndarray:
    """[len(positions), length] float32 weights of a triangle filter about each position.

    The triangle's half width is max(1, step) source pixels: linear interpolation, and averaging
    where the target is coarser. Rows sum to 1 inside the source, to less at its border, to 0
    beyond.
    """
    width = max(1.0, step)
    reach = int(np.ceil(width)) + 1
    taps = np.floor(positions)[:, None].astype(int) + np.arange(-reach, reach + 1)
    weights = np.maximum(0, 1 - np.abs(taps - positions[:, None]) / width)
    weights /= weights.sum(1, keepdims=True)
    matrix = np.zeros((len(positions), length), np.float32)
    inside = (taps >= 0) & (taps < length)
    rows = np.broadcast_to(np.arange(len(positions))[:, None], taps.shape)
    matrix[rows[inside], taps[inside]] = weights[inside]
    return matrix


def resample(zyx: np.ndarray, rows: np.ndarray, columns: np.ndarray, outside: float):
    """Yields rows @ slice @ columns.T for every slice, float32 [len(rows), len(columns)].

    zyx: [Z, Y, X]. rows, columns: weights [H, Y] and [W, X]. outside: the value where weights sum
    to less than 1.
    """
    y, x = support(rows), support(columns)
    operator = _operator(rows[:, y], columns[:, x])
    for planes in _together(zyx[:, y, x]):
        source = planes.astype(np.float32, order="C")
        source -= np.float32(outside)
        prepared = _times(operator, source)
        prepared += np.float32(outside)
        yield from prepared.reshape(len(planes), len(rows), len(columns))


def resample_maps(
    maps: np.ndarray, rows: sparse.csr_array, columns: sparse.csr_array, region
) -> np.ndarray:
    """The region (two slices of the target) of maps [H, W, K] of one plane, float32 [K, Y, X].

    rows [all rows, H], columns [all columns, W]: weights. 0 where they are.
    """
    y, x = reach(rows, region[0]), reach(columns, region[1])
    height, width, count = maps[y, x].shape
    tall = rows[region[0], y].dot(maps[y, x].reshape(height, width * count))
    long = len(tall)
    tall = tall.reshape(long, width, count).transpose(1, 2, 0).reshape(width, count * long)
    wide = columns[region[1], x].dot(tall)
    return wide.reshape(len(wide), count, long).transpose(1, 2, 0)


def reach(weights: sparse.csr_array, rows: slice) -> slice:
    """From the first to the last column that these rows of a sparse matrix use."""
    used = weights.indices[weights.indptr[rows.start] : weights.indptr[rows.stop]]
    return slice(int(used.min()), int(used.max()) + 1) if len(used) else slice(0, 0)


def largest(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the maps [K, ...] is the largest, uint8, the first of equal ones; and how large.

    Map by map: numpy's argmax along the first axis takes three to five times as long.
    """
    winner, most = np.zeros(maps.shape[1:], np.uint8), maps[0].copy()
    for number, one in enumerate(maps[1:], 1):
        np.maximum(winner, (one > most) * np.uint8(number), out=winner)  # later numbers are higher
        np.maximum(most, one, out=most)
    return winner, most


def resample_labels(
    zyx: np.ndarray, boxes: dict[int, Box], rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """uint8 [Z, len(rows), len(columns)]: each label resampled as a map, the largest wins.

    The background is a map like any other, and wins where it ties. boxes: the labels' in `zyx`.
    """
    zyx = zyx.astype(np.uint8, copy=False)
    target = np.zeros((len(zyx), len(rows), len(columns)), np.uint8)
    maps = {value: _Map(box, rows, columns) for value, box in boxes.items()}
    if not maps:
        return target
    places = [one.target for one in maps.values()]
    region = tuple(
        slice(min(place[axis].start for place in places), max(place[axis].stop for place in places))
        for axis in (0, 1)
    )
    reached = target[(slice(None), *region)]
    for first, planes, winner in zip(
        range(0, len(zyx), _TOGETHER), _together(zyx), _together(reached), strict=True
    ):
        best = np.zeros(winner.shape, np.float32)
        background = np.ones_like(best)
        for value, one in maps.items():
            if one.z.start < first + len(planes) and first < one.z.stop:
                place = (slice(None), *one.within(region))
                share = one.share(planes, value)
                background[place] -= share
                np.copyto(winner[place], value, where=share > best[place])
                np.maximum(best[place], share, out=best[place])
        winner[background >= best] = 0
    return target


class _Map:
    """One label: its slices, its box in their planes, the pixels it reaches and the way there."""

    def __init__(self, box, rows, columns):
        self.z, y, x = box
        self._source = slice(None), y, x
        self.target = support(rows[:, y].T), support(columns[:, x].T)
        self._operator = _operator(rows[self.target[0], y], columns[self.target[1], x])
        self._shape = tuple(part.stop - part.start for part in self.target)

    def share(self, planes: np.ndarray, value: int) -> np.ndarray:
        """float32 [N, *target], the label's share of each pixel, from slices [N, Y, X]."""
        masks = planes[self._source] == value
        return _times(self._operator, masks).reshape(len(planes), *self._shape)

    def within(self, region) -> tuple[slice, slice]:
        """`target` as seen from a region that holds it."""
        return tuple(
            slice(part.start - outer.start, part.stop - outer.start)
            for part, outer in zip(self.target, region, strict=True)
        )


def _operator(rows: np.ndarray, columns: np.ndarray) -> sparse.csr_array:
    """What turns a flat plane [Y * X] into the flat resampled plane [H * W]."""
    return sparse.csr_array(sparse.kron(sparse.csr_array(rows), sparse.csr_array(columns), "csr"))


def _together(slices: np.ndarray):
    """Yields the slices [Z, ...] in parts [N, ...] that are resampled at once."""
    return (slices[first : first + _TOGETHER] for first in range(0, len(slices), _TOGETHER))


def _times(operator: sparse.csr_array, planes: np.ndarray) -> np.ndarray:
    """The operator times each of the planes [N, Y, X], float32 [N, H * W]."""
    columns = planes.reshape(len(planes), operator.shape[1]).T.astype(np.float32, order="C")
    return np.ascontiguousarray(operator.dot(columns).T)
