"""How scores grow with the number of patients: a power law, its uncertainty, and what more brings.

The error 1 - Dice is taken to fall as floor + scale * patients ** -exponent, the form that learning
curves have over orders of magnitude (Hestness et al., Deep Learning Scaling is Predictable,
Empirically, 2017).
"""

from dataclasses import dataclass

import numpy as np
from scipy import optimize

_EXPONENTS = np.linspace(0.05, 2.0, 40)
RESAMPLES = 500


@dataclass(frozen=True)
class Law:
    """Dice = 1 - (floor + scale * patients ** -exponent), floor and scale not negative."""

    floor: float
    scale: float
    exponent: float

    def dice(self, patients):
        """Of a number of patients or of an array of them."""
        return 1 - self.floor - self.scale * np.asarray(patients, float) ** -self.exponent


def fit(sizes, dice) -> Law:
    """The law of least squares through these numbers of patients and their mean Dice."""
    errors, best = 1 - np.asarray(dice, float), None
    for exponent in _EXPONENTS:
        columns = np.stack([np.ones(len(sizes)), np.asarray(sizes, float) ** -exponent], 1)
        found, residual = optimize.nnls(columns, errors)
        if best is None or residual < best[0]:
            best = residual, Law(float(found[0]), float(found[1]), float(exponent))
    return best[1]


def bootstrap(sizes, dice: np.ndarray, seed: int = 0) -> list[Law]:
    """Laws of resampled draws and patients.

    dice: float [sizes, draws, patients], NaN where an organ was not contoured. Draws are resampled
    across all sizes together, since the subsets of one draw are nested, and so are the validation
    patients.
    """
    rng, laws = np.random.default_rng(seed), []
    _, draws, patients = dice.shape
    for _ in range(RESAMPLES):
        drawn, scored = rng.integers(draws, size=draws), rng.integers(patients, size=patients)
        sample = dice[:, drawn][:, :, scored]
        if np.isfinite(sample).any((1, 2)).all():
            laws.append(fit(sizes, np.nanmean(sample, (1, 2))))
    return laws


def interval(values) -> tuple[float, float]:
    """The middle 95 %."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
