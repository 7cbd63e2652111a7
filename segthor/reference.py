"""What the training patients measure, so that a new scan and its organs can be compared with them.

Taken from the manifest by the trainer, kept in the run and in the model. Numpy only.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from segthor import fields
from segthor.geometry import Placement

FEWEST = 3  # patients, below which a spread means nothing
GREY_RANGES = 16
_EVERY = 4  # slices, of which one is looked at for its grey levels
_SMALLEST_SHARE = 0.03  # of the mean: what a spread is at least
# And in the figure's own unit, so that patients that happen to be alike set no absurd limit.
_SMALLEST = {
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
    """One figure over the training patients. low, high: the lowest and highest of them."""

    mean: float
    sd: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Of two or more values; sd: that of a sample."""
        values = np.array(list(values), float)
        numbers = values.mean(), values.std(ddof=1), values.min(), values.max()
        return cls(*(round(float(number), 5) for number in numbers))

    def z_score(self, name: str, value: float) -> float:
        """How many spreads a value of this figure lies above the mean; below it: negative."""
        spread = max(self.sd, _SMALLEST_SHARE * abs(self.mean), _SMALLEST.get(name, 0.0), 1e-6)
        return round(float(np.clip((value - self.mean) / spread, -99, 99)), 2)


@dataclass(frozen=True)
class Reference:
    """The training patients' figures; names as in `scan_figures` and `organ_figures`.

    grey_shares: the mean over patients of `grey_shares`.
    """

    patients: int
    grey_shares: tuple[float, ...]
    scan: dict[str, Spread]
    organs: dict[str, dict[str, Spread]]

    def to_json(self) -> dict:
        """Plain values; `from_json` restores them."""
        return asdict(self)

    @classmethod
    def from_json(cls, value) -> "Reference":
        """The way back of `to_json`; raises InputError for anything else."""
        return fields.from_json(cls, value, "reference")

    def scan_figures(self, placement: Placement, level_hu: float, shares) -> dict[str, float]:
        """`scan_figures`, and how far the grey levels are from the training patients' mean."""
        distance = grey_distance(shares, self.grey_shares)
        return scan_figures(placement, level_hu) | {"grey_distance": distance}


def of_dataset(patients) -> Reference | None:
    """Of rows of the manifest (`manifest.Built`); None where too few have the figures."""
    known = [row for row in patients if row.grey_shares]
    if len(known) < FEWEST:
        return None
    mean_shares = tuple(float(x) for x in np.mean([row.grey_shares for row in known], 0).round(6))
    scans = [
        scan_figures(Placement.from_json(row.placement), row.level_hu)
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
    return {name: Spread.of(found) for name, found in values.items() if len(found) >= FEWEST}


def scan_figures(placement: Placement, level_hu: float) -> dict[str, float]:
    """What a scan's grid and box measure, in mm; outside_share: of the box, beyond the scan."""
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


def organ_figures(measured: Mapping[str, Mapping]) -> dict[str, dict[str, float]]:
    """Organ to its figures, from the fields of `figures.OrganFigures`.

    Places are those of the organ's centre from the mean centre of the other organs that are there,
    towards left, posterior and superior; left out where there is no other.
    """
    found = {}
    for name, row in measured.items():
        found[name] = {
            "log_volume": float(np.log(max(row["volume_cm3"], 0.01))),
            "length_mm": row["extent_z_mm"],
            "mean_hu": row["mean_hu"],
        }
        others = [other["center_lps_mm"] for key, other in measured.items() if key != name]
        if others:
            apart = np.subtract(row["center_lps_mm"], np.mean(others, 0))
            names = ("left_mm", "posterior_mm", "superior_mm")
            found[name] |= dict(zip(names, map(float, apart), strict=True))
    return found


def grey_shares(images: np.ndarray) -> tuple[float, ...]:
    """How the pixels of uint8 [Z, H, W] spread over equal ranges of grey levels.

    Only pixels denser than the window's lower end count: tissue, wherever the box's air is. All 0
    where there are none.
    """
    counts = np.zeros(256, np.int64)
    for plane in images[::_EVERY]:
        counts += np.bincount(plane.ravel(), minlength=256)
    counts[0] = 0
    ranges = counts.reshape(GREY_RANGES, -1).sum(1)
    return tuple(float(x) for x in (ranges / max(1, ranges.sum())).round(6))


def grey_distance(one, other) -> float:
    """The mean distance between two cumulative distributions of grey levels, 0 to 1.

    It is the distance by which grey has to be moved to turn the one into the other (Wasserstein),
    as a share of the window's width.
    """
    return float(np.abs(np.cumsum(np.subtract(one, other))).mean())
