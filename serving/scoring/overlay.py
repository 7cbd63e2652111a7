"""The picture of an evaluation: predicted and true contours on the CT."""

import numpy as np

from segthor import drawing, organs
from segthor.geometry import Orientation
from segthor.recipe import window

LEVEL_HU, WIDTH_HU = 40, 400  # the mediastinal window
TILE_PX = 300
_MARGIN_MM = 30


def tiles(patient: str, hu, truth, predicted, grid, names) -> list[tuple[np.ndarray, str]]:
    """(picture, caption) of the slice that scores worst and of the middling one.

    hu, truth, predicted: [X, Y, Z] on `grid`; names: the organs that are contoured.
    """
    orientation = Orientation.of(grid.affine)
    hu, truth, predicted = (orientation.to_zyx(array) for array in (hu, truth, predicted))
    values = [organs.BY_NAME[name].label for name in names]
    predicted = np.where(np.isin(predicted, values), predicted, 0)
    truth = np.where(np.isin(truth, values), truth, 0)
    dice = slice_dice(truth, predicted, values)
    filled = np.flatnonzero(~np.isnan(dice))
    if not len(filled):
        return []
    order = filled[np.argsort(dice[filled], kind="stable")]
    spacing = np.asarray(grid.spacing_mm)[list(orientation.axes)]  # x, y, z
    box = _box((truth | predicted).any(0), _MARGIN_MM / spacing[1], _MARGIN_MM / spacing[0])
    pictures = []
    for word, z in (("worst", order[0]), ("typical", order[len(order) // 2])):
        image = window(hu[z][box], LEVEL_HU, WIDTH_HU)
        scale = max(1, round(TILE_PX / max(image.shape)))
        picture = drawing.overlay(image, truth[z][box], predicted[z][box], scale)
        caption = f"{patient}, {word} slice {z + 1} of {len(hu)}, Dice {dice[z]:.2f}"
        pictures.append((picture, caption))
    return pictures


def slice_dice(truth, predicted, values) -> np.ndarray:
    """[Z] mean Dice over the organs that either map holds in the slice; NaN where there are none.

    truth, predicted: [Z, Y, X].
    """
    rows = []
    for value in values:
        one, other = (truth == value), (predicted == value)
        both = np.count_nonzero(one & other, axis=(1, 2))
        total = np.count_nonzero(one, axis=(1, 2)) + np.count_nonzero(other, axis=(1, 2))
        rows.append(np.where(total > 0, 2 * both / np.maximum(total, 1), np.nan))
    rows = np.array(rows)
    known = ~np.isnan(rows)
    count = known.sum(0)
    return np.where(count > 0, np.where(known, rows, 0).sum(0) / np.maximum(count, 1), np.nan)


def _box(plane: np.ndarray, margin_rows: float, margin_columns: float):
    slices = []
    for axis, margin in ((1, margin_rows), (0, margin_columns)):
        hit = np.flatnonzero(plane.any(axis))
        low = max(int(hit[0] - margin), 0)
        slices.append(slice(low, int(hit[-1] + margin) + 1))
    return tuple(slices)
