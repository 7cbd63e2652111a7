"""Scores of a label map against a reference, in millimetres and cubic centimetres.

All distances of an organ use the same definition. The surface of a mask consists of its voxels with
at least one of the six face neighbours outside the mask, or outside the array. Distances are
measured between voxel centres. docs/metrics.md gives each formula, its source, and the libraries
with the same definition.

Empty masks:

  both are empty   the scores of equal masks: Dice 1, distances 0
  one is empty     Dice and surface Dice 0, every distance infinite (`None` in `as_dict`, since JSON
                   has no infinity); segthor.statistics leaves such values out and counts them

Voxels that are not annotated (`left_out`) belong to no mask. Surface voxels whose only outer
neighbours they are do not count as surface, since the organ may continue there, but distances are
still measured to them. A mask without other surface voxels keeps its whole surface.

On planes at uneven steps, volumes, Dice, means and shares of the surface weigh each voxel by the
thickness of its plane. The 95th percentile is the smallest distance that at least 95 % of the
surface does not exceed.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from segthor import statistics
from segthor.boxes import MemoryOrder, nonzero_box
from segthor.errors import InputError
from segthor.planes import Lattice, Planes

TOLERANCES_MM = (1.0, 2.0, 3.0)

# Spacing from an oblique float32 affine has an error in its seventh digit. Without slack, a voxel
# at 1 mm would be within 1 mm in one scan and not in another.
TOLERANCE_SLACK_MM = 1e-4

# With more (point, target) pairs per voxel of the box than this, a distance transform of the box is
# faster than the worst case of a k-d tree (all targets equally far). Both give the same result.
_PAIRS_PER_VOXEL = 64


@dataclasses.dataclass(frozen=True)
class OrganScore:
    """The scores of one organ in one patient.

    dice: Volume Dice, 0 to 1.
    hausdorff_mm: Largest distance between the surfaces.
    hausdorff95_mm: The larger of the two directions' 95th percentiles.
    average_hausdorff_mm: The larger of the two directions' mean distances between masks.
    mean_surface_distance_mm: Mean distance between the surfaces, over both directions.
    surface_dice_1mm, surface_dice_2mm, surface_dice_3mm: Share of both surfaces within 1, 2 or 3 mm
      of the other.
    predicted_cm3: Predicted volume.
    truth_cm3: True volume.
    difference_cm3: Predicted minus true volume.
    """

    dice: float
    hausdorff_mm: float
    hausdorff95_mm: float
    average_hausdorff_mm: float
    mean_surface_distance_mm: float
    surface_dice_1mm: float
    surface_dice_2mm: float
    surface_dice_3mm: float
    predicted_cm3: float
    truth_cm3: float
    difference_cm3: float

    def as_dict(self) -> dict[str, float | None]:
        """Name to score, with None for infinity, for JSON and CSV."""
        scores = dataclasses.asdict(self)
        return {name: value if math.isfinite(value) else None for name, value in scores.items()}


SCORES = tuple(field.name for field in dataclasses.fields(OrganScore))


def score(
    predicted: np.ndarray,
    truth: np.ndarray,
    spacing_mm: Sequence[float],
    labels: Iterable[int],
    left_out: np.ndarray | None = None,
    planes: Planes | None = None,
) -> dict[int, OrganScore]:
    """Scores each organ of a label map against the reference on the same grid.

    Returns label to score, in the order of `labels`. Raises InputError for other arguments.

    Args:
      predicted, truth: Integer label maps of one shape, [Z, Y, X] or in any other order of axes.
      spacing_mm: Distance between neighbouring voxels along each axis (`Volume.spacing_mm`).
      labels: The label values to score, never 0.
      left_out: bool of this shape, voxels that are not annotated; None where there are none.
      planes: The planes along the first axis at uneven steps; None at even steps.
    """
    labels = tuple(labels)
    predicted, truth, spacing_mm = _check_arguments(predicted, truth, spacing_mm, labels)
    order = MemoryOrder.of(truth)
    left_out = left_out if left_out is None else order.view(left_out)
    *pair, left_out, box = crop(order.view(predicted), order.view(truth), left_out, (1, 1, 1))
    lattice = Lattice.of(spacing_mm, planes, order, box)
    masks = _masks(*pair, labels, left_out)
    return {label: _score_organ(*both, lattice) for label, both in zip(labels, masks, strict=True)}


def _masks(predicted, truth, labels, left_out):
    """Yields the masks of each label in the predicted and in the true label map."""
    voxels = _by_label(predicted, labels), _by_label(truth, labels)
    for label, drawn, true in zip(labels, *voxels, strict=True):
        mask = _mask(predicted, truth, drawn, label, left_out)
        yield mask, _mask(truth, predicted, true, label, left_out)


def crop(predicted, truth, left_out, margins_px):
    """The arrays, cut to the organs' box with a margin of background, and the box.

    With a margin of one voxel every voxel of an organ has six neighbours. margins_px: Width of the
    margin along each axis.
    """
    predicted, truth = without(left_out, predicted), without(left_out, truth)
    box = nonzero_box((predicted != 0) | (truth != 0))
    widths = [(margin, margin) for margin in margins_px]
    predicted, truth = (
        np.ascontiguousarray(np.pad(one[box], widths)) for one in (predicted, truth)
    )
    if left_out is not None:
        parts = zip(box, margins_px, strict=True)
        wider = tuple(slice(part.start, part.stop + 2 * margin) for part, margin in parts)
        left_out = np.pad(left_out, widths)[wider]
    return predicted, truth, left_out, box


def without(left_out: np.ndarray | None, labels: np.ndarray) -> np.ndarray:
    """The label map with background at the voxels of `left_out`; unchanged where that is None."""
    return labels if left_out is None else np.where(left_out, labels.dtype.type(0), labels)


def dice_from_counts(intersection, predicted, truth):
    """Dice from voxel counts of a whole volume; 1 where both masks are empty.

    Args:
      intersection, predicted, truth: Counts; numbers or arrays of one shape.

    Returns:
      2 * intersection / (predicted + truth), float64, of this shape.
    """
    total = np.asarray(predicted, np.float64) + truth
    intersection = np.asarray(intersection, np.float64)
    return np.divide(2 * intersection, total, out=np.ones_like(total), where=total > 0)[()]


class _Mask(NamedTuple):
    """The N voxels of one organ in one of two label maps.

    index: int32 [N, 3].
    on_surface: bool [N].
    counted: bool [N], surface voxels with an outer neighbour that is not left out.
    outside: bool [N], voxels that do not belong to the organ in the other label map.
    """

    index: np.ndarray
    on_surface: np.ndarray
    counted: np.ndarray
    outside: np.ndarray


def _score_organ(mask: _Mask, truth_mask: _Mask, lattice: Lattice) -> OrganScore:
    predicted, truth = (_size(lattice, one.index) for one in (mask, truth_mask))
    intersection = predicted - _size(lattice, mask.index[mask.outside])
    voxel_cm3 = math.prod(lattice.spacing_mm) / 1000
    return OrganScore(
        float(dice_from_counts(intersection, predicted, truth)),
        *_distance_scores(mask, truth_mask, lattice),
        predicted_cm3=predicted * voxel_cm3,
        truth_cm3=truth * voxel_cm3,
        difference_cm3=(predicted - truth) * voxel_cm3,
    )


def _size(lattice: Lattice, index: np.ndarray) -> float:
    """Number of voxels, weighted by the thickness of their planes."""
    weights = lattice.weights(index)
    return len(index) if weights is None else float(weights.sum())


def _by_label(label_map, labels) -> list[np.ndarray]:
    """Flat indices of each label's voxels, ascending, from one pass over the label map."""
    # Lists of voxels, not bounding boxes, because a single distant voxel makes a box large.
    voxels = np.flatnonzero(label_map)
    values = label_map.ravel()[voxels]
    if values.dtype.itemsize > 1 and 0 <= values.min(initial=0) <= values.max(initial=0) < 256:
        values = values.astype(np.uint8)  # numpy sorts these by counting (radix sort)
    order = np.argsort(values, kind="stable")
    sorted_values = values[order]
    ends = [np.searchsorted(sorted_values, labels, side) for side in ("left", "right")]
    return [voxels[order[first:last]] for first, last in zip(*ends, strict=True)]


