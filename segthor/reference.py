"""Figures of the training patients, with which those of a new scan and its organs are compared.

The trainer computes them from the manifest; the run and the model contain them. Numpy only.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from segthor.figures import OrganFigures
from segthor.geometry import Placement

FEWEST = 3  # number of patients that a spread needs
GREY_RANGES = 16
_EVERY = 4  # the grey levels of every fourth slice are counted
# Least spread, as a share of the mean and in the figure's unit: similar training patients must not
# make every other patient an outlier.
_LEAST_SHARE = 0.03
_LEAST = {
    "mean_hu": 8.0,
    "level_hu": 5.0,
    "left_mm": 4.0,
    "posterior_mm": 4.0,
    "superior_mm": 6.0,
    "log_volume": 0.1,
    "outside_share": 0.02,
    "grey_distance": 0.01,
}


@dataclass(frozen=True)
class Spread:
    """The distribution of one figure over the training patients.

    mean: Mean.
    sd: Standard deviation of the sample.
    low, high: Lowest and highest value.
    """

    mean: float
    sd: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """The spread of two or more values."""
        values = np.array(list(values), float)
        numbers = values.mean(), values.std(ddof=1), values.min(), values.max()
        return cls(*(round(float(number), 5) for number in numbers))

    def z_score(self, name: str, value: float) -> float:
        """Distance of a value from the mean in standard deviations. name: Name of the figure."""
        spread = max(self.sd, _LEAST_SHARE * abs(self.mean), _LEAST.get(name, 0.0), 1e-6)
        return round(float(np.clip((value - self.mean) / spread, -99, 99)), 2)


@dataclass(frozen=True)
class Reference:
    """Figures of the training patients.

    patients: Number of patients.
    grey_shares: Mean of the patients' `grey_shares`.
    scan: Figure of `scan_figures` to its spread.
    organs: Organ's name to the figures of `organ_figures` and their spreads.
    """

    patients: int
    grey_shares: tuple[float, ...]
    scan: dict[str, Spread]
    organs: dict[str, dict[str, Spread]]

    def scan_figures(self, placement: Placement, level_hu: float, shares) -> dict[str, float]:
        """`scan_figures`, and the distance of the grey levels from the training patients' mean."""
        distance = grey_distance(shares, self.grey_shares)
        return scan_figures(placement, level_hu) | {"grey_distance": distance}


def compute_reference(patients) -> Reference | None:
    """The reference for rows of the manifest (`manifest.Built`); None for too few patients."""
    known = [row for row in patients if row.grey_shares]
    if len(known) < FEWEST:
        return None
    mean_shares = tuple(float(x) for x in np.mean([row.grey_shares for row in known], 0).round(6))
    scans = [
        scan_figures(row.placement, row.level_hu)
        | {"grey_distance": grey_distance(row.grey_shares, mean_shares)}
        for row in known
    ]
    organs = [organ_figures(row.audit.organs) for row in known]
    names = sorted({name for row in organs for name in row})
    per_organ = {name: _spreads([row[name] for row in organs if name in row]) for name in names}
    return Reference(len(known), mean_shares, _spreads(scans), per_organ)


def _spreads(rows: list[dict[str, float]]) -> dict[str, Spread]:
    names = dict.fromkeys(name for row in rows for name in row)
    values = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: Spread.of(own) for name, own in values.items() if len(own) >= FEWEST}


def scan_figures(placement: Placement, level_hu: float) -> dict[str, float]:
    """Figures of a scan's grid and box, in mm. outside_share: Share of the box outside the scan."""
    z_mm, y_mm, x_mm = placement.spacing_zyx_mm
    depth, height, width = placement.shape_zyx
    return {
        "slice_mm": z_mm,
        "pixel_mm": float(np.sqrt(y_mm * x_mm)),
        "length_mm": depth * z_mm,
        "width_mm": float(np.sqrt(height * y_mm * width * x_mm)),
        "outside_share": 1 - placement.share_inside,
        "level_hu": level_hu,
    }


def organ_figures(measured: dict[str, OrganFigures]) -> dict[str, dict[str, float]]:
    """Organ's name to the figures that are compared, from the measured ones.

    left_mm, posterior_mm and superior_mm are the position of the organ's centre relative to the
    mean centre of the other organs; they are left out where there is no other organ.
    """
    figures = {}
    for name, row in measured.items():
        figures[name] = {
            "log_volume": float(np.log(max(row.volume_cm3, 0.01))),
            "length_mm": row.extent_z_mm,
            "mean_hu": row.mean_hu,
        }
        others = [other.center_lps_mm for key, other in measured.items() if key != name]
        if others:
            relative = np.subtract(row.center_lps_mm, np.mean(others, 0))
            names = ("left_mm", "posterior_mm", "superior_mm")
            figures[name] |= dict(zip(names, map(float, relative), strict=True))
    return figures


def grey_shares(images: np.ndarray) -> tuple[float, ...]:
    """Shares of the pixels of uint8 [Z, H, W] in GREY_RANGES equal ranges of grey levels.

    Pixels of grey level 0 do not count, so that the amount of air in the box does not matter. All 0
    where there are no other pixels.
    """
    counts = np.zeros(256, np.int64)
    for plane in images[::_EVERY]:
        counts += np.bincount(plane.ravel(), minlength=256)
    counts[0] = 0
    ranges = counts.reshape(GREY_RANGES, -1).sum(1)
    return tuple(float(x) for x in (ranges / max(1, ranges.sum())).round(6))


def grey_distance(one, other) -> float:
    """Wasserstein distance between two distributions of grey levels, as a share of the window.

    It is the mean distance between the two cumulative distributions, 0 to 1.
    """
    return float(np.abs(np.cumsum(np.subtract(one, other))).mean())
