"""In-plane resampling of volumes and label maps by linear weights. Numpy and scipy only.

Sparse matrices sum in a fixed order. The last bits of a linear algebra library's sums depend on the
processor, but the same scan must give the same bytes on every machine.
"""

import numpy as np
from scipy import sparse

from segthor.boxes import Box, around, relative, support

# Number of slices that are resampled together, so that each weight is loaded once for all of them.
# 8 is the fastest of 4, 8, 16 and 32: more do not fit into a core's cache beside the weights.
_BATCH = 8


def linear_weights(positions: np.ndarray, step: float, length: int) -> np.ndarray:
    """Weights of a triangle filter about each position, float32 [len(positions), length].

    The half width of the triangle is max(1, step) pixels of the source: linear interpolation, with
    averaging where the target is coarser. Rows sum to 1 inside the source, to less at its border,
    and to 0 outside.
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

    Args:
      zyx: [Z, Y, X].
      rows, columns: Weights [H, Y] and [W, X].
      outside: Value that takes the missing weight where weights sum to less than 1.
    """
    y, x = support(rows), support(columns)
    operator = _operator(rows[:, y], columns[:, x])
    for planes in _batches(zyx[:, y, x]):
        source = planes.astype(np.float32, order="C")
        source -= np.float32(outside)
        prepared = _times(operator, source)
        prepared += np.float32(outside)
        yield from prepared.reshape(len(planes), len(rows), len(columns))


def resample_maps(
    maps: np.ndarray, rows: sparse.csr_array, columns: sparse.csr_array, region
) -> np.ndarray:
    """Resamples maps of one slice within a region of the target, float32 [K, *region].

    Args:
      maps: [H, W, K].
      rows, columns: Weights [Y, H] and [X, W].
      region: Slices of the target's rows and columns.
    """
    y, x = reach(rows, region[0]), reach(columns, region[1])
    height, width, count = maps[y, x].shape
    tall = rows[region[0], y].dot(maps[y, x].reshape(height, width * count))
    long = len(tall)
    tall = tall.reshape(long, width, count).transpose(1, 2, 0).reshape(width, count * long)
    wide = columns[region[1], x].dot(tall)
    return wide.reshape(len(wide), count, long).transpose(1, 2, 0)


def reach(weights: sparse.csr_array, rows: slice) -> slice:
    """From the first to the last column with a weight in these rows of a sparse matrix."""
    used = weights.indices[weights.indptr[rows.start] : weights.indptr[rows.stop]]
    return slice(int(used.min()), int(used.max()) + 1) if len(used) else slice(0, 0)


def largest(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the largest of maps [K, ...], uint8, the first of equal ones; and its value.

    Compares map by map: numpy's argmax along the first axis takes three to five times as long.
    """
    winner, most = np.zeros(maps.shape[1:], np.uint8), maps[0].copy()
    for number, one in enumerate(maps[1:], 1):
        np.maximum(winner, (one > most) * np.uint8(number), out=winner)  # later numbers are higher
        np.maximum(most, one, out=most)
    return winner, most


def resample_labels(
    zyx: np.ndarray, boxes: dict[int, Box], rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Resamples each label as a separate map; the largest value wins, uint8 [Z, H, W].

    The background is a map, too, and wins ties. zyx: Labels [Z, Y, X]. boxes: Label to bounding
    box. rows, columns: Weights [H, Y] and [W, X].
    """
    zyx = zyx.astype(np.uint8, copy=False)
    target = np.zeros((len(zyx), len(rows), len(columns)), np.uint8)
    maps = {value: _LabelMap(box, rows, columns) for value, box in boxes.items()}
    if not maps:
        return target
    region = around(one.target for one in maps.values())
    reached = target[(slice(None), *region)]
    for first, planes, winner in zip(
        range(0, len(zyx), _BATCH), _batches(zyx), _batches(reached), strict=True
    ):
        best = np.zeros(winner.shape, np.float32)
        background = np.ones_like(best)
        for value, one in maps.items():
            if one.z.start < first + len(planes) and first < one.z.stop:
                part = (slice(None), *relative(one.target, region))
                share = one.share(planes, value)
                background[part] -= share
                np.copyto(winner[part], value, where=share > best[part])
                np.maximum(best[part], share, out=best[part])
        winner[background >= best] = 0
    return target


class _LabelMap:
    """Resamples one label from its bounding box to the part of the target that it can reach."""

    def __init__(self, box, rows, columns):
        self.z, y, x = box
        self._source = slice(None), y, x
        self.target = support(rows[:, y].T), support(columns[:, x].T)
        self._operator = _operator(rows[self.target[0], y], columns[self.target[1], x])
        self._shape = tuple(part.stop - part.start for part in self.target)

    def share(self, planes: np.ndarray, value: int) -> np.ndarray:
        """The label's share of each pixel of `target`, float32 [N, ...], from slices [N, Y, X]."""
        masks = planes[self._source] == value
        return _times(self._operator, masks).reshape(len(planes), *self._shape)


def _operator(rows: np.ndarray, columns: np.ndarray) -> sparse.csr_array:
    """The matrix [H * W, Y * X] that resamples a flattened slice."""
    return sparse.csr_array(sparse.kron(sparse.csr_array(rows), sparse.csr_array(columns), "csr"))


def _batches(slices: np.ndarray):
    """Yields slices [Z, ...] in batches [N, ...]."""
    return (slices[first : first + _BATCH] for first in range(0, len(slices), _BATCH))


def _times(operator: sparse.csr_array, planes: np.ndarray) -> np.ndarray:
    """Applies the operator to each of the slices [N, Y, X]; float32 [N, H * W]."""
    columns = planes.reshape(len(planes), operator.shape[1]).T.astype(np.float32, order="C")
    return np.ascontiguousarray(operator.dot(columns).T)
