"""Boxes in volumes: where something lies, as one slice per axis. Numpy only.

A box is found once and handed on: looking for it reads the whole volume.
"""

import numpy as np

Box = tuple[slice, slice, slice]


def label_boxes(labels: np.ndarray) -> dict[int, Box]:
    """The bounding box of every value above 0 in a volume of whole numbers up to 63, by value."""
    outer = nonzero_box(labels)
    inner = labels[outer]
    highest = int(inner.max(initial=0))
    # One bit per value: a single look at the volume places them all.
    kind = np.uint8 if highest < 8 else np.uint64
    bits = np.left_shift(kind(1), inner, dtype=kind, casting="unsafe")
    flat = [np.bitwise_or.reduce(bits, axis=axis) for axis in (1, 0)]  # [a, c], [b, c]
    boxes = {}
    for value in range(1, highest + 1):
        over_middle, over_first = (np.bitwise_and(plane, kind(1) << kind(value)) for plane in flat)
        if over_middle.any():
            profiles = over_middle.T, over_first.T, over_first
            parts = [support(profile) for profile in profiles]
            boxes[value] = tuple(
                slice(low.start + part.start, low.start + part.stop)
                for part, low in zip(parts, outer, strict=True)
            )
    return boxes


def nonzero_box(volume: np.ndarray) -> Box:
    """The box about all that is not 0 in a volume of whole numbers; empty where all is."""
    # Slowest in memory first and all forward, as numpy's loops are fastest.
    order = np.argsort([-abs(stride) for stride in volume.strides])
    backward = [volume.strides[axis] < 0 for axis in order]
    steps = tuple(slice(None, None, -1 if back else 1) for back in backward)
    ordered = volume.transpose(order)[steps]
    flat = np.bitwise_or.reduce(ordered, axis=1)
    first, last = support(flat.T), support(flat)
    middle = support(np.bitwise_or.reduce(ordered[first, :, last], axis=0).T)
    box = [
        slice(length - part.stop, length - part.start) if back and part.stop else part
        for part, back, length in zip((first, middle, last), backward, ordered.shape, strict=True)
    ]
    return tuple(box[axis] for axis in np.argsort(order))


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
