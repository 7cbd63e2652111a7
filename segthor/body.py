"""Where the patient is in a scan: the centre that the box is laid about. Numpy and scipy only."""

import numpy as np
from scipy import ndimage

from segthor.boxes import Box, around

TISSUE_HU = -400  # lung and air below, fat and all else above


def body_center_px(zyx: np.ndarray, spacing_zyx_mm) -> tuple[float, float] | None:
    """The in-plane (row, column) centre of the body in a HU volume [Z, Y, X].

    The body of a slice is its largest piece of tissue after thin things (couch, tubes) are opened
    away; its box's centre is taken, and the median over slices, so neither couch nor arms decide.
    None where no slice shows tissue.
    """
    steps = [
        max(1, round(mm / spacing)) for mm, spacing in zip((9, 4, 4), spacing_zyx_mm, strict=True)
    ]
    tissue = zyx[:: steps[0], :: steps[1], :: steps[2]] > TISSUE_HU
    radius = max(1, round(8 / (steps[1] * spacing_zyx_mm[1])))
    in_plane = np.zeros((3, 3, 3), bool)
    in_plane[1] = ndimage.generate_binary_structure(2, 1)
    pieces, count = ndimage.label(_opened(tissue, radius), in_plane)
    if not count:
        return None
    sizes = np.bincount(pieces.ravel())[1:]
    largest = {}  # of each slice: (size, centre of its box, doubled)
    for size, (z, rows, columns) in zip(sizes, ndimage.find_objects(pieces), strict=True):
        center = rows.start + rows.stop - 1, columns.start + columns.stop - 1
        largest[z.start] = max(largest.get(z.start, (0, center)), (size, center))
    areas = np.array([size for size, _ in largest.values()])
    centers = np.array([center for _, center in largest.values()])
    keep = areas >= areas.max() / 4  # leaves out slices that only graze the body
    row, column = np.median(centers[keep], axis=0) / 2
    return float(row * steps[1]), float(column * steps[2])


def _opened(masks: np.ndarray, radius: int) -> np.ndarray:
    """Opening of each slice [Z, Y, X] by a diamond; what lies beyond the border is empty."""
    for _ in range(radius):
        masks = _with_neighbours(masks, np.logical_and)
        masks[:, [0, -1]] = masks[:, :, [0, -1]] = False
    for _ in range(radius):
        masks = _with_neighbours(masks, np.logical_or)
    return masks


def _with_neighbours(masks: np.ndarray, combine) -> np.ndarray:
    result = masks.copy(order="C")
    for target, source in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
        combine(result[:, target], masks[:, source], out=result[:, target])
        combine(result[:, :, target], masks[:, :, source], out=result[:, :, target])
    return result


def organ_center_px(boxes: dict[int, Box], label_values) -> tuple[float, float] | None:
    """The in-plane (row, column) centre of the box about the given labels; None where absent.

    boxes: Of each label that is there.
    """
    held = [boxes[value] for value in label_values if value in boxes]
    if not held:
        return None
    _, rows, columns = around(held)
    return (rows.start + rows.stop - 1) / 2, (columns.start + columns.stop - 1) / 2
