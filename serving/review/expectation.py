"""`review.json`, the calibration that `serving.calibrate` stores with a model.

For each organ it holds small forests of regression trees, from evidence to expected scores, which
decrease in every feature and are evaluated with numpy; how far true scores fell short of expected
ones; and the expected scores of the bad predictions.
"""

from dataclasses import dataclass, field

import numpy as np

from segthor import fields, files, json_files
from segthor import model_directory as directory
from segthor.errors import InputError
from serving.review.evidence import FEATURES

FORMAT = 1
BAD_DICE = 0.80  # a prediction with a lower Dice is bad: a person must look at it
COVERAGE = 0.90  # share of the cases in which the true score reaches the lower bound
FEWEST_BAD = 10  # bad predictions below which they give no threshold


@dataclass(frozen=True)
class Tree:
    """One regression tree, in arrays over its nodes.

    feature: Index of the feature that a node compares.
    threshold: A feature up to this value leads to the left.
    left: Number of the left child; 0 at a leaf.
    right: Number of the right child; 0 at a leaf.
    value: Prediction of a leaf.
    """

    feature: tuple[int, ...]
    threshold: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    value: tuple[float, ...]

    def predict(self, features: list[float]) -> float:
        """Predicts the score; features: In the order of FEATURES."""
        node = 0
        while self.left[node]:
            goes_left = features[self.feature[node]] <= self.threshold[node]
            node = self.left[node] if goes_left else self.right[node]
        return self.value[node]


@dataclass(frozen=True)
class Fit:
    """The expectation of one score of one organ.

    trees: The forest.
    edges: Expected scores that separate ranges, ascending.
    shortfall: For each range, expected minus true score that COVERAGE of the cases stay below; may
      be negative.
    """

    trees: tuple[Tree, ...]
    edges: tuple[float, ...]
    shortfall: tuple[float, ...]

    def expected(self, features: np.ndarray) -> float:
        """Expected score, the mean of the trees; features: float32 [F]."""
        exact = features.tolist()  # compared with float32, numpy would round the thresholds
        return float(np.mean([tree.predict(exact) for tree in self.trees]))

    def lower(self, expected: float) -> float:
        """Lower bound of the true score, which COVERAGE of such cases reach."""
        short = self.shortfall[int(np.searchsorted(self.edges, expected, "right"))]
        return float(np.clip(expected - short, 0, 1))


@dataclass(frozen=True)
class OrganFit:
    """The expectations of one organ.

    dice: Expectation of the Dice.
    surface_dice: Expectation of the surface Dice at 2 mm.
    expected_of_bad: Expected Dice of the cases with a true Dice below BAD_DICE, ascending.
    """

    dice: Fit
    surface_dice: Fit
    expected_of_bad: tuple[float, ...]

    def threshold(self, recall: float) -> float | None:
        """Expected Dice up to which this share of the bad cases lies; None for too few cases."""
        if len(self.expected_of_bad) < FEWEST_BAD:
            return None
        return float(np.quantile(self.expected_of_bad, recall, method="higher"))


@dataclass(frozen=True)
class Calibration:
    """The content of `review.json`.

    format: FORMAT.
    features: FEATURES, in the order of the trees.
    patients: Number of patients.
    scans: Number of scans, worsened ones included.
    seen: Name of OF_SCAN to its lowest and highest z-score among the scans.
    organs: Organ to its expectations.
    table: Summary rows for people.
    """

    format: int
    features: tuple[str, ...]
    patients: int
    scans: int
    seen: dict[str, tuple[float, ...]]
    organs: dict[str, OrganFit]
    table: tuple[dict, ...] = field(default=())

    def save(self, version: str) -> None:
        """Stores the calibration with a model, and the model's digest in it."""
        model = {"model": directory.digest(version)}
        json_files.write(directory.asset(version, directory.REVIEW), model | vars(self))


def load(version: str) -> Calibration | None:
    """Reads the calibration of a model; None if it has none.

    Raises:
      InputError: The file is invalid, or belongs to another model.
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
    calibration = fields.from_json(Calibration, value, path)
    if calibration.format != FORMAT or calibration.features != FEATURES:
        raise InputError(f"{path}: made by another version; calibrate again")
    for name, organ in calibration.organs.items():
        for fit in (organ.dice, organ.surface_dice):
            if not fit.trees or not all(map(_is_tree, fit.trees)):
                raise InputError(f"{path}: {name}: a tree is invalid; calibrate again")
            if len(fit.shortfall) != len(fit.edges) + 1:
                raise InputError(f"{path}: {name}: the ranges are invalid; calibrate again")
    return calibration


def _is_tree(tree: Tree) -> bool:
    """Whether all children exist and come after their node, so that every path ends at a leaf."""
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
