"""Fits a line to the positions of a volume's slices, at even or uneven steps, and finds gaps.

A gap is a step that is a whole multiple (2, 3, ...) of the steps around it: slices are missing
there. Where three or more steps of its length follow one another, or alternate with others (3, 6,
3, 6, 3, 6 mm), nothing is missing: the scanner made uneven steps.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from segthor.dicom import DicomError

_EXACT_MM, _EXACT_SHARE = 0.02, 0.01  # largest difference from the mean step, mm and its share
_OFF_SHARE = 0.1  # share of a step that a slice may lie off the fitted line
_ROUNDED_MM = 0.1  # exporters round positions to this
_MOST_DEGREES = 45  # largest angle between the line and the normal of the slices
_WHOLE = 0.1  # share by which a gap may differ from a whole number of steps
_AROUND = 5  # number of steps on either side that a gap is compared with
_FEWEST_ALIKE = 3  # this many long steps of one length are no gaps
_LEAST_SHARE = 0.1  # share of the median step; slices closer than this are not of one volume
_FEWEST_WIDE = 0.2  # least share of the longer steps, where rounding makes steps of two lengths


class Gap(NamedTuple):
    """A place where slices are missing.

    after: Number of the slice before the gap, from 0.
    missing: Number of missing slices.
    """

    after: int
    missing: int


@dataclass(frozen=True)
class Line:
    """The line through the slices of a volume.

    first_mm: Position of the first slice, LPS [3].
    step_mm: Vector from slice to slice, LPS [3]; the mean of uneven steps.
    rounded_mm: Unit to which positions were rounded, where that moves slices by more than a tenth
      of a step; else 0.
    offsets_mm: Distance of each slice from the first one, float64 [Z], where steps are uneven or
      slices are missing; None at even steps.
    gaps: The gaps, in the order of the slices.
    median_mm: The median step, where `offsets_mm` is given; else 0.
    """

    first_mm: np.ndarray
    step_mm: np.ndarray
    rounded_mm: float = 0.0
    offsets_mm: np.ndarray | None = None
    gaps: tuple[Gap, ...] = ()
    median_mm: float = 0.0

    @property
    def length_mm(self) -> float:
        """The (mean) distance between neighbouring slices."""
        return float(np.linalg.norm(self.step_mm))

    @property
    def is_uneven(self) -> bool:
        """Whether the steps that are no gaps differ."""
        if self.offsets_mm is None or not self.gaps:
            return self.offsets_mm is not None
        return bool((abs(self.steps_mm - self.median_mm) > _tolerance_mm(self.median_mm)).any())

    @property
    def steps_mm(self) -> np.ndarray:
        """The uneven steps that are no gaps, float64 [N]."""
        return np.delete(np.diff(self.offsets_mm), [gap.after for gap in self.gaps])

    def deviations_mm(self, positions: np.ndarray) -> np.ndarray:
        """The difference of positions [Z, 3] from slices at even steps on the line, [Z, 3]."""
        return positions - self.first_mm - np.arange(len(positions))[:, None] * self.step_mm


def fit_line(positions: np.ndarray, normal: np.ndarray, path: str, nominal_mm: float = 0) -> Line:
    """Fits the line of a volume's slices.

    Args:
      positions: Positions of the slices, LPS mm [Z, 3], ordered along their normal.
      normal: Unit vector perpendicular to the slices, [3].
      path: A file of the volume, for messages.
      nominal_mm: Distance between slices that the headers name; 0 where they name none.

    Raises:
      DicomError: 'series_bent' if the positions do not lie on a straight line across the slices, or
        if two of them almost coincide.
    """
    first, last = positions[0], positions[-1]
    ends = Line(first, (last - first) / (len(positions) - 1))
    for line in (ends, _fit_least_squares(positions)):
        if _is_even(line, ends, positions) and tilt_degrees(line.step_mm, normal) < _MOST_DEGREES:
            return line
    rounded = _fit_rounded_line(positions, normal, nominal_mm)
    if rounded is not None:
        return rounded
    return _fit_uneven_line(positions, ends, normal, path)


def tilt_degrees(step, normal) -> float:
    """The angle between a step from slice to slice and the slices' normal."""
    # From the sine, because the cosine of a small angle is 1 in floating point.
    sine = np.linalg.norm(np.cross(step, normal)) / np.linalg.norm(step)
    degrees = float(np.degrees(np.arcsin(min(sine, 1))))
    return degrees if step @ normal > 0 else 180 - degrees


def _fit_least_squares(positions) -> Line:
    index = np.arange(len(positions)) - (len(positions) - 1) / 2
    step = index @ positions / (index @ index)
    return Line(positions.mean(0) + index[0] * step, step)


