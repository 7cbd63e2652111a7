"""Fits a `Calibration` to rows of evidence and true scores, with scikit-learn."""

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import GroupKFold

from segthor.errors import InputError
from serving.review.cases import AS_IT_IS
from serving.review.evidence import FEATURES, OF_SCAN, features
from serving.review.expectation import BAD_DICE, COVERAGE, FORMAT, Calibration, Fit, OrganFit, Tree

FEWEST = 40  # rows of an organ
_SETTINGS = {
    "n_estimators": 40,
    "max_depth": 7,
    "min_samples_leaf": 3,
    "max_features": 0.8,
    "monotonic_cst": [-1] * len(FEATURES),  # no larger feature may raise an expected score
    "random_state": 0,
}
_GROUPS = 5  # groups of patients for cross-validation
_PARTITIONS = 4  # random partitions into groups, averaged, since the grouping moves the bound
_MOST_RANGES = 12
_RANGE_ROWS = 120  # rows of a range of expected scores, at least
_WORSENED = 0.2  # share of worsened scans by weight, as it is assumed in practice


def calibrate(rows: list[dict], names) -> tuple[Calibration, dict[str, dict]]:
    """Fits the calibration of these organs.

    rows: As returned by `cases.measure_scan`.

    Returns the calibration, and by organ the cross-validated Dice: arrays 'expected', 'lower',
    'true' and 'kind' over the rows of the organ.

    Raises:
      InputError: There are too few rows of an organ.
    """
    organs, crossed, table = {}, {}, []
    for name in names:
        own = [row for row in rows if row["organ"] == name and row["found"]]
        patients = len({row["patient"] for row in own})
        if len(own) < FEWEST or patients < _GROUPS:
            raise InputError(
                f"{name}: found in {len(own)} scans of {patients} patients; "
                f"expected at least {FEWEST} scans of {_GROUPS} patients to calibrate on"
            )
        organs[name], crossed[name] = _fit_organ(own)
        table += _summary_rows(name, crossed[name])
    seen = {f: [row["scan"][f][1] for row in rows if f in row["scan"]] for f in OF_SCAN}
    seen = {name: (min(values), max(values)) for name, values in seen.items() if values}
    patients = len({row["patient"] for row in rows})
    scans = len({(row["patient"], row["kind"]) for row in rows})
    return Calibration(FORMAT, FEATURES, patients, scans, seen, organs, tuple(table)), crossed


def _fit_organ(rows: list[dict]) -> tuple[OrganFit, dict]:
    inputs = np.stack([features(row["scan"], row["evidence"]) for row in rows])
    groups = [row["patient"] for row in rows]
    kinds = np.array([row["kind"] for row in rows])
    weights = _weights(kinds)
    fits, expected = {}, {}
    for score in ("dice", "surface_dice"):
        true = np.array([row[score] for row in rows])
        expected[score] = _cross_validate(inputs, true, weights, groups)
        edges, shortfall = _shortfalls(expected[score], true, weights)
        forest = RandomForestRegressor(**_SETTINGS).fit(inputs, true, weights)
        trees = tuple(_convert_tree(one.tree_) for one in forest.estimators_)
        fits[score] = Fit(trees, edges, shortfall)
    dice = np.array([row["dice"] for row in rows])
    bad = tuple(float(x) for x in np.sort(expected["dice"][dice < BAD_DICE]).round(4))
    lower = np.array([fits["dice"].lower(x) for x in expected["dice"]])
    crossed = {"expected": expected["dice"], "lower": lower, "true": dice, "kind": kinds}
    return OrganFit(fits["dice"], fits["surface_dice"], bad), crossed


def _weights(kinds: np.ndarray) -> np.ndarray:
    """Weights of the rows that give worsened scans their assumed share, whatever their number."""
    # Unweighted, slightly worsened scans, which look as good, would decide what is expected of
    # good ones.
    own = kinds == AS_IT_IS
    if own.all() or not own.any():
        return np.ones(len(kinds))
    total = own.sum() * _WORSENED / (1 - _WORSENED)
    return np.where(own, 1.0, total / np.count_nonzero(~own))


