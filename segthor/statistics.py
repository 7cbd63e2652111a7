"""Statistics over patients: mean, median, confidence intervals, and a paired test.

Infinite scores, of organs that only one of the two label maps holds, are left out of a mean and
counted. A program that prints a mean must print this count with it.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Summary:
    """One score over patients. Mean, median and interval are None where no value is finite.

    count: Number of finite values, which the other fields describe.
    left_out: Number of other values.
    mean: Mean.
    median: Median.
    low, high: 95 % confidence interval of the mean.
    """

    count: int
    left_out: int
    mean: float | None
    median: float | None
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """Comparison of runs a and b on the same patients; None where there is no finite pair.

    count: Number of pairs.
    left_out: Number of pairs with a value that is not finite.
    mean_difference: Mean of a minus b.
    low, high: 95 % confidence interval of the mean difference.
    p_value: Of Wilcoxon's signed-rank test, two-sided.
    """

    count: int
    left_out: int
    mean_difference: float | None
    low: float | None
    high: float | None
    p_value: float | None


def summarise(values: Sequence[float | None], seed: int = 0) -> Summary:
    """Summarizes one score over patients; None, infinity and NaN are left out and counted."""
    values = _floats(values)
    finite = values[np.isfinite(values)]
    left_out = len(values) - len(finite)
    if not len(finite):
        return Summary(0, left_out, None, None, None, None)
    mean, median = float(finite.mean()), float(np.median(finite))
    return Summary(len(finite), left_out, mean, median, *bootstrap_interval(finite, seed))


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % confidence interval of the mean by the percentile bootstrap over patients.

    The 2.5th and 97.5th percentile of the means of 10,000 samples drawn with replacement (Efron
    and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). A single value gives an
    interval of no width; below some ten patients every such interval is too narrow.

    Raises:
      ValueError: No value, or one that is not finite.
    """
    values = _floats(values)
    if not len(values) or not np.all(np.isfinite(values)):
        raise ValueError(f"values: expected at least one and all finite, got {values}")
    picks = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def paired_test(a: Sequence[float | None], b: Sequence[float | None], seed: int = 0) -> PairedTest:
    """Tests whether the scores of runs a and b differ on the same patients.

    Wilcoxon's signed-rank test, two-sided, of a - b, without equal pairs; p is 1 where all pairs
    are equal. Fewer than six pairs cannot reach p < 0.05. The mean difference and its bootstrap
    interval give the size of the difference.

    Args:
      a, b: One score per patient, in the same order; pairs with a value that is not finite are left
        out and counted.
      seed: Seed of the bootstrap.

    Raises:
      ValueError: a and b have different lengths.
    """
    a, b = _floats(a), _floats(b)
    if a.shape != b.shape:
        raise ValueError(f"a and b: expected one value per patient, got {len(a)} and {len(b)}")
    finite = np.isfinite(a) & np.isfinite(b)
    difference = a[finite] - b[finite]
    left_out = len(a) - len(difference)
    if not len(difference):
        return PairedTest(0, left_out, None, None, None, None)
    from scipy import stats  # slow import (a third of a second), not needed for --help

    p_value = float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0
    interval = bootstrap_interval(difference, seed)
    return PairedTest(len(difference), left_out, float(difference.mean()), *interval, p_value)


def _floats(values) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], np.float64)


def mean(values: np.ndarray, weights: np.ndarray | None) -> float:
    """The mean of values [N] with weights [N]; None weighs all values equally."""
    return float(np.mean(values) if weights is None else np.average(values, weights=weights))


def percentile95(values: np.ndarray, weights: np.ndarray | None) -> float:
    """The 95th percentile of values [N].

    weights: With weights [N], the smallest value that at least 95 % of the weight does not exceed,
      without interpolation. None weighs all values equally.
    """
    if weights is None:
        return float(np.percentile(values, 95))
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, 0.95 * reached[-1])])
