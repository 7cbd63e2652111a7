"""What it takes to mend a predicted organ by hand: added path length and slices to touch.

A planner corrects contours slice by slice, and draws anew what is off. Added path length is the
length of the true contour that the predicted one does not already give (Vaassen et al., Evaluation
of measures for assessing time-saving of automatic organ-at-risk segmentation in radiotherapy,
Physics and Imaging in Radiation Oncology 13, 2020): of all scores they tried it went best with the
time that correcting took. docs/metrics.md gives the definitions.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from segthor.boxes import nonzero_box
from segthor.metrics import TOLERANCE_SLACK_MM


@dataclass(frozen=True)
class Effort:
    """One organ in one patient.

    added_path_mm: length of the true contour farther from the predicted one than the tolerance.
    slices_to_touch: slices with a piece of either contour that is farther from the other one.
    """

    added_path_mm: float
    slices_to_touch: int


def measure(
    predicted: np.ndarray,
    truth: np.ndarray,
    spacing_mm: tuple[float, float, float],
    tolerances_mm: Mapping[int, float],
) -> dict[int, Effort]:
    """Label to effort, in the order of `tolerances_mm`.

    Args:
      predicted, truth: Integer label maps [Z, Y, X], z across the axial slices.
      spacing_mm: Of z, y, x.
      tolerances_mm: Label, never 0, to how far a contour may be off and still be left alone.
    """
    pixel_mm = tuple(spacing_mm[1:])
    # With room for the widest tolerance around, no step from a contour leaves its own slice.
    room = [math.floor(_limit(max(tolerances_mm.values(), default=0)) / mm) + 1 for mm in pixel_mm]
    box = nonzero_box((predicted != 0) | (truth != 0))
    margins = [(0, 0), *((pixels, pixels) for pixels in room)]
    padded = (np.pad(label_map[box], margins) for label_map in (predicted, truth))
    contours = [_contours(np.ascontiguousarray(label_map)) for label_map in padded]
    points = [np.flatnonzero(contour) for contour in contours]
    values = [contour.ravel()[found] for contour, found in zip(contours, points, strict=True)]
    slice_px = contours[0].shape[1] * contours[0].shape[2]
    efforts = {}
    for label, tolerance_mm in tolerances_mm.items():
        steps = _steps(tolerance_mm, pixel_mm, contours[0].shape[2])
        drawn, true = (found[own == label] for found, own in zip(points, values, strict=True))
        superfluous = _beyond(drawn, contours[1], label, steps)
        missing = _beyond(true, contours[0], label, steps)
        touched = np.unique(np.concatenate([superfluous, missing]) // slice_px)
        efforts[label] = Effort(len(missing) * sum(pixel_mm) / 2, len(touched))
    return efforts


def _contours(labels: np.ndarray) -> np.ndarray:
    """The label map [Z, Y, X], empty at its border, without what lies inside the organs.

    A pixel of a contour has one of its four neighbours in the slice outside of its organ.
    """
    voxels = np.flatnonzero(labels)
    flat = labels.ravel()
    values = flat[voxels]
    inside = np.ones(len(voxels), bool)
    for step in (-labels.shape[2], -1, 1, labels.shape[2]):
        inside &= flat[voxels + step] == values
    flat[voxels[inside]] = 0
    return labels


def _steps(tolerance_mm: float, pixel_mm, row_px: int) -> np.ndarray:
    """Steps in a flat label map to all pixels within the tolerance, nearest first."""
    limit = _limit(tolerance_mm)
    rows, columns = (np.arange(-(limit // mm), limit // mm + 1) for mm in pixel_mm)
    distances = np.hypot(rows[:, None] * pixel_mm[0], columns * pixel_mm[1])
    steps = (rows[:, None] * row_px + columns).astype(np.int64)
    within = distances <= limit
    return steps[within][np.argsort(distances[within], kind="stable")]


def _beyond(points: np.ndarray, contours: np.ndarray, label: int, steps) -> np.ndarray:
    """Those of the points that no step leads to the label's contour in the other map."""
    flat = contours.ravel()
    for step in steps:
        points = points[flat[points + step] != label]
    return points


def _limit(tolerance_mm: float) -> float:
    return tolerance_mm + TOLERANCE_SLACK_MM