def _mask(own, other, voxels, label, left_out=None) -> _Mask:
    on_surface, counted = np.zeros((2, len(voxels)), bool)
    for step in (own.shape[1] * own.shape[2], own.shape[2], 1):
        for neighbour in (voxels - step, voxels + step):
            outer = own.ravel()[neighbour] != label
            on_surface |= outer
            if left_out is not None:
                counted |= outer & ~left_out.ravel()[neighbour]
    if not counted.any():
        counted = on_surface
    index = np.stack(np.unravel_index(voxels, own.shape), axis=1, dtype=np.int32, casting="unsafe")
    return _Mask(index, on_surface, counted, other.ravel()[voxels] != label)


def _distance_scores(predicted: _Mask, truth: _Mask, lattice: Lattice) -> tuple[float, ...]:
    """The scores from `hausdorff_mm` to `surface_dice_3mm`, in the order of OrganScore."""
    if not len(predicted.index) or not len(truth.index):
        equal = len(predicted.index) == len(truth.index)
        return (0.0 if equal else math.inf,) * 4 + (float(equal),) * len(TOLERANCES_MM)
    to_truth, to_weights, mean_to_truth = _directed(predicted, truth, lattice)
    to_predicted, back_weights, mean_to_predicted = _directed(truth, predicted, lattice)
    both = np.concatenate([to_truth, to_predicted])
    weights = None if to_weights is None else np.concatenate([to_weights, back_weights])
    return (
        float(both.max()),
        max(
            statistics.percentile95(to_truth, to_weights),
            statistics.percentile95(to_predicted, back_weights),
        ),
        max(mean_to_truth, mean_to_predicted),
        statistics.mean(both, weights),
        *(statistics.mean(both <= limit + TOLERANCE_SLACK_MM, weights) for limit in TOLERANCES_MM),
    )


