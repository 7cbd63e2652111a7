"""A power law of scores over the number of training patients, with its uncertainty.

The error 1 - Dice is modelled as floor + scale * patients ** -exponent, the form of learning curves
over orders of magnitude (Hestness et al., Deep Learning Scaling is Predictable, Empirically, 2017).
"""

from dataclasses import dataclass

import numpy as np
from scipy import optimize

_EXPONENTS = np.linspace(0.05, 2.0, 40)
RESAMPLES = 500


@dataclass(frozen=True)
class Law:
    """Dice = 1 - (floor + scale * patients ** -exponent).

    floor: Error with infinitely many patients, at least 0.
    scale: At least 0.
    exponent: Positive.
    """

    floor: float
    scale: float
    exponent: float

    def dice(self, patients):
        """Dice for a number of patients, or an array of numbers."""
        return 1 - self.floor - self.scale * np.asarray(patients, float) ** -self.exponent


def fit(sizes, dice) -> Law:
    """Fits a law to numbers of patients and their mean Dice by least squares."""
    errors, best = 1 - np.asarray(dice, float), None
    # For a given exponent, floor and scale are a linear problem with a unique solution.
    for exponent in _EXPONENTS:
        columns = np.stack([np.ones(len(sizes)), np.asarray(sizes, float) ** -exponent], 1)
        (floor, scale), residual = optimize.nnls(columns, errors)
        if best is None or residual < best[0]:
            best = residual, Law(float(floor), float(scale), float(exponent))
    return best[1]


def bootstrap(sizes, dice: np.ndarray, seed: int = 0) -> list[Law]:
    """Fits laws to resampled draws and validation patients.

    dice: float [sizes, draws, patients], NaN where an organ was not contoured.
    """
    # One resampling serves all sizes: the subsets of a draw are nested, the patients are the same.
    rng, laws = np.random.default_rng(seed), []
    _, draws, patients = dice.shape
    for _ in range(RESAMPLES):
        drawn, scored = rng.integers(draws, size=draws), rng.integers(patients, size=patients)
        sample = dice[:, drawn][:, :, scored]
        if np.isfinite(sample).any((1, 2)).all():
            laws.append(fit(sizes, np.nanmean(sample, (1, 2))))
    return laws


def interval(values) -> tuple[float, float]:
    """The central 95 % of the values."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
