"""`review.json`, what `serving.calibrate` stores with a model: from evidence to expected scores.

Small forests of regression trees that fall in every feature of the evidence, as plain numbers that
numpy evaluates; for each organ how far the truth fell short of the expectation; and what the bad
predictions of the calibration were expected to score.
"""

from dataclasses import dataclass, field

import numpy as np

from segthor import fields, files, json_files
from segthor import model_directory as directory
from segthor.errors import InputError
from serving.review.evidence import FEATURES

FORMAT = 1
BAD_DICE = 0.80  # below it, a prediction is bad: it must be looked at
COVERAGE = 0.90  # of the lower bound
FEWEST_BAD = 10  # bad predictions, below which they set no threshold


@dataclass(frozen=True)
class Tree:
    """One regression tree; node n asks whether feature[n] <= threshold[n], then goes left.

    left, right: numbers of nodes; 0 at a leaf, which gives value[n].
    """

    feature: tuple[int, ...]
    threshold: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    value: tuple[float, ...]

    def predict(self, features: list[float]) -> float:
        """features: in the order of FEATURES."""
        node = 0
        while self.left[node]:
            goes_left = features[self.feature[node]] <= self.threshold[node]
            node = self.left[node] if goes_left else self.right[node]
        return self.value[node]


@dataclass(frozen=True)
class Fit:
    """One score's. edges: of the expectation, between ranges; shortfall: of each range, what the
    truth falls short of the expectation by, at most, in COVERAGE of the cases (may be below 0).
    """

    trees: tuple[Tree, ...]
    edges: tuple[float, ...]
    shortfall: tuple[float, ...]

    def expected(self, features: np.ndarray) -> float:
        """The mean of the trees; features: float32 [F]."""
        exact = features.tolist()  # else numpy would round the thresholds to float32
        return float(np.mean([tree.predict(exact) for tree in self.trees]))

    def lower(self, expected: float) -> float:
        """What the truth reaches in COVERAGE of the cases with such an expectation."""
        short = self.shortfall[int(np.searchsorted(self.edges, expected, "right"))]
        return float(np.clip(expected - short, 0, 1))


@dataclass(frozen=True)
class OrganFit:
    """One organ's. expected_of_bad: what cases of a Dice below BAD_DICE were expected to have."""

    dice: Fit
    surface_dice: Fit
    expected_of_bad: tuple[float, ...]

    def threshold(self, recall: float) -> float | None:
        """The expected Dice up to which this share of the bad ones lies; None of too few."""
        if len(self.expected_of_bad) < FEWEST_BAD:
            return None
        return float(np.quantile(self.expected_of_bad, recall, method="higher"))


@dataclass(frozen=True)
class Calibration:
    """seen: figure of the scan to its lowest and highest z-score among the calibration's scans.

    table: for people, the lines that justify the rest.
    """

    format: int
    features: tuple[str, ...]
    patients: int
    scans: int
    seen: dict[str, tuple[float, ...]]
    organs: dict[str, OrganFit]
    table: tuple[dict, ...] = field(default=())

    def save(self, version: str) -> None:
        """Stores it with a model, whose digest it bears."""
        made_for = {"model": directory.digest(version)}
        json_files.write(directory.asset(version, directory.REVIEW), made_for | vars(self))


def load(version: str) -> Calibration | None:
    """What is stored with a model, None where nothing is.

    Raises:
      InputError: It makes no sense, or was made for another model.
    """
    path = directory.asset(version, directory.REVIEW)
    if not files.exists(path):
        return None
    value = json_files.read(path)
    if not isinstance(value, dict) or value.pop("model", None) != directory.digest(version):
        raise InputError(
            f"{path}: expected the calibration of this very model, found another's; remove it, or "
            "calibrate again with python -m serving.calibrate"
        )
    found = fields.from_json(Calibration, value, path)
    if found.format != FORMAT or found.features != FEATURES:
        raise InputError(f"{path}: made by another version; calibrate again")
    for name, organ in found.organs.items():
        for fit in (organ.dice, organ.surface_dice):
            if not fit.trees or not all(map(_is_tree, fit.trees)):
                raise InputError(f"{path}: {name}: a tree makes no sense; calibrate again")
            if len(fit.shortfall) != len(fit.edges) + 1:
                raise InputError(f"{path}: {name}: ranges make no sense; calibrate again")
    return found


def _is_tree(tree: Tree) -> bool:
    """Whether every node is there and leads on to later ones, so that each way has an end."""
    count = len(tree.value)
    columns = tree.feature, tree.threshold, tree.left, tree.right
    return (
        count > 0
        and all(len(column) == count for column in columns)
        and max(tree.feature) < len(FEATURES)
        and all(
            left == 0 == right or (n < left < count and n < right < count)
            for n, (left, right) in enumerate(zip(tree.left, tree.right, strict=True))
        )
    )
