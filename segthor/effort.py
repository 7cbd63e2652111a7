"""The effort of correcting a predicted organ by hand: added path length and slices to touch.

A planner corrects contours slice by slice, and redraws what is wrong. Added path length is the
length of the true contour that is missing in the predicted one (Vaassen et al., Evaluation of
measures for assessing time-saving of automatic organ-at-risk segmentation in radiotherapy, Physics
and Imaging in Radiation Oncology 13, 2020): of all scores in that study it correlated best with the
time for correction. docs/metrics.md gives the definitions.

Parts of a contour whose only outer neighbours are voxels that are not annotated never count as
wrong.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from segthor.metrics import TOLERANCE_SLACK_MM, crop


@dataclass(frozen=True)
class Effort:
    """The effort for one organ in one patient.

    added_path_mm: Length of the true contour that is farther from the predicted contour than the
      tolerance.
    slices_to_touch: Number of slices in which a part of either contour is farther from the other
      than the tolerance.
    """

    added_path_mm: float
    slices_to_touch: int


def measure(
    predicted: np.ndarray,
    truth: np.ndarray,
    spacing_mm: tuple[float, float, float],
    tolerances_mm: Mapping[int, float],
    left_out: np.ndarray | None = None,
) -> dict[int, Effort]:
    """Measures the effort for each label.

    predicted, truth: Integer label maps [Z, Y, X] of axial slices. spacing_mm: Along z, y, x.
    tolerances_mm: Label, never 0, to the largest distance that needs no correction.
    left_out: bool [Z, Y, X], voxels that are not annotated; they belong to no organ.
    """
    pixel_mm = tuple(spacing_mm[1:])
    # Wider than the widest tolerance, so that no step from a contour leaves its slice.
    widest_mm = _limit(max(tolerances_mm.values(), default=0))
    margins_px = [0, *(math.floor(widest_mm / mm) + 1 for mm in pixel_mm)]
    *padded, left_out, _ = crop(predicted, truth, left_out, margins_px)
    contours, points = zip(*(_contours(one, left_out) for one in padded), strict=True)
    values = [contour.ravel()[index] for contour, index in zip(contours, points, strict=True)]
    _, num_rows, row_px = contours[0].shape
    efforts = {}
    for label, tolerance_mm in tolerances_mm.items():
        steps = _steps(tolerance_mm, pixel_mm, row_px)
        drawn, true = (index[own == label] for index, own in zip(points, values, strict=True))
        superfluous = _beyond(drawn, contours[1], label, steps)
        missing = _beyond(true, contours[0], label, steps)
        touched = np.unique(np.concatenate([superfluous, missing]) // (num_rows * row_px))
        efforts[label] = Effort(len(missing) * sum(pixel_mm) / 2, len(touched))
    return efforts


def _contours(labels: np.ndarray, left_out) -> tuple[np.ndarray, np.ndarray]:
    """Removes the interior of organs from a label map [Z, Y, X] with an empty border, in place.

    A pixel belongs to the contour if one of its four neighbours in the slice is outside its organ.

    Returns:
      The label map, and the flat indices of contour pixels with such a neighbour that is not left
      out.
    """
    voxels = np.flatnonzero(labels)
    flat = labels.ravel()
    values = flat[voxels]
    on_contour, counted = np.zeros((2, len(voxels)), bool)
    for step in (-labels.shape[2], -1, 1, labels.shape[2]):
        beyond = flat[voxels + step] != values
        on_contour |= beyond
        counted |= beyond if left_out is None else beyond & ~left_out.ravel()[voxels + step]
    flat[voxels[~on_contour]] = 0
    return labels, voxels[counted]


def _steps(tolerance_mm: float, pixel_mm, row_px: int) -> np.ndarray:
    """Steps in a flat label map to all pixels of the slice within the tolerance, nearest first."""
    limit = _limit(tolerance_mm)
    rows, columns = (np.arange(-(limit // mm), limit // mm + 1) for mm in pixel_mm)
    distances = np.hypot(rows[:, None] * pixel_mm[0], columns * pixel_mm[1])
    steps = (rows[:, None] * row_px + columns).astype(np.int64)
    within = distances <= limit
    return steps[within][np.argsort(distances[within], kind="stable")]


def _beyond(points: np.ndarray, contours: np.ndarray, label: int, steps) -> np.ndarray:
    """The points from which no step reaches the label's contour in the other map."""
    flat = contours.ravel()
    for step in steps:
        points = points[flat[points + step] != label]
    return points


def _limit(tolerance_mm: float) -> float:
    return tolerance_mm + TOLERANCE_SLACK_MM
