"""From rows of evidence and true scores to a `Calibration`. The only module with scikit-learn."""

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import GroupKFold

from segthor.errors import InputError
from serving.review.cases import AS_IT_IS
from serving.review.evidence import FEATURES, OF_SCAN, features
from serving.review.expectation import (
    BAD_DICE,
    COVERAGE,
    FORMAT,
    Calibration,
    Fit,
    OrganFit,
    Tree,
)

FEWEST = 40  # rows of an organ
_SETTINGS = {
    "n_estimators": 40,
    "max_depth": 7,
    "min_samples_leaf": 3,
    "max_features": 0.8,
    "monotonic_cst": [-1] * len(FEATURES),  # more of any evidence never raises a score
    "random_state": 0,
}
_GROUPS = 5  # of patients, each judged by forests of the others
_PARTITIONS = 4  # into such groups, averaged: how patients happen to be grouped moves the bound
_MOST_RANGES = 12
_RANGE_ROWS = 120  # in a range of expectations with a shortfall of its own, at least
_WORSENED = 0.2  # of the scans that are judged, by weight


def calibrate(rows: list[dict], names) -> tuple[Calibration, dict[str, dict]]:
    """rows: of `cases.observe`. names: the organs.

    Returns the calibration and, per organ, what its forests of other patients expected, beside the
    truth: arrays 'expected', 'lower', 'true', 'kind'.

    Raises:
      InputError: too few rows of an organ.
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
        organs[name], crossed[name] = _organ(own)
        table += _lines(name, crossed[name])
    seen = {f: [row["scan"][f][1] for row in rows if f in row["scan"]] for f in OF_SCAN}
    seen = {name: (min(values), max(values)) for name, values in seen.items() if values}
    patients = len({row["patient"] for row in rows})
    scans = len({(row["patient"], row["kind"]) for row in rows})
    return Calibration(FORMAT, FEATURES, patients, scans, seen, organs, tuple(table)), crossed


def _organ(rows: list[dict]) -> tuple[OrganFit, dict]:
    given = np.stack([features(row["scan"], row["evidence"]) for row in rows])
    groups = [row["patient"] for row in rows]
    kinds = np.array([row["kind"] for row in rows])
    weights = _weights(kinds)
    fits, crossed = {}, {}
    for score in ("dice", "surface_dice"):
        true = np.array([row[score] for row in rows])
        expected = _crossed(given, true, weights, groups)
        edges, shortfall = _shortfalls(expected, true, weights)
        forest = RandomForestRegressor(**_SETTINGS).fit(given, true, weights)
        trees = tuple(_tree(one.tree_) for one in forest.estimators_)
        fits[score] = Fit(trees, edges, shortfall)
        crossed[score] = expected
    dice = np.array([row["dice"] for row in rows])
    bad = tuple(float(x) for x in np.sort(crossed["dice"][dice < BAD_DICE]).round(4))
    lower = np.array([fits["dice"].lower(x) for x in crossed["dice"]])
    told = {"expected": crossed["dice"], "lower": lower, "true": dice, "kind": kinds}
    return OrganFit(fits["dice"], fits["surface_dice"], bad), told


def _weights(kinds: np.ndarray) -> np.ndarray:
    """One scan in five of a batch is taken to be worsened, whatever their share among the rows.

    Else what is expected of a good scan would follow from slightly worsened ones that look as good.
    """
    own = kinds == AS_IT_IS
    if own.all() or not own.any():
        return np.ones(len(kinds))
    total = own.sum() * _WORSENED / (1 - _WORSENED)
    return np.where(own, 1.0, total / np.count_nonzero(~own))


def _crossed(given, true, weights, groups) -> np.ndarray:
    """What forests that saw other patients alone expect of each row."""
    expected = np.zeros(len(true))
    for number in range(_PARTITIONS):
        parts = GroupKFold(_GROUPS, shuffle=True, random_state=number)
        for others, own in parts.split(given, true, groups):
            forest = RandomForestRegressor(**_SETTINGS | {"random_state": number})
            forest.fit(given[others], true[others], weights[others])
            expected[own] += forest.predict(given[own]) / _PARTITIONS
    return expected


def _shortfalls(expected, true, weights) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Split conformal prediction, one-sided, in ranges of the expectation (Vovk's Mondrian kind).

    In each range the shortfall is the smallest within which COVERAGE of the weight stays, where the
    scan in question counts as one more, of the largest weight and outside (Tibshirani et al.,
    Conformal Prediction Under Covariate Shift, 2019).
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


def _tree(tree) -> Tree:
    """Of scikit-learn's arrays; its leaves lead to -1."""
    inner = tree.children_left >= 0
    return Tree(
        feature=tuple(int(x) for x in np.where(inner, tree.feature, 0)),
        threshold=tuple(float(x) for x in np.where(inner, tree.threshold, 0)),
        left=tuple(int(x) for x in np.where(inner, tree.children_left, 0)),
        right=tuple(int(x) for x in np.where(inner, tree.children_right, 0)),
        value=tuple(round(float(x), 5) for x in tree.value[:, 0, 0]),
    )


def _lines(name: str, told: dict) -> list[dict]:
    """For people: per organ, of all scans and of those as they are."""
    lines = []
    for title, chosen in (
        ("all", np.ones(len(told["true"]), bool)),
        (AS_IT_IS, told["kind"] == AS_IT_IS),
    ):
        true, expected, lower = (told[key][chosen] for key in ("true", "expected", "lower"))
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
    """The chance that a bad one is expected to score less than a good one; ties count half."""
    if not bad.any() or bad.all():
        return None
    less = expected[bad][:, None] - expected[~bad][None]
    return _rounded((less < 0).mean() + (less == 0).mean() / 2)


def _rounded(value) -> float:
    return round(float(value), 4)
