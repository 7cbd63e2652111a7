"""Worsens scans in nine ways, for a calibration to learn from poor predictions too.

Each kind takes a scan and its labels and returns both, on a new grid where slices are thicker or
the field of view is smaller. The strength is random, from hardly visible to useless.
"""

from dataclasses import replace

import numpy as np
from scipy import ndimage

from segthor.volume import Grid, LabelMap, Volume

_AIR_HU = -1000
_BLOOD_HU = 45.0
_ENHANCED_HU = (70.0, 500.0)  # medians of organs that hold contrast agent


def worsen_scan(kind: str, scan: Volume, labels: LabelMap, rng) -> tuple[Volume, LabelMap]:
    """Worsens a scan; returns it with its labels.

    kind: One of KINDS.
    rng: numpy.random.Generator.
    """
    return KINDS[kind](scan, labels, rng)


def _noise(scan, labels, rng):
    """Adds noise of 15 to 250 HU, correlated as by a reconstruction."""
    white = rng.standard_normal(scan.zyx.shape, np.float32)
    grain = sum((np.roll(white, 1, axis) for axis in range(3)), white) / 2
    return _with(scan, scan.zyx + _between(rng, 15, 250) * grain), labels


def _blur(scan, labels, rng):
    """Blurs with a Gaussian of 1 to 9 mm in all directions."""
    sigma = _between(rng, 1, 9) / np.array(scan.spacing_mm)
    return _with(scan, ndimage.gaussian_filter(scan.zyx.astype(np.float32), sigma)), labels


def _slices(scan, labels, rng):
    """Averages slabs of 2 to 5 slices."""
    group = min(int(rng.integers(2, 6)), max(1, len(scan.zyx) // 4))
    whole = len(scan.zyx) // group * group
    hu = scan.zyx[:whole].reshape(-1, group, *scan.zyx.shape[1:]).mean(1, dtype=np.float32)
    grid = scan.grid.part(hu.shape, ((group - 1) / 2, 0, 0), (group, 1, 1))
    return _on(grid, hu, labels, labels.zyx[group // 2 : whole : group])


def _crop(scan, labels, rng):
    """Cuts off 15 to 60 % at one end of the body, or up to half as much at one of its sides."""
    along_body = rng.random() < 0.6
    axis = 0 if along_body else 2 - int(rng.integers(2))
    share = rng.uniform(0.15, 0.6) * (1 if along_body else 0.5)
    length = scan.zyx.shape[axis]
    cut = min(int(length * share), length - 4)
    first = cut if rng.random() < 0.5 else 0
    part, start = [slice(None)] * 3, [0, 0, 0]
    part[axis], start[axis] = slice(first, first + length - cut), first
    hu = scan.zyx[tuple(part)]
    return _on(scan.grid.part(hu.shape, start), hu, labels, labels.zyx[tuple(part)])


def _level(scan, labels, rng):
    """Shifts all values by 15 to 200 HU, up or down."""
    return _with(scan, scan.zyx + _between(rng, 15, 200) * rng.choice((-1, 1))), labels


def _contrast(scan, labels, rng):
    """Removes half or more of the contrast agent from contoured organs that hold some."""
    hu = scan.zyx.astype(np.float32)
    share = rng.uniform(0.5, 1)
    for value in labels.boxes:
        mask = labels.zyx == value
        middle = float(np.median(hu[mask]))
        if _ENHANCED_HU[0] <= middle <= _ENHANCED_HU[1]:
            hu[mask] -= share * (middle - _BLOOD_HU)
    return _with(scan, hu), labels


def _streaks(scan, labels, rng):
    """Adds streaks of 40 to 700 HU about a point, as by metal, to some consecutive slices."""
    _, y_mm, x_mm = scan.spacing_mm
    hu = scan.zyx.astype(np.float32)
    depth, height, width = hu.shape
    row, column = height * rng.uniform(0.35, 0.65), width * rng.uniform(0.35, 0.65)
    y, x = np.mgrid[:height, :width]
    angle = np.arctan2((y - row) * y_mm, (x - column) * x_mm)
    distance_mm = np.hypot((y - row) * y_mm, (x - column) * x_mm)
    rays = np.cos(int(rng.integers(4, 14)) * angle + rng.uniform(0, 6)) ** 3
    rays *= _between(rng, 40, 700) / (1 + distance_mm / 80)
    held = max(2, int(depth * rng.uniform(0.2, 0.8)))
    first = int(rng.integers(0, depth - held + 1))
    hu[first : first + held] += rays
    return _with(scan, hu), labels


def _lost(scan, labels, rng):
    """Replaces 5 to 45 % of the slices by air."""
    hu = scan.zyx.copy()
    held = max(1, int(len(hu) * rng.uniform(0.05, 0.45)))
    first = int(rng.integers(0, len(hu) - held + 1))
    hu[first : first + held] = _AIR_HU
    return replace(scan, zyx=hu), labels


def _motion(scan, labels, rng):
    """Blends in 15 to 50 % of a copy that lies 4 to 40 mm away in plane, as by motion."""
    _, y_mm, x_mm = scan.spacing_mm
    hu = scan.zyx.astype(np.float32)
    away_mm, angle = _between(rng, 4, 40), rng.uniform(0, 2 * np.pi)
    away_px = np.rint(away_mm * np.array([np.sin(angle) / y_mm, np.cos(angle) / x_mm]))
    share = np.float32(rng.uniform(0.15, 0.5))
    hu += share * (np.roll(hu, away_px.astype(int), (1, 2)) - hu)
    return _with(scan, hu), labels


KINDS = {
    "noise": _noise,
    "blur": _blur,
    "slices": _slices,
    "cut": _crop,
    "level": _level,
    "contrast": _contrast,
    "streaks": _streaks,
    "lost": _lost,
    "motion": _motion,
}


def _between(rng, low: float, high: float) -> np.float32:
    """Draws a number, uniform in its logarithm, so that weak and strong effects are as frequent."""
    return np.float32(np.exp(rng.uniform(np.log(low), np.log(high))))


def _with(scan: Volume, hu: np.ndarray) -> Volume:
    return replace(scan, zyx=_as_int16(hu))


def _on(grid: Grid, hu: np.ndarray, labels: LabelMap, zyx: np.ndarray) -> tuple[Volume, LabelMap]:
    """Puts a scan and its labels [Z, Y, X] on a new grid."""
    return Volume(_as_int16(hu), grid), replace(labels, zyx=np.ascontiguousarray(zyx), grid=grid)


def _as_int16(hu: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(hu, -32768, 32767)).astype(np.int16)
