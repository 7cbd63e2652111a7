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
from segthor.metrics import TOLERANCE_SLACK_MM, without


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
    left_out: np.ndarray | None = None,
) -> dict[int, Effort]:
    """Label to effort, in the order of `tolerances_mm`.

    Args:
      predicted, truth: Integer label maps [Z, Y, X], z across the axial slices.
      spacing_mm: Of z, y, x.
      tolerances_mm: Label, never 0, to how far a contour may be off and still be left alone.
      left_out: bool [Z, Y, X], voxels that are not annotated; they belong to no organ, and where a
        contour lies beside them alone, nothing of it counts as missing or superfluous.
    """
    if left_out is not None:
        predicted, truth = without(left_out, predicted), without(left_out, truth)
    pixel_mm = tuple(spacing_mm[1:])
    # With room for the widest tolerance around, no step from a contour leaves its own slice.
    room = [math.floor(_limit(max(tolerances_mm.values(), default=0)) / mm) + 1 for mm in pixel_mm]
    box = nonzero_box((predicted != 0) | (truth != 0))
    margins = [(0, 0), *((pixels, pixels) for pixels in room)]
    padded = (np.pad(label_map[box], margins) for label_map in (predicted, truth))
    if left_out is not None:
        around = zip(box, margins, strict=True)
        wider = tuple(slice(part.start, part.stop + 2 * margin) for part, (margin, _) in around)
        left_out = np.pad(left_out, margins)[wider]
    found = [_contours(np.ascontiguousarray(label_map), left_out) for label_map in padded]
    contours, points = zip(*found, strict=True)
    values = [contour.ravel()[place] for contour, place in zip(contours, points, strict=True)]
    slice_px = contours[0].shape[1] * contours[0].shape[2]
    efforts = {}
    for label, tolerance_mm in tolerances_mm.items():
        steps = _steps(tolerance_mm, pixel_mm, contours[0].shape[2])
        drawn, true = (place[own == label] for place, own in zip(points, values, strict=True))
        superfluous = _beyond(drawn, contours[1], label, steps)
        missing = _beyond(true, contours[0], label, steps)
        touched = np.unique(np.concatenate([superfluous, missing]) // slice_px)
        efforts[label] = Effort(len(missing) * sum(pixel_mm) / 2, len(touched))
    return efforts


def _contours(labels: np.ndarray, left_out) -> tuple[np.ndarray, np.ndarray]:
    """The label map [Z, Y, X], empty at its border, without what lies inside the organs.

    A pixel of a contour has one of its four neighbours in the slice outside of its organ. Also
    returns the flat indices of those for which one of these neighbours is not left out.
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
