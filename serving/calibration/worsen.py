"""Scans as they should not be: what a calibration has to have seen before it can judge one.

Each kind takes a scan and its labels and gives both again, on a grid of their own where slices are
thicker or the field of view is smaller. How strong it is, the random numbers decide: from hardly
visible to useless.
"""

import numpy as np
from scipy import ndimage

from segthor.geometry import Orientation
from segthor.nifti import Grid, Scan

_AIR_HU = -1000
_BLOOD_HU = 45.0
_ENHANCED_HU = (70.0, 500.0)  # medians of organs that hold contrast agent


def worsened(kind: str, scan: Scan, labels: np.ndarray, rng) -> tuple[Scan, np.ndarray]:
    """(scan, labels) of one of KINDS.

    scan: [X, Y, Z] HU; labels: uint8, the same shape. rng: a numpy Generator.
    """
    return KINDS[kind](scan, labels, rng)


def _noise(scan, labels, rng):
    """Noise of 15 to 250 HU, as grainy as a reconstruction's."""
    white = rng.standard_normal(scan.array.shape, np.float32)
    grain = sum((np.roll(white, 1, axis) for axis in range(3)), white) / 2
    return _with(scan, scan.array + _between(rng, 15, 250) * grain), labels


def _blur(scan, labels, rng):
    """A Gaussian of 1 to 9 mm in all directions."""
    sigma = _between(rng, 1, 9) / np.array(scan.grid.spacing_mm)
    return _with(scan, ndimage.gaussian_filter(scan.array.astype(np.float32), sigma)), labels


def _slices(scan, labels, rng):
    """Slabs of 2 to 5 slices."""
    axis = Orientation.of(scan.grid.affine).axes[2]
    group = min(int(rng.integers(2, 6)), max(1, scan.array.shape[axis] // 4))
    whole = scan.array.shape[axis] // group * group
    hu, found = (np.moveaxis(array, axis, 0)[:whole] for array in (scan.array, labels))
    hu = hu.reshape(-1, group, *hu.shape[1:]).mean(1, dtype=np.float32)
    affine = scan.grid.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (group - 1) / 2
    affine[:3, axis] *= group
    found = np.moveaxis(found[group // 2 :: group], 0, axis)
    return _on(np.moveaxis(hu, 0, axis), affine), np.ascontiguousarray(found)


def _cut(scan, labels, rng):
    """15 to 60 % cut off at one end of the body, or up to half as much at one of its sides."""
    orientation = Orientation.of(scan.grid.affine)
    along_body = rng.random() < 0.6
    axis = orientation.axes[2 if along_body else int(rng.integers(2))]
    share = rng.uniform(0.15, 0.6) * (1 if along_body else 0.5)
    length = scan.array.shape[axis]
    cut = min(int(length * share), length - 4)
    first = cut if rng.random() < 0.5 else 0
    part = [slice(None)] * 3
    part[axis] = slice(first, first + length - cut)
    affine = scan.grid.affine.copy()
    affine[:3, 3] += affine[:3, axis] * first
    return _on(scan.array[tuple(part)], affine), np.ascontiguousarray(labels[tuple(part)])


def _level(scan, labels, rng):
    """All values 15 to 200 HU too high or too low."""
    return _with(scan, scan.array + _between(rng, 15, 200) * rng.choice((-1, 1))), labels


def _contrast(scan, labels, rng):
    """Contoured organs that hold contrast agent lose half of it or all."""
    hu = scan.array.astype(np.float32)
    share = rng.uniform(0.5, 1)
    for value in np.unique(labels[labels > 0]):
        mask = labels == value
        middle = float(np.median(hu[mask]))
        if _ENHANCED_HU[0] <= middle <= _ENHANCED_HU[1]:
            hu[mask] -= share * (middle - _BLOOD_HU)
    return _with(scan, hu), labels


def _streaks(scan, labels, rng):
    """Rays of 40 to 700 HU from a point, as metal sends them, in a stack of the slices."""
    orientation = Orientation.of(scan.grid.affine)
    z_mm, y_mm, x_mm = orientation.spacing_mm(scan.grid.affine)
    zyx = orientation.to_zyx(scan.array).astype(np.float32)
    depth, height, width = zyx.shape
    row, column = height * rng.uniform(0.35, 0.65), width * rng.uniform(0.35, 0.65)
    y, x = np.mgrid[:height, :width]
    angle = np.arctan2((y - row) * y_mm, (x - column) * x_mm)
    distance_mm = np.hypot((y - row) * y_mm, (x - column) * x_mm)
    rays = np.cos(int(rng.integers(4, 14)) * angle + rng.uniform(0, 6)) ** 3
    rays *= _between(rng, 40, 700) / (1 + distance_mm / 80)
    held = max(2, int(depth * rng.uniform(0.2, 0.8)))
    first = int(rng.integers(0, depth - held + 1))
    zyx[first : first + held] += rays
    return _with(scan, orientation.to_scan(zyx)), labels


def _lost(scan, labels, rng):
    """5 to 45 % of the slices hold nothing but air."""
    axis = Orientation.of(scan.grid.affine).axes[2]
    hu = scan.array.copy()
    slices = np.moveaxis(hu, axis, 0)
    held = max(1, int(len(slices) * rng.uniform(0.05, 0.45)))
    first = int(rng.integers(0, len(slices) - held + 1))
    slices[first : first + held] = _AIR_HU
    return Scan(hu, scan.grid), labels


def _motion(scan, labels, rng):
    """A fainter copy of 15 to 50 %, 4 to 40 mm away in the plane: the patient moved meanwhile."""
    orientation = Orientation.of(scan.grid.affine)
    _, y_mm, x_mm = orientation.spacing_mm(scan.grid.affine)
    zyx = orientation.to_zyx(scan.array).astype(np.float32)
    away_mm, angle = _between(rng, 4, 40), rng.uniform(0, 2 * np.pi)
    away_px = np.rint(away_mm * np.array([np.sin(angle) / y_mm, np.cos(angle) / x_mm]))
    share = np.float32(rng.uniform(0.15, 0.5))
    zyx += share * (np.roll(zyx, away_px.astype(int), (1, 2)) - zyx)
    return _with(scan, orientation.to_scan(zyx)), labels


KINDS = {
    "noise": _noise,
    "blur": _blur,
    "slices": _slices,
    "cut": _cut,
    "level": _level,
    "contrast": _contrast,
    "streaks": _streaks,
    "lost": _lost,
    "motion": _motion,
}


def _between(rng, low: float, high: float) -> np.float32:
    """Even on a scale of ratios, so that slight ones are as usual as gross ones."""
    return np.float32(np.exp(rng.uniform(np.log(low), np.log(high))))


def _with(scan: Scan, hu: np.ndarray) -> Scan:
    return Scan(np.rint(np.clip(hu, -32768, 32767)).astype(np.int16), scan.grid)


def _on(hu: np.ndarray, affine: np.ndarray) -> Scan:
    hu = np.rint(np.clip(hu, -32768, 32767)).astype(np.int16)
    return Scan(hu, Grid.from_affine(hu.shape, affine))
