"""Boxes in volumes: where something lies, as one slice per axis. Numpy and scipy only.

A box is found once and handed on: looking for it reads the whole volume.
"""

import numpy as np
from scipy import ndimage

Box = tuple[slice, slice, slice]


def label_boxes(labels: np.ndarray) -> dict[int, Box]:
    """The bounding box of every value above 0 in a volume of whole numbers, by value.

    One look at the labelled part places them all, however many there are.
    """
    outer = nonzero_box(labels)
    inner, order = labels[outer], _memory_order(labels)
    if not inner.size:
        return {}
    found = ndimage.find_objects(inner.transpose(order))
    back = np.argsort(order)
    return {
        value: tuple(
            slice(low.start + box[axis].start, low.start + box[axis].stop)
            for axis, low in zip(back, outer, strict=True)
        )
        for value, box in enumerate(found, 1)
        if box
    }


def nonzero_box(volume: np.ndarray) -> Box:
    """The box about all that is not 0 in a volume of whole numbers; empty where all is."""
    order = _memory_order(volume)  # and all forward
    backward = [volume.strides[axis] < 0 for axis in order]
    steps = tuple(slice(None, None, -1 if back else 1) for back in backward)
    ordered = volume.transpose(order)[steps]
    # Whole planes at once are read as fast as memory gives them; then only the part that holds it.
    plane = np.bitwise_or.reduce(ordered, axis=0)
    middle, last = support(plane.T), support(plane)
    first = support(np.bitwise_or.reduce(ordered[:, middle, last], axis=1).T)
    box = [
        slice(length - part.stop, length - part.start) if back and part.stop else part
        for part, back, length in zip((first, middle, last), backward, ordered.shape, strict=True)
    ]
    return tuple(box[axis] for axis in np.argsort(order))


def _memory_order(volume: np.ndarray) -> np.ndarray:
    """The axes, the slowest in memory first: loops over a volume are fastest so."""
    return np.argsort([-abs(stride) for stride in volume.strides])


def around(boxes) -> Box:
    """The smallest box about some boxes; empty where there are none."""
    boxes = list(boxes)
    if not boxes:
        return (slice(0, 0),) * 3
    return tuple(
        slice(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*boxes, strict=True)
    )


def with_margin(box, margin_px, shape) -> tuple[slice, ...]:
    """The box grown by `margin_px` along each axis at either end, and cut off at the border.

    margin_px: need not be whole; where it is not, both ends are rounded down.
    """
    return tuple(
        slice(
            max(int(np.floor(part.start - margin)), 0),
            min(int(np.floor(part.stop - 1 + margin)) + 1, length),
        )
        for part, margin, length in zip(box, margin_px, shape, strict=True)
    )


def support(weights: np.ndarray) -> slice:
    """From the first to the last column of a matrix that is not all 0; empty where all are."""
    used = np.flatnonzero(weights.any(0))
    return slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)
