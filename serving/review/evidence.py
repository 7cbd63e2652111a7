"""What speaks for and against a prediction, from what its making leaves in hand. Numpy, scipy.

Slice by slice, on the network's grid: how sure each model and flip is inside each organ and at its
border, on average, and how far they agree. (Their averaged probabilities look less sure than those
of single networks, with which a calibration is made.) Then, once, on the finished label map:
pieces, gaps, what post-processing took away, and each organ's measures beside those of the training
patients. The scan is not read again; what is kept grows by a few numbers a slice.
"""

from dataclasses import asdict

import numpy as np

from segthor.figures import OrganFigures
from segthor.recipe import Prepared
from segthor.reference import Reference, grey_shares, organ_figures
from segthor.resample import largest
from serving.prediction.facts import Change, Evidence

# What is counted per slice and organ: pixels of the organ, and the sum of their probability of
# being it; the same of those at its border; the organ's probability summed over all pixels; and of
# models and flips, each beside the average: pixels shared by both, and pixels of either, summed.
PIXELS, SURE, BORDER, BORDER_SURE, MASS, SHARED, EITHER = range(7)
_OUTSIDE = 0.95  # where background is likelier than this, no organ is near
_FEWEST_PX = 4  # below it a slice's own shares say nothing
_WEAK, _DISAGREEING = 0.4, 0.3  # loss and disagreement of a slice that is named
_MOST_SLICES = 5  # to look at, per organ