def _is_even(line: Line, ends: Line, positions) -> bool:
    """Whether every slice lies at an even step on the line.

    The line through the first and the last slice (`ends`) is preferred where it is exact, because
    it does not depend on the arithmetic of a fit. Otherwise slices may lie up to a tenth of a step
    off the fitted line. They must also lie near the line through both ends: a fit through a bent
    series passes its slices more closely than that line does.
    """
    off = np.linalg.norm(line.deviations_mm(positions), axis=1).max()
    if line is ends:
        steps = np.linalg.norm(np.diff(positions, axis=0) - line.step_mm, axis=1)
        exact = max(_EXACT_MM, _EXACT_SHARE * line.length_mm)
        return bool(steps.max() <= exact and off < _OFF_SHARE * line.length_mm)
    bow = np.linalg.norm(ends.deviations_mm(positions), axis=1).max()
    limit = _OFF_SHARE * line.length_mm
    return bool(off <= limit and bow <= limit + _ROUNDED_MM)


def _fit_rounded_line(positions, normal, nominal_mm: float) -> Line | None:
    """Fits positions that were rounded coarsely, such as steps of 1.5 mm to whole millimetres.

    Their steps have two lengths, which differ by the unit of rounding. A missing slice makes such
    steps, too, where slices lie one unit apart. Two signs distinguish it from rounding: the longer
    steps are rare, and the headers name the shorter step as the distance between slices.

    Returns:
      None if rounding does not explain the positions.
    """
    unit = _rounding_unit_mm(positions)
    line = _fit_least_squares(positions)
    if not unit or np.abs(line.deviations_mm(positions)).max() > 0.6 * unit:
        return None
    along = np.diff(positions @ normal)
    lengths = np.unique(np.rint(along / unit))
    wide = np.count_nonzero(along > line.length_mm) / len(along)
    is_mixed = len(lengths) == 2 and lengths[0] >= 1 and lengths[1] - lengths[0] == 1
    names_shorter = abs(nominal_mm - lengths[0] * unit) < 0.01 * unit
    if not is_mixed or names_shorter or not _FEWEST_WIDE <= wide <= 1 - _FEWEST_WIDE:
        return None
    if tilt_degrees(line.step_mm, normal) >= _MOST_DEGREES:
        return None
    return Line(line.first_mm, line.step_mm, unit)


def _rounding_unit_mm(positions) -> float:
    """The coarsest of 1, 0.5 and 0.1 mm of which all differences are multiples; 0 for none."""
    # Relative to the first slice, because a coordinate that all slices share may have any value.
    moved = positions - positions[0]
    for unit in (1.0, 0.5, 0.1):
        if np.abs(moved / unit - np.rint(moved / unit)).max() < 1e-4:
            return unit
    return 0.0


def _fit_uneven_line(positions, ends: Line, normal, path: str) -> Line:
    """Fits slices that lie at uneven steps, or of which some are missing."""
    direction = ends.step_mm / ends.length_mm
    offsets = (positions - positions[0]) @ direction
    steps = np.diff(offsets)
    median = float(np.sort(steps)[(len(steps) - 1) // 2])
    off_line = np.linalg.norm(positions - positions[0] - offsets[:, None] * direction, axis=1)
    is_straight = off_line.max() <= _tolerance_mm(median)
    is_across = tilt_degrees(ends.step_mm, normal) < _MOST_DEGREES
    if not is_straight or not is_across or steps.min() < _LEAST_SHARE * median:
        raise _bent_error(positions, ends, path)
    return Line(ends.first_mm, ends.step_mm, 0.0, offsets, _find_gaps(steps), median)


def _find_gaps(steps) -> tuple[Gap, ...]:
    """Finds the steps that are gaps, by the rule at the top of this module."""
    gaps = []
    for k, step in enumerate(steps):
        near = np.sort(np.r_[steps[max(0, k - _AROUND) : k], steps[k + 1 : k + 1 + _AROUND]])
        times = step / near[(len(near) - 1) // 2] if len(near) else 1.0
        is_multiple = times > 1.5 and abs(times - np.rint(times)) <= _WHOLE * times
        if is_multiple and _count_alike(steps, k) < _FEWEST_ALIKE:
            gaps.append(Gap(k, int(np.rint(times)) - 1))
    return tuple(gaps)


def _count_alike(steps, k: int) -> int:
    """The number of steps as long as step k in its run; between two may lie one other step."""
    alike = np.flatnonzero(abs(steps - steps[k]) <= _tolerance_mm(steps[k]))
    ends = np.flatnonzero(np.diff(alike) > 2) + 1
    return len(next(part for part in np.split(alike, ends) if k in part))


def _tolerance_mm(step_mm: float) -> float:
    """The largest difference between steps that count as equally long."""
    return max(_ROUNDED_MM, _OFF_SHARE * step_mm)


def _bent_error(positions, ends: Line, path: str) -> DicomError:
    steps = np.diff(positions, axis=0)
    k = int(np.linalg.norm(steps - ends.step_mm, axis=1).argmax())
    lengths = np.linalg.norm(steps, axis=1)
    return DicomError(
        "series_bent",
        f"{path}: expected slices apart from each other on a straight line, found steps of "
        f"{lengths.min():.5g} to {lengths.max():.5g} mm, of which the one between "
        f"{format_position(positions[k])} and {format_position(positions[k + 1])} differs most; "
        "export the series again",
    )


def format_position(position) -> str:
    """A position [3] in mm, for messages."""
    return "(" + ", ".join(f"{mm:g}" for mm in position) + ") mm"