def _cross_validate(inputs, true, weights, groups) -> np.ndarray:
    """Expected scores of the rows, by forests that were fitted to other patients."""
    expected = np.zeros(len(true))
    for number in range(_PARTITIONS):
        parts = GroupKFold(_GROUPS, shuffle=True, random_state=number)
        for others, own in parts.split(inputs, true, groups):
            forest = RandomForestRegressor(**_SETTINGS | {"random_state": number})
            forest.fit(inputs[others], true[others], weights[others])
            expected[own] += forest.predict(inputs[own]) / _PARTITIONS
    return expected


def _shortfalls(expected, true, weights) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Edges of the ranges and the shortfall of each; see `Fit`.

    One-sided split conformal prediction in ranges of the expected score (Vovk's Mondrian variant).
    The shortfall is the smallest that COVERAGE of the weight does not exceed, where the new scan
    counts as one row more, of the largest weight and above it (Tibshirani et al., Conformal
    Prediction Under Covariate Shift, 2019).
    """
    count = max(1, min(_MOST_RANGES, len(true) // _RANGE_ROWS))
    edges = np.unique(np.quantile(expected, np.arange(1, count) / count).round(4))
    place, short = np.searchsorted(edges, expected, "right"), expected - true
    limits = []
    for number in range(len(edges) + 1):
        own = np.flatnonzero(place == number)
        own = own[np.argsort(short[own])]
        if not len(own):
            limits.append(float(short.max()))
            continue
        reached, total = np.cumsum(weights[own]), weights[own].sum() + weights[own].max()
        rank = np.searchsorted(reached, COVERAGE * total - 1e-9)
        limits.append(float(short[own[min(rank, len(own) - 1)]]))
    return tuple(map(float, edges)), tuple(round(limit, 4) for limit in limits)


def _convert_tree(tree) -> Tree:
    """Converts scikit-learn's arrays, in which a leaf has the children -1."""
    inner = tree.children_left >= 0
    return Tree(
        feature=tuple(int(x) for x in np.where(inner, tree.feature, 0)),
        threshold=tuple(float(x) for x in np.where(inner, tree.threshold, 0)),
        left=tuple(int(x) for x in np.where(inner, tree.children_left, 0)),
        right=tuple(int(x) for x in np.where(inner, tree.children_right, 0)),
        value=tuple(round(float(x), 5) for x in tree.value[:, 0, 0]),
    )


def _summary_rows(name: str, crossed: dict) -> list[dict]:
    """Summary rows of an organ for people: of all scans, and of those as they are."""
    lines = []
    for title, chosen in (
        ("all", np.ones(len(crossed["true"]), bool)),
        (AS_IT_IS, crossed["kind"] == AS_IT_IS),
    ):
        true, expected, lower = (crossed[key][chosen] for key in ("true", "expected", "lower"))
        lines.append(
            {
                "organ": name,
                "scans": title,
                "count": int(chosen.sum()),
                "mean_dice": _rounded(true.mean()),
                "mean_expected": _rounded(expected.mean()),
                "mean_error": _rounded(np.abs(expected - true).mean()),
                "bad": int((true < BAD_DICE).sum()),
                "auroc": auroc(expected, true < BAD_DICE),
                "lower_bound_holds": _rounded((true >= lower).mean()),
            }
        )
    return lines


def auroc(expected: np.ndarray, bad: np.ndarray) -> float | None:
    """Probability that a bad case has a lower expected score than a good one; ties count half."""
    if not bad.any() or bad.all():
        return None
    less = expected[bad][:, None] - expected[~bad][None]
    return _rounded((less < 0).mean() + (less == 0).mean() / 2)


def _rounded(value) -> float:
    return round(float(value), 4)
