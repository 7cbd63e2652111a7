"""Evidence of how good a prediction is, gathered while it is made. Only numpy and scipy.

For each slice, on the network's grid: the probabilities of each model and flip inside each organ
and at its border, and how far models and flips agree. (A calibration is made with single networks,
whose probabilities are higher than averaged ones; so each model and flip is measured and the
measures are averaged.) For the finished label map: pieces, gaps, what post-processing removed, and
each organ's measures compared with those of the training patients. The scan is not read again.
"""

import numpy as np

from segthor.figures import OrganFigures
from segthor.recipe import Prepared
from segthor.reference import Reference, grey_shares, organ_figures
from segthor.resample import largest
from serving.prediction.facts import Change, Evidence

# Columns of the counts of a slice and organ:
#   PIXELS: pixels of the organ, by the most probable class
#   SURE: sum of the organ's probability over these pixels
#   BORDER, BORDER_SURE: the same over the pixels at the organ's border
#   MASS: sum of the organ's probability over all pixels
#   SHARED, EITHER: for each model and flip against their average, summed: pixels of the organ in
#     both, and half the pixels in the one plus half those in the other
PIXELS, SURE, BORDER, BORDER_SURE, MASS, SHARED, EITHER = range(7)
_OUTSIDE = 0.95  # background probability above which a pixel is skipped: no organ is near
_FEWEST_PX = 4  # size below which the shares of a slice are not meaningful
_WEAK, _DISAGREEING = 0.4, 0.3  # loss and disagreement above which a slice is listed
_MOST_SLICES = 5  # listed slices per organ

# The features of the calibration; each is at least 0, and larger values are worse.
OF_ORGAN = (
    "uncertainty",
    "border_uncertainty",
    "expected_loss",
    "weak_share",
    "removed_share",
    "surplus_pieces",
    "gap_share",
    "volume_z",
    "length_z",
    "hu_z",
    "place_z",
)
OF_SCAN = (
    "slice_mm",
    "pixel_mm",
    "length_mm",
    "width_mm",
    "outside_share",
    "level_hu",
    "grey_distance",
)
FEATURES = (*OF_ORGAN, *OF_SCAN)


class Observer:
    """Gathers the evidence of one case while it is predicted.

    slice_counts: Organ to float64 [Z, 7], the counts of each slice, in columns PIXELS to EITHER.
    scan: The evidence of the scan, see `scan_evidence`.
    reference: Measures of the training patients; None: not known.
    """

    def __init__(self, organs, num_slices: int, reference: Reference | None = None, scan=()):
        self.slice_counts = {name: np.zeros((num_slices, 7)) for name in organs}
        self.reference, self.scan = reference, dict(scan)

    @classmethod
    def of_case(cls, organs, prepared: Prepared, reference: Reference | None) -> "Observer":
        """Makes the observer of a prepared case; organs: Names of those that are predicted."""
        scan = scan_evidence(prepared.placement, prepared.level_hu, prepared.images, reference)
        return cls(organs, len(prepared.images), reference, scan)

    def add(self, slices: range, organs, mean: np.ndarray, members: list[np.ndarray]) -> None:
        """Counts pixels and probabilities of some slices.

        slices: Indices of the N slices.
        organs: Names of the classes after the background.
        mean: float32 [N, H, W, K], probabilities averaged over models and flips.
        members: float32 [N, H, W, K] of each model and flip.
        """
        agreed = count_agreement(mean, members)
        for n, z in enumerate(slices):
            counts = sum(_count_pixels(member[n]) for member in members) / len(members)
            for k, name in enumerate(organs, 1):
                self.slice_counts[name][z, :SHARED] = counts[:, k]
                if agreed is not None:
                    self.slice_counts[name][z, SHARED:] = agreed[n, :, k]

    def finish(self, measured: dict[str, OrganFigures], changes: dict[str, Change]) -> Evidence:
        """Returns the evidence of the finished case; {} for an organ that was not found.

        measured: Organ to the figures of the label map.
        changes: Organ to the changes of post-processing.
        """
        figures, result = organ_figures(measured), {}
        for name, counts in self.slice_counts.items():
            row = organ_evidence(counts)
            result[name] = row if name in measured else {}
            if row and name in measured:
                spreads = self.reference.organs.get(name, {}) if self.reference else {}
                slices = np.count_nonzero(counts[:, PIXELS])
                row |= _shape_evidence(measured[name], changes.get(name), slices)
                row |= _training_z_scores(figures[name], spreads)
        return Evidence(self.scan, result)


def _count_pixels(plane: np.ndarray) -> np.ndarray:
    """Counts the pixels of probabilities [H, W, K]: float64 [5, K], rows PIXELS to MASS."""
    number = plane.shape[-1]
    near = np.flatnonzero(plane[..., 0] < _OUTSIDE)
    if not len(near):
        return np.zeros((5, number))
    probabilities = _gather_pixels(plane, near)
    classes, sure = largest(probabilities)
    class_map = np.zeros(plane.shape[:2], np.uint8)
    class_map.flat[near] = classes
    border = _find_border(class_map).flat[near]
    return np.stack(
        [
            np.bincount(classes, minlength=number),
            np.bincount(classes, sure, number),
            np.bincount(classes[border], minlength=number),
            np.bincount(classes[border], sure[border], number),
            probabilities.sum(1, dtype=np.float64),
        ]
    )