# What the calibration judges by; each is 0 or more, and more of it is worse.
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

    tables: Organ -> float64 [Z, 7], the counts of each slice, in columns PIXELS to EITHER.
    scan: The scan's evidence, see `of_scan`.
    reference: What the training patients measure; None: not known.
    """

    def __init__(self, organs, num_slices: int, reference: Reference | None = None, scan=()):
        self.tables = {name: np.zeros((num_slices, 7)) for name in organs}
        self.reference, self.scan = reference, dict(scan)

    @classmethod
    def of_case(cls, organs, prepared: Prepared, reference: Reference | None) -> "Observer":
        """For a case that is prepared; organs: those that will be predicted."""
        scan = of_scan(prepared.placement, prepared.level_hu, prepared.images, reference)
        return cls(organs, len(prepared.images), reference, scan)

    def add(self, slices: range, organs, mean: np.ndarray, members: list[np.ndarray]) -> None:
        """Counts what the networks give for some slices.

        mean: float32 [N, H, W, K], averaged over models and flips.
        members: The same of each model and flip.
        """
        agreed = agreement(mean, members)
        for n, z in enumerate(slices):
            counts = sum(_counts(member[n]) for member in members) / len(members)
            for k, name in enumerate(organs, 1):
                self.tables[name][z, :SHARED] = counts[:, k]
                if agreed is not None:
                    self.tables[name][z, SHARED:] = agreed[n, :, k]

    def finish(self, measured: dict[str, OrganFigures], changes: dict[str, Change]) -> Evidence:
        """The evidence, once the label map is finished; empty for an organ that is not there."""
        measured = {name: asdict(figures) for name, figures in measured.items()}
        figures, result = organ_figures(measured), {}
        for name, table in self.tables.items():
            row = of_organ(table)
            result[name] = row if name in measured else {}
            if row and name in measured:
                spreads = self.reference.organs.get(name, {}) if self.reference else {}
                held = np.count_nonzero(table[:, PIXELS])
                row |= _of_shape(measured[name], changes.get(name), held)
                row |= _beside_training(figures[name], spreads)
        return Evidence(self.scan, result)


def _counts(plane: np.ndarray) -> np.ndarray:
    """float64 [5, K] of probabilities [H, W, K]; rows PIXELS to MASS."""
    number = plane.shape[-1]
    near = np.flatnonzero(plane[..., 0] < _OUTSIDE)
    if not len(near):
        return np.zeros((5, number))
    chances = _of_pixels(plane, near)
    found, sure = largest(chances)
    winner = np.zeros(plane.shape[:2], np.uint8)
    winner.flat[near] = found
    border = _at_border(winner).flat[near]
    return np.stack(
        [
            np.bincount(found, minlength=number),
            np.bincount(found, sure, number),
            np.bincount(found[border], minlength=number),
            np.bincount(found[border], sure[border], number),
            chances.sum(1, dtype=np.float64),
        ]
    )


def _of_pixels(plane: np.ndarray, places: np.ndarray) -> np.ndarray:
    """[K, number of places] of probabilities [H, W, K]."""
    return np.ascontiguousarray(plane.reshape(-1, plane.shape[-1]).take(places, 0).T)


def _at_border(winner: np.ndarray) -> np.ndarray:
    """Which pixels of [H, W] have a neighbour of another class beside or above or below them."""
    border = np.zeros(winner.shape, bool)
    for view, edge in ((winner, border), (winner.T, border.T)):
        differs = view[1:] != view[:-1]
        edge[1:] |= differs
        edge[:-1] |= differs
    return border


def agreement(mean: np.ndarray, members: list[np.ndarray]) -> np.ndarray | None:
    """float64 [N, 2, K], rows SHARED and EITHER, summed over members; None of a single one.

    mean, members: float32 [N, H, W, K].
    """
    if len(members) < 2:
        return None
    result = np.zeros((len(mean), 2, mean.shape[-1]))
    for n, plane in enumerate(mean):
        near = np.flatnonzero(plane[..., 0] < _OUTSIDE)
        (ours, _), number = largest(_of_pixels(plane, near)), mean.shape[-1]
        for member in members:
            theirs, _ = largest(_of_pixels(member[n], near))
            result[n, 0] += np.bincount(ours[ours == theirs], minlength=number)
            result[n, 1] += np.bincount(ours, minlength=number) / 2
            result[n, 1] += np.bincount(theirs, minlength=number) / 2
    return result


def of_organ(table: np.ndarray) -> dict:
    """What a table [Z, 7] of counts says of its organ; empty of an organ without a pixel.

    slices: those to look at first, counted from 1 from the feet. disagreement: 1 minus the Dice
    of models and flips with their average, None where there is but one of them.
    """
    total = table.sum(0)
    if not total[PIXELS]:
        return {}
    present = table[:, PIXELS] + table[:, MASS]
    loss = 1 - 2 * table[:, SURE] / np.maximum(present, 1e-9)
    apart = 1 - table[:, SHARED] / np.maximum(table[:, EITHER], 1e-9)
    seen = present >= 2 * _FEWEST_PX
    weak = seen & (loss > _WEAK)
    disagreeing = (table[:, EITHER] >= _FEWEST_PX) & (apart > _DISAGREEING)
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


def of_scan(placement, level_hu: float, images: np.ndarray, reference: Reference | None) -> dict:
    """Figure of OF_SCAN to (value, z-score against the training patients); empty without them.

    images: uint8 [Z, H, W], prepared.
    """
    if reference is None:
        return {}
    values = reference.scan_figures(placement, level_hu, grey_shares(images))
    return {
        name: (round(value, 4), reference.scan[name].z_score(name, value))
        for name, value in values.items()
        if name in reference.scan
    }


def _of_shape(measured: dict, change: Change | None, slices: int) -> dict:
    removed, kept = change.removed_cm3 if change else 0.0, max(measured["volume_cm3"], 1e-3)
    return {
        "removed_share": _share(removed / (removed + kept)),
        "surplus_pieces": measured["components"] - 1 + (change.removed_pieces if change else 0),
        "gap_share": _share(measured["gaps"] / (measured["gaps"] + slices)),
        "gaps": measured["gaps"],
    }


def _beside_training(figures: dict, spreads: dict) -> dict:
    """z-scores of an organ's figures, with their sign; 0 where nothing is known of them."""

    def z_score(name):
        known = name in spreads and name in figures
        return spreads[name].z_score(name, figures[name]) if known else 0.0

    places = [z_score(name) for name in ("left_mm", "posterior_mm", "superior_mm")]
    return {
        "volume_z": z_score("log_volume"),
        "length_z": z_score("length_mm"),
        "hu_z": z_score("mean_hu"),
        "place_z": max(places, key=abs),
    }


def features(scan: dict, organ: dict) -> np.ndarray:
    """float32 [F] in the order of FEATURES, each 0 or more; what is not known is 0."""
    values = [organ.get(name, 0.0) for name in OF_ORGAN]
    values += [scan.get(name, (0.0, 0.0))[1] for name in OF_SCAN]
    return np.abs(np.array(values, np.float32))


def _share(value: float) -> float:
    return round(float(np.clip(value, 0, 1)), 4)
