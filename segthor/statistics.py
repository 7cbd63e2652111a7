"""What may be said about a number of patients: mean, median, intervals, and paired comparison.

An infinite score (an organ that only one of the label maps holds) has no mean. Such values are left
out and counted, and whoever prints a mean prints the count beside it.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Summary:
    """One score over patients. Mean, median and interval are None where no value is finite."""

    count: int  # finite values, those that the figures below are of
    left_out: int
    mean: float | None
    median: float | None
    low: float | None  # of the mean's 95 % interval
    high: float | None


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """Runs a and b compared patient by patient: the differences are a minus b."""

    count: int
    left_out: int
    mean_difference: float | None
    low: float | None  # of the mean difference's 95 % interval
    high: float | None
    p_value: float | None  # Wilcoxon signed-rank, two-sided


def summarise(values: Sequence[float | None], seed: int = 0) -> Summary:
    """Describes one score over patients; None, infinities and NaN are left out and counted."""
    values = _floats(values)
    finite = values[np.isfinite(values)]
    left_out = len(values) - len(finite)
    if not len(finite):
        return Summary(0, left_out, None, None, None, None)
    mean, median = float(finite.mean()), float(np.median(finite))
    return Summary(len(finite), left_out, mean, median, *bootstrap_interval(finite, seed))


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean by the percentile bootstrap over patients.

    The 2.5th and 97.5th percentile of the means of 10,000 samples drawn with replacement (Efron
    and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). A single value gives an
    interval of no width; below some ten patients every such interval is too narrow.

    Raises:
      ValueError: No value, or one that is not finite: what to leave out is for the caller to say.
    """
    values = _floats(values)
    if not len(values) or not np.all(np.isfinite(values)):
        raise ValueError(f"values: expected at least one and all finite, got {values}")
    picks = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def paired_test(a: Sequence[float | None], b: Sequence[float | None], seed: int = 0) -> PairedTest:
    """Whether run a scores otherwise than run b on the same patients.

    Wilcoxon's signed-rank test, two-sided, on a - b, with equal pairs dropped as Wilcoxon has it;
    p is 1 where all pairs are equal. Fewer than six pairs cannot reach p < 0.05. The mean
    difference and its bootstrap interval say how much, which a p value does not.

    Args:
      a, b: One score per patient in the same order; a pair with a value that is not finite is left
        out and counted.

    Raises:
      ValueError: Another number of patients in a than in b.
    """
    a, b = _floats(a), _floats(b)
    if a.shape != b.shape:
        raise ValueError(f"a and b: expected one value per patient, got {len(a)} and {len(b)}")
    kept = np.isfinite(a) & np.isfinite(b)
    difference = a[kept] - b[kept]
    left_out = len(a) - len(difference)
    if not len(difference):
        return PairedTest(0, left_out, None, None, None, None)
    from scipy import stats  # here: it takes a third of a second, and --help waits for nothing

    p_value = float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0
    interval = bootstrap_interval(difference, seed)
    return PairedTest(len(difference), left_out, float(difference.mean()), *interval, p_value)


def _floats(values) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], np.float64)
