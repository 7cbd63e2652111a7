"""Pictures of an evaluation: predicted and true contours on slices of the CT."""

import numpy as np

from segthor import drawing
from segthor.boxes import nonzero_box, with_margin
from segthor.metrics import without
from segthor.organs import MOST_LABEL
from segthor.volume import LabelMap, Volume

TILE_PX = 300
_MARGIN_MM = 30


def tiles(
    patient: str, ct: Volume, truth: LabelMap, predicted: LabelMap, names
) -> list[tuple[np.ndarray, str]]:
    """Draws the slice with the lowest Dice and a typical one; returns pictures with captions.

    The typical slice has the median Dice of those that hold most organs.

    truth, predicted: Label maps on the CT's grid.
    names: Names of the contoured organs.
    """
    organs, values = truth.organs, truth.organs.labels(names)
    true, drawn = (np.where(np.isin(one.zyx, values), one.zyx, 0) for one in (truth, predicted))
    dice = slice_dice(true, without(truth.left_out, drawn), values)
    filled = np.flatnonzero(~np.isnan(dice))
    if not len(filled):
        return []
    order = filled[np.argsort(dice[filled], kind="stable")]
    held = np.sum([((true == v) | (drawn == v)).any((1, 2)) for v in values], axis=0)
    fullest = order[held[order] == held.max()]
    margins_px = [_MARGIN_MM / mm for mm in ct.spacing_mm]
    plane = with_margin(nonzero_box(true | drawn), margins_px, true.shape)[1:]
    pictures = []
    for word, z in (("worst", order[0]), ("typical", fullest[len(fullest) // 2])):
        image, *maps = (one[(z, *plane)] for one in (ct.zyx, true, drawn))
        scale = max(1, round(TILE_PX / max(image.shape)))
        picture = drawing.overlay(drawing.mediastinum(image), *maps, scale, organs=organs)
        caption = f"{patient}, {word} slice {z + 1} of {len(ct.zyx)}, Dice {dice[z]:.2f}"
        pictures.append((picture, caption))
    return pictures


def slice_dice(truth, predicted, values) -> np.ndarray:
    """Dice of each slice, float [Z]: mean over the organs that it holds; NaN where it holds none.

    truth, predicted: uint8 [Z, Y, X].
    values: Label values of the organs.
    """
    both = _counts(np.where(truth == predicted, truth, 0), values)
    total = _counts(truth, values) + _counts(predicted, values)
    rows = np.where(total > 0, 2 * both / np.maximum(total, 1), np.nan)
    known = ~np.isnan(rows)
    count = known.sum(0)
    return np.where(count > 0, np.where(known, rows, 0).sum(0) / np.maximum(count, 1), np.nan)


def _counts(labels: np.ndarray, values) -> np.ndarray:
    """Counts the voxels of each value in each slice of [Z, Y, X]: int [K, Z]."""
    rows, columns = nonzero_box(labels)[1:]
    planes = labels[:, rows, columns]
    counts = [np.bincount(plane.ravel(), minlength=1 + MOST_LABEL) for plane in planes]
    return np.array(counts)[:, list(values)].T
