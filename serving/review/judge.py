"""Decides which cases and organs a person should look at, and words the reasons."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from segthor import fields
from segthor.findings import doubts
from segthor.reference import Reference
from serving.prediction.facts import Judgement, OrganJudgement
from serving.review import expectation, trust
from serving.review.evidence import Observer, features
from serving.review.expectation import BAD_DICE, Calibration, OrganFit

_FAR, _VERY_FAR = 3.0, 6.0  # z-scores that are mentioned; that mark a scan without a calibration
_BEYOND = 1.5  # z-score by which a scan may exceed the range of the calibration
# Disagreement of models and flips that marks an organ whatever the calibration expects: they cannot
# all be right, and their average need not be.
_TORN = 1 - BAD_DICE
_EXPECTED = ("expected_dice", "lower_dice", "expected_surface_dice", "lower_surface_dice")
_SCAN_WORDS = {
    "slice_mm": "slices of {value:.3g} mm, training {low:.3g} to {high:.3g} mm",
    "pixel_mm": "pixels of {value:.3g} mm, training {low:.3g} to {high:.3g} mm",
    "length_mm": "{value:.0f} mm along the body, training {low:.0f} to {high:.0f} mm",
    "width_mm": "a field of view of {value:.0f} mm, training {low:.0f} to {high:.0f} mm",
    "outside_share": "{value:.0%} of the box outside the scan, training {low:.0%} to {high:.0%}",
    "level_hu": "a window level of {value:.0f} HU, training {low:.0f} to {high:.0f} HU",
    "grey_distance": "grey levels {value:.3f} from the training's mean, its own at most {high:.3f}",
}


@dataclass(frozen=True)
class Judge:
    """Judges predictions by their evidence.

    calibrations: Organ to the calibration of its models; None: they have none.
    reference: Measures of the training patients; None: not known.
    recall: Share of the bad predictions that the marked cases should contain.
    reasons_against: Organ to the reason why it is marked in every case unless it is calibrated.
    """

    calibrations: Mapping[str, Calibration | None]
    reference: Reference | None
    recall: float = 0.95
    reasons_against: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_models(cls, models, recall: float = 0.95) -> "Judge":
        """Makes the judge of the predictions of a `predictor.Ensemble`."""
        calibrations = {}
        for names, group in models.groups.items():
            first, *others = (expectation.load(one.folder) for one in group)
            # A calibration holds for averaged models only if all of them store the same.
            agreed = first if all(other == first for other in others) else None
            calibrations |= dict.fromkeys(names, agreed)
        in_order = {name: calibrations[name] for name in models.organs}
        against = trust.reasons_against(models.groups)
        return cls(in_order, reference_of(models), recall, against)

    def observe(self, models, inputs) -> Observer:
        """Makes the observer of a case; inputs: As returned by `Ensemble.inputs`."""
        return Observer.of_case(models.organs, models.first(inputs), self.reference)

    def judge(self, scan: Mapping, organs: Mapping[str, dict], findings) -> Judgement:
        """Judges one case.

        scan: Evidence of the scan.
        organs: Organ to its evidence.
        findings: Findings of the audit about scan and label map.
        """
        unlike = self._describe_scan(scan)
        rows = {name: self._judge_organ(name, scan, row) for name, row in organs.items()}
        flagged = {name: row for name, row in rows.items() if row.review}
        reasons = [f"unlike the training data: {' and '.join(unlike)}"] if unlike else []
        reasons += [f"{name}: {row.reason}" for name, row in flagged.items()]
        reasons += doubts(findings)
        expected = [r.expected_dice for r in rows.values() if r.expected_dice is not None]
        return Judgement(
            calibrated=self.calibrated,
            recall=self.recall,
            review=bool(reasons),
            reason="; ".join(reasons),
            unlike_training=bool(unlike),
            expected_dice=min(expected, default=None),
            organs=rows,
        )

    @property
    def calibrated(self) -> bool:
        """Whether the calibrations cover every organ."""
        fits = [one and one.organs.get(name) for name, one in self.calibrations.items()]
        return bool(fits) and all(fits)

    def _describe_scan(self, scan: Mapping) -> list[str]:
        """Describes what of the scan is far from the training data, the farthest first."""
        spreads = self.reference.scan if self.reference else {}
        known = (name for name in scan if name in spreads and name in _SCAN_WORDS)
        far = sorted(known, key=lambda name: -abs(scan[name][1]))
        limits = {name: self._limits(name) for name in far}
        beyond = (n for n in far if not limits[n][0] <= scan[n][1] <= limits[n][1])
        return [
            _SCAN_WORDS[n].format(value=scan[n][0], low=spreads[n].low, high=spreads[n].high)
            for n in beyond
        ]

    def _limits(self, figure: str) -> tuple[float, float]:
        """Lowest and highest z-score of a scan like the training data."""
        known = [
            one.seen[figure] for one in self.calibrations.values() if one and figure in one.seen
        ]
        if not known:
            limits = -_VERY_FAR, _VERY_FAR
        else:
            low, high = zip(*known, strict=True)
            limits = min(*low, -_FAR) - _BEYOND, max(*high, _FAR) + _BEYOND
        # A distance below the training's mean is good.
        return (float("-inf"), limits[1]) if figure == "grey_distance" else limits

    def _judge_organ(self, name: str, scan: Mapping, row: dict) -> OrganJudgement:
        """Judges one organ; scan, row: Evidence of scan and organ, {} if it was not found."""
        fit = self.calibrations.get(name)
        fit = fit and fit.organs.get(name)
        if not row:
            scores = dict.fromkeys(_EXPECTED, 0.0 if fit else None)
            return OrganJudgement(**scores, review=True, reason="not found", slices=())
        against = "" if fit else self.reasons_against.get(name, "")
        review = _is_torn(row) or bool(against)
        words = [against] * bool(against) + _describe_organ(row)
        scores = dict.fromkeys(_EXPECTED)
        if fit:
            scores = _expect_scores(fit, features(scan, row), row["disagreement"] or 0.0)
            threshold = fit.threshold(self.recall)
            # Without enough bad cases to set a threshold, the lower bound decides.
            limit, score = (threshold, "expected_dice") if threshold else (BAD_DICE, "lower_dice")
            review = review or scores[score] <= round(limit, 3)
            words.append(f"expected {scores['expected_dice']:.2f}")
        slices = tuple(row["slices"])
        return OrganJudgement(**scores, review=review, reason="; ".join(words), slices=slices)


def _expect_scores(fit: OrganFit, values: np.ndarray, apart: float) -> dict[str, float]:
    """Expected scores of an organ and their lower bounds; names as in `_EXPECTED`.

    values: The features, see `evidence.features`.
    apart: As in `average_dice`.
    """
    scores = {}
    for score, one in (("dice", fit.dice), ("surface_dice", fit.surface_dice)):
        fitted = one.expected(values)
        expected, lower = fitted, one.lower(fitted)
        if score == "dice":
            expected, lower = (average_dice(dice, apart) for dice in (expected, lower))
        scores[f"expected_{score}"] = round(expected, 3)
        scores[f"lower_{score}"] = round(min(expected, lower), 3)
    return scores


def reference_of(models) -> Reference | None:
    """Measures of the training patients of the first model; None if they were not recorded."""
    stored = models.segmenters[0].training.get("reference")
    return stored and fields.from_json(Reference, stored, "reference")


def average_dice(dice: float, apart: float) -> float:
    """Dice of an average of models and flips, from the Dice of a single one.

    The squared error of an average is the mean of its members' minus their spread about it (Krogh
    and Vedelsby, Neural Network Ensembles, Cross Validation, and Active Learning, 1995); the loss
    1 - Dice is treated as the error. It is at least the disagreement, since members that disagree
    cannot all be right.

    dice: Expected Dice of a single model.
    apart: 1 minus the Dice of the members with their average, mean over the members.
    """
    return 1 - max(math.sqrt(max((1 - dice) ** 2 - apart**2, 0.0)), apart)


def _is_torn(row: dict) -> bool:
    return (row["disagreement"] or 0.0) >= _TORN


def _describe_organ(row: dict) -> list[str]:
    """Describes what is unusual in the evidence of an organ, at most three parts."""
    words = []
    if _is_torn(row):
        shared = 1 - row["disagreement"]
        words.append(f"models or flips have a Dice of {shared:.2f} with their average")
    elif row["disagreeing_slices"]:
        words.append(f"models or flips disagree over {_slices(row['disagreeing_slices'])}")
    if row["weak_slices"]:
        words.append(f"unsure over {_slices(row['weak_slices'])}")
    if row["gaps"]:
        words.append(f"breaks off for {_slices(row['gaps'])}")
    if row["surplus_pieces"]:
        words.append(f"{row['surplus_pieces'] + 1} pieces")
    if row["removed_share"] >= 0.05:
        words.append(f"post-processing removed {row['removed_share']:.0%}")
    for name, less, more in (
        ("volume_z", "smaller", "larger"),
        ("length_z", "shorter", "longer"),
        ("hu_z", "darker", "brighter"),
    ):
        if abs(row[name]) >= _FAR:
            words.append(
                f"{less if row[name] < 0 else more} than in training ({row[name]:+.1f} SD)"
            )
    if abs(row["place_z"]) >= _FAR:
        words.append(f"placed unlike training ({row['place_z']:+.1f} SD)")
    return words[:3]


def _slices(count: int) -> str:
    return f"{count} slice" + "s" * (count != 1)
