"""The in-plane centre of the patient's body, or of organs, in a scan. Numpy and scipy only."""

import numpy as np
from scipy import ndimage

from segthor.boxes import Box, around
from segthor.planes import Planes

_EVERY_MM = 9  # distance between the slices that are examined
TISSUE_HU = -400  # lung and air are below, fat and other tissue above


def body_center_px(
    zyx: np.ndarray, spacing_zyx_mm, planes: Planes | None = None
) -> tuple[float, float] | None:
    """The in-plane (row, column) centre of the body in a HU volume [Z, Y, X].

    In each slice the body is the largest component of tissue, after a morphological opening that
    removes thin objects (couch, tubes). The result is the median over slices of the centres of its
    bounding boxes, so neither couch nor arms matter. None where no slice shows tissue.

    planes: The planes at uneven steps; None at even steps. Slices are then chosen by position, so
      that missing slices do not move the centre.
    """
    steps = [
        max(1, round(mm / spacing))
        for mm, spacing in zip((_EVERY_MM, 4, 4), spacing_zyx_mm, strict=True)
    ]
    chosen = zyx[:: steps[0]] if planes is None else zyx[planes.choose_every(_EVERY_MM)]
    tissue = chosen[:, :: steps[1], :: steps[2]] > TISSUE_HU
    radius = max(1, round(8 / (steps[1] * spacing_zyx_mm[1])))
    largest = _largest_pieces(_open(tissue, radius))
    if not largest:
        return None
    areas = np.array([size for size, _ in largest])
    centers = np.array([center for _, center in largest])
    keep = areas >= areas.max() / 4  # without slices at the ends of the body
    row, column = np.median(centers[keep], axis=0) / 2
    return float(row * steps[1]), float(column * steps[2])


def _largest_pieces(masks: np.ndarray) -> list[tuple[int, tuple[int, int]]]:
    """(pixels, doubled centre of the bounding box) of the largest piece of each slice with any."""
    in_plane = np.zeros((3, 3, 3), bool)
    in_plane[1] = ndimage.generate_binary_structure(2, 1)
    pieces, _ = ndimage.label(masks, in_plane)
    sizes = np.bincount(pieces.ravel())[1:]
    largest = {}
    for size, (z, rows, columns) in zip(sizes, ndimage.find_objects(pieces), strict=True):
        center = rows.start + rows.stop - 1, columns.start + columns.stop - 1
        largest[z.start] = max(largest.get(z.start, (0, center)), (size, center))
    return list(largest.values())


def _open(masks: np.ndarray, radius: int) -> np.ndarray:
    """Opens each slice of [Z, Y, X] with a diamond; pixels beyond the border count as empty."""
    # As `ndimage.binary_opening`, which takes ten times as long.
    for _ in range(radius):
        masks = _combine_neighbours(masks, np.logical_and)
        masks[:, [0, -1]] = masks[:, :, [0, -1]] = False
    for _ in range(radius):
        masks = _combine_neighbours(masks, np.logical_or)
    return masks


def _combine_neighbours(masks: np.ndarray, combine) -> np.ndarray:
    """Combines each pixel with its four neighbours in the slice."""
    result = masks.copy(order="C")
    for target, source in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
        combine(result[:, target], masks[:, source], out=result[:, target])
        combine(result[:, :, target], masks[:, :, source], out=result[:, :, target])
    return result


def organ_center_px(boxes: dict[int, Box], label_values) -> tuple[float, float] | None:
    """The in-plane (row, column) centre of the box about some labels; None if none is present.

    boxes: Bounding box of each label that is present.
    """
    present = [boxes[value] for value in label_values if value in boxes]
    if not present:
        return None
    _, rows, columns = around(present)
    return (rows.start + rows.stop - 1) / 2, (columns.start + columns.stop - 1) / 2
