"""Bounding boxes in volumes, as one slice per axis. Numpy and scipy only.

Computing a box reads the whole volume, so callers keep and share boxes.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class MemoryOrder:
    """The order of an array's axes in memory; numpy is slow in any other order.

    axes: The axes of the array, that with the largest stride first.
    backward: For each of these, whether its stride is negative.
    """

    axes: tuple[int, ...]
    backward: tuple[bool, ...]

    @classmethod
    def of(cls, array: np.ndarray) -> "MemoryOrder":
        """The order of the array's axes in memory."""
        axes = np.argsort([-abs(stride) for stride in array.strides]).tolist()
        return cls(tuple(axes), tuple(array.strides[axis] < 0 for axis in axes))

    def view(self, array: np.ndarray) -> np.ndarray:
        """The array with its axes in this order and positive strides; a view."""
        return array.transpose(self.axes)[reversing(self.backward)]

    def undo(self, view: np.ndarray) -> np.ndarray:
        """The inverse of `view`; a view."""
        return view[reversing(self.backward)].transpose(np.argsort(self.axes))


def reversing(flags) -> tuple[slice, ...]:
    """Returns the index of an array that reverses each axis with a true flag."""
    return tuple(slice(None, None, -1 if flag else 1) for flag in flags)


def label_boxes(labels: np.ndarray) -> dict[int, Box]:
    """Value to bounding box, for every value above 0 in a volume of integers.

    One pass over the labelled part finds all boxes.
    """
    outer = nonzero_box(labels)
    inner, order = labels[outer], MemoryOrder.of(labels).axes
    if not inner.size:
        return {}
    parts = ndimage.find_objects(inner.transpose(order))
    back = np.argsort(order)
    return {
        value: tuple(
            slice(low.start + box[axis].start, low.start + box[axis].stop)
            for axis, low in zip(back, outer, strict=True)
        )
        for value, box in enumerate(parts, 1)
        if box
    }


def nonzero_box(volume: np.ndarray) -> Box:
    """The bounding box of the values that are not 0 in a volume of integers; empty if all are 0."""
    order = MemoryOrder.of(volume)
    ordered = order.view(volume)
    # The first pass combines whole planes, at the speed of memory; the second reads only the part
    # of each plane that may hold a value.
    plane = np.bitwise_or.reduce(ordered, axis=0)
    middle, last = support(plane.T), support(plane)
    first = support(np.bitwise_or.reduce(ordered[:, middle, last], axis=1).T)
    box = [
        slice(length - part.stop, length - part.start) if back and part.stop else part
        for part, back, length in zip(
            (first, middle, last), order.backward, ordered.shape, strict=True
        )
    ]
    return tuple(box[axis] for axis in np.argsort(order.axes))


def around(boxes) -> Box:
    """The smallest box that contains all boxes; empty where there are none."""
    boxes = list(boxes)
    if not boxes:
        return (slice(0, 0),) * 3
    return tuple(
        slice(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*boxes, strict=True)
    )


def with_margin(box, margin_px, shape) -> tuple[slice, ...]:
    """The box, enlarged by `margin_px` at both ends of each axis and clipped to the shape.

    margin_px: One number per axis; with a fraction, both ends are rounded down.
    """
    return tuple(
        slice(
            max(int(np.floor(part.start - margin)), 0),
            min(int(np.floor(part.stop - 1 + margin)) + 1, length),
        )
        for part, margin, length in zip(box, margin_px, shape, strict=True)
    )


def relative(inner, outer) -> tuple[slice, ...]:
    """A box relative to the first corner of another one."""
    return tuple(
        slice(part.start - origin.start, part.stop - origin.start)
        for part, origin in zip(inner, outer, strict=True)
    )


def support(weights: np.ndarray) -> slice:
    """From the first to the last column of a matrix that has a nonzero value; may be empty."""
    used = np.flatnonzero(weights.any(0))
    return slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)