def _directed(mask: _Mask, target: _Mask, lattice) -> tuple[np.ndarray, np.ndarray | None, float]:
    """Distances in mm from one mask to another.

    Returns:
      The distance of each counted voxel to the other surface, the weights of these voxels, and the
      mean distance of all voxels to the other mask, which is 0 for voxels inside it.
    """
    # Outside of a mask, its nearest voxel is on its surface. One search for the nearest surface
    # voxel therefore gives both results.
    searched = mask.counted | mask.outside
    distances = _nearest_mm(mask.index[searched], target.index[target.on_surface], lattice)
    outside = distances[mask.outside[searched]]
    weights = lattice.weights(mask.index[mask.outside])
    total = (outside if weights is None else outside * weights).sum()
    counted = lattice.weights(mask.index[mask.counted])
    return distances[mask.counted[searched]], counted, float(total / _size(lattice, mask.index))


def _nearest_mm(points, targets, lattice: Lattice) -> np.ndarray:
    """Distance in mm of each point [N, 3] to the nearest target [M, 3]; both are voxel indices."""
    low = np.minimum(points.min(axis=0), targets.min(axis=0))
    shape = np.maximum(points.max(axis=0), targets.max(axis=0)) - low + 1
    is_small = len(points) * len(targets) < _PAIRS_PER_VOXEL * math.prod(shape.tolist())
    # A distance transform assumes even steps along each axis.
    if is_small or lattice.axis is not None:
        return KDTree(lattice.points_mm(targets)).query(lattice.points_mm(points))[0]
    free = np.ones(shape, bool)
    free[tuple((targets - low).T)] = False
    nearest = ndimage.distance_transform_edt(
        free, sampling=lattice.spacing_mm, return_distances=False, return_indices=True
    )
    index = points - low
    return np.linalg.norm((nearest[(slice(None), *index.T)].T - index) * lattice.spacing_mm, axis=1)


def _check_arguments(predicted, truth, spacing_mm, labels):
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    for name, label_map in (("predicted", predicted), ("truth", truth)):
        if label_map.ndim != 3 or label_map.dtype.kind not in "biu":
            raise InputError(
                f"{name}: expected a label map [Z, Y, X] of integers, "
                f"found {label_map.dtype} of shape {label_map.shape}"
            )
    if predicted.shape != truth.shape:
        raise InputError(
            f"predicted and truth: expected one shape, found {predicted.shape} and {truth.shape}; "
            "score them on the same grid"
        )
    spacing = np.asarray(spacing_mm, np.float64)
    if spacing.shape != (3,) or not np.all(np.isfinite(spacing)) or np.any(spacing <= 0):
        raise InputError(f"spacing_mm: expected three positive lengths, found {spacing_mm}")
    if 0 in labels:
        raise InputError(f"labels: expected organs, found {labels}; 0 is the background")
    return predicted, truth, tuple(spacing.tolist())