def _gather_pixels(plane: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Gathers pixels of probabilities [H, W, K] at flat indices: [K, number of indices]."""
    return np.ascontiguousarray(plane.reshape(-1, plane.shape[-1]).take(indices, 0).T)


def _find_border(class_map: np.ndarray) -> np.ndarray:
    """bool [H, W]: pixels with one of their four neighbours in another class."""
    border = np.zeros(class_map.shape, bool)
    for view, edge in ((class_map, border), (class_map.T, border.T)):
        differs = view[1:] != view[:-1]
        edge[1:] |= differs
        edge[:-1] |= differs
    return border


def count_agreement(mean: np.ndarray, members: list[np.ndarray]) -> np.ndarray | None:
    """Counts how far models and flips agree: float64 [N, 2, K], rows SHARED and EITHER.

    Returns None for a single member.

    mean: float32 [N, H, W, K], probabilities averaged over the members.
    members: float32 [N, H, W, K] of each model and flip.
    """
    if len(members) < 2:
        return None
    result = np.zeros((len(mean), 2, mean.shape[-1]))
    for n, plane in enumerate(mean):
        near = np.flatnonzero(plane[..., 0] < _OUTSIDE)
        (ours, _), number = largest(_gather_pixels(plane, near)), mean.shape[-1]
        for member in members:
            theirs, _ = largest(_gather_pixels(member[n], near))
            result[n, 0] += np.bincount(ours[ours == theirs], minlength=number)
            result[n, 1] += np.bincount(ours, minlength=number) / 2
            result[n, 1] += np.bincount(theirs, minlength=number) / 2
    return result


def organ_evidence(counts: np.ndarray) -> dict:
    """Evidence of an organ from its counts [Z, 7]; {} for an organ without a pixel.

    'disagreement' is 1 minus the Dice of models and flips with their average, None for a single
    one. 'slices' are those to look at first, counted from 1 from the feet.
    """
    total = counts.sum(0)
    if not total[PIXELS]:
        return {}
    present = counts[:, PIXELS] + counts[:, MASS]
    # 1 minus the Dice that is expected if the probabilities are true.
    loss = 1 - 2 * counts[:, SURE] / np.maximum(present, 1e-9)
    apart = 1 - counts[:, SHARED] / np.maximum(counts[:, EITHER], 1e-9)
    seen = present >= 2 * _FEWEST_PX
    weak = seen & (loss > _WEAK)
    disagreeing = (counts[:, EITHER] >= _FEWEST_PX) & (apart > _DISAGREEING)
    worst = np.argsort(-np.where(weak | disagreeing, loss * present, -1), kind="stable")
    worst = [int(z) + 1 for z in worst[:_MOST_SLICES] if weak[z] or disagreeing[z]]
    disagreement = 1 - total[SHARED] / total[EITHER] if total[EITHER] else None
    return {
        "uncertainty": _share(1 - total[SURE] / total[PIXELS]),
        "border_uncertainty": _share(1 - total[BORDER_SURE] / max(1, total[BORDER])),
        "expected_loss": _share(1 - 2 * total[SURE] / (total[PIXELS] + total[MASS])),
        "weak_share": _share(weak.sum() / max(1, seen.sum())),
        "weak_slices": int(weak.sum()),
        "disagreement": disagreement if disagreement is None else _share(disagreement),
        "disagreeing_slices": int(disagreeing.sum()),
        "slices": sorted(worst),
    }


def scan_evidence(
    placement, level_hu: float, images: np.ndarray, reference: Reference | None
) -> dict:
    """Evidence of the scan: name of OF_SCAN to value and z-score; {} without a reference.

    placement: `segthor.geometry.Placement`.
    images: uint8 [Z, H, W], prepared.
    reference: Measures of the training patients.
    """
    if reference is None:
        return {}
    values = reference.scan_figures(placement, level_hu, grey_shares(images))
    return {
        name: (round(value, 4), reference.scan[name].z_score(name, value))
        for name, value in values.items()
        if name in reference.scan
    }


def _shape_evidence(measured: OrganFigures, change: Change | None, slices: int) -> dict:
    removed, remaining = change.removed_cm3 if change else 0.0, max(measured.volume_cm3, 1e-3)
    return {
        "removed_share": _share(removed / (removed + remaining)),
        "surplus_pieces": measured.components - 1 + (change.removed_pieces if change else 0),
        "gap_share": _share(measured.gaps / (measured.gaps + slices)),
        "gaps": measured.gaps,
    }


def _training_z_scores(figures: dict, spreads: dict) -> dict:
    """Signed z-scores of an organ's figures against the training; 0 where one is not known."""

    def z_score(name):
        known = name in spreads and name in figures
        return spreads[name].z_score(name, figures[name]) if known else 0.0

    position = [z_score(name) for name in ("left_mm", "posterior_mm", "superior_mm")]
    return {
        "volume_z": z_score("log_volume"),
        "length_z": z_score("length_mm"),
        "hu_z": z_score("mean_hu"),
        "place_z": max(position, key=abs),
    }


def features(scan: dict, organ: dict) -> np.ndarray:
    """Features float32 [F], in the order of FEATURES; 0 where one is not known."""
    values = [organ.get(name, 0.0) for name in OF_ORGAN]
    values += [scan.get(name, (0.0, 0.0))[1] for name in OF_SCAN]
    return np.abs(np.array(values, np.float32))


def _share(value: float) -> float:
    return round(float(np.clip(value, 0, 1)), 4)
