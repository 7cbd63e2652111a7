"""The line that the positions of a volume's slices lie on: at even steps, uneven, or with gaps.

A step is a gap, where slices are missing, if it is a whole multiple (2, 3, ...) of the steps around
it. Where three or more steps of its length follow one another, or alternate with others (3, 6, 3,
6, 3, 6 mm), nothing is missing: the scanner made uneven steps.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from segthor.dicom import DicomError

_EXACT_MM, _EXACT_SHARE = 0.02, 0.01  # off the even step of the first and the last slice
_OFF_SHARE = 0.1  # of a step: how far a slice may lie off the fitted line
_ROUNDED_MM = 0.1  # exporters round positions to it
_MOST_DEGREES = 45  # between the line and the normal of the slices
_WHOLE = 0.1  # share by which a gap may differ from a whole number of steps
_AROUND = 5  # steps on either side of one that may be a gap
_FEWEST_ALIKE = 3  # long steps of one length that are no gaps
_LEAST_SHARE = 0.1  # of the median step: slices that lie closer are no two slices of one volume
_FEWEST_WIDE = 0.2  # share of longer steps, where rounding makes steps of two lengths


class Gap(NamedTuple):
    """A place where slices are missing: after which slice (from 0), and how many."""

    after: int
    missing: int


@dataclass(frozen=True)
class Line:
    """The line through the slices of a volume.

    first_mm: Position of the first slice, LPS [3].
    step_mm: From slice to slice, LPS [3]; of uneven steps the mean.
    rounded_mm: What the positions were rounded to, where that moves slices by more than a tenth of
      a step; else 0.
    places_mm: Distance of each slice from the first one, where steps are uneven or slices missing;
      None at even steps.
    gaps: Where slices are missing.
    usual_mm: The median step.
    """

    first_mm: np.ndarray
    step_mm: np.ndarray
    rounded_mm: float = 0.0
    places_mm: np.ndarray | None = None
    gaps: tuple[Gap, ...] = ()
    usual_mm: float = 0.0

    @property
    def length_mm(self) -> float:
        """The distance between slices along the line."""
        return float(np.linalg.norm(self.step_mm))

    @property
    def is_uneven(self) -> bool:
        """Whether the steps differ, beside those that are gaps."""
        if self.places_mm is None or not self.gaps:
            return self.places_mm is not None
        steps = np.delete(np.diff(self.places_mm), [gap.after for gap in self.gaps])
        return bool((abs(steps - self.usual_mm) > _tolerance_mm(self.usual_mm)).any())

    def offsets_mm(self, positions: np.ndarray) -> np.ndarray:
        """Position minus the place of the slice on the line, [Z, 3]."""
        return positions - self.first_mm - np.arange(len(positions))[:, None] * self.step_mm


def fit_line(positions: np.ndarray, normal: np.ndarray, path: str, nominal_mm: float = 0) -> Line:
    """The line of positions [Z, 3], which are ordered along the slices' normal.

    path: A file of the volume, for messages. nominal_mm: The distance that the headers name.

    Raises:
      DicomError: 'series_bent': the positions lie on no straight line across the slices, or two of
        them almost at one place.
    """
    first, last = positions[0], positions[-1]
    ends = Line(first, (last - first) / (len(positions) - 1))
    for line in (ends, _least_squares(positions)):
        if (
            _is_regular(line, ends, positions)
            and tilt_degrees(line.step_mm, normal) < _MOST_DEGREES
        ):
            return line
    rounded = _rounded_line(positions, normal, nominal_mm)
    if rounded is not None:
        return rounded
    return _uneven_line(positions, ends, normal, path)


def tilt_degrees(step, normal) -> float:
    """The angle between a step from slice to slice and the slices' normal."""
    # By the sine: the cosine of a small angle loses it.
    sine = np.linalg.norm(np.cross(step, normal)) / np.linalg.norm(step)
    degrees = float(np.degrees(np.arcsin(min(sine, 1))))
    return degrees if step @ normal > 0 else 180 - degrees


def _least_squares(positions) -> Line:
    index = np.arange(len(positions)) - (len(positions) - 1) / 2
    step = index @ positions / (index @ index)
    return Line(positions.mean(0) + index[0] * step, step)


def _is_regular(line: Line, ends: Line, positions) -> bool:
    """Whether every slice lies on the line.

    The even step between first and last slice is kept where it is exact: it does not depend on the
    arithmetic of a fit. Elsewhere the slices lie within a tenth of a step of the fitted line, and
    within that and what rounding does of the line through both ends, which a bend bows away from.
    """
    off = np.linalg.norm(line.offsets_mm(positions), axis=1).max()
    if line is ends:
        steps = np.linalg.norm(np.diff(positions, axis=0) - line.step_mm, axis=1)
        exact = max(_EXACT_MM, _EXACT_SHARE * line.length_mm)
        return bool(steps.max() <= exact and off < _OFF_SHARE * line.length_mm)
    bow = np.linalg.norm(ends.offsets_mm(positions), axis=1).max()
    limit = _OFF_SHARE * line.length_mm
    return bool(off <= limit and bow <= limit + _ROUNDED_MM)


def _rounded_line(positions, normal, nominal_mm: float) -> Line | None:
    """The line of positions that were rounded to much of a step, as 1.5 mm to whole millimetres.

    Steps then have two lengths that differ by the unit of rounding. A missing slice makes such
    steps too where slices lie one unit apart. It is told from rounding by how rare the longer steps
    are, and by the headers, which then name the shorter step as the slices' distance.
    """
    unit = _unit_mm(positions)
    line = _least_squares(positions)
    if not unit or np.abs(line.offsets_mm(positions)).max() > 0.6 * unit:
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


def _unit_mm(positions) -> float:
    """The coarsest of 1, 0.5 and 0.1 mm that slices lie apart in multiples of; 0 for none."""
    moved = positions - positions[0]  # a coordinate that all slices share is not rounded
    for unit in (1.0, 0.5, 0.1):
        if np.abs(moved / unit - np.rint(moved / unit)).max() < 1e-4:
            return unit
    return 0.0


def _uneven_line(positions, ends: Line, normal, path: str) -> Line:
    """The line of slices that lie at uneven steps, or of which some are missing."""
    direction = ends.step_mm / ends.length_mm
    places = (positions - positions[0]) @ direction
    steps = np.diff(places)
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])
    beside = np.linalg.norm(positions - positions[0] - places[:, None] * direction, axis=1)
    is_straight = beside.max() <= _tolerance_mm(usual)
    is_across = tilt_degrees(ends.step_mm, normal) < _MOST_DEGREES
    if not is_straight or not is_across or steps.min() < _LEAST_SHARE * usual:
        raise _bent(positions, ends, path)
    return Line(ends.first_mm, ends.step_mm, 0.0, places, _gaps(steps), usual)


def _gaps(steps) -> tuple[Gap, ...]:
    """The steps that are gaps; see the top of this module."""
    gaps = []
    for k, step in enumerate(steps):
        near = np.sort(np.r_[steps[max(0, k - _AROUND) : k], steps[k + 1 : k + 1 + _AROUND]])
        times = step / near[(len(near) - 1) // 2] if len(near) else 1.0
        is_multiple = times > 1.5 and abs(times - np.rint(times)) <= _WHOLE * times
        if is_multiple and _count_alike(steps, k) < _FEWEST_ALIKE:
            gaps.append(Gap(k, int(np.rint(times)) - 1))
    return tuple(gaps)


def _count_alike(steps, k: int) -> int:
    """How many steps of the length of step k follow one another, with at most one between."""
    alike = np.flatnonzero(abs(steps - steps[k]) <= _tolerance_mm(steps[k]))
    ends = np.flatnonzero(np.diff(alike) > 2) + 1
    return len(next(part for part in np.split(alike, ends) if k in part))


def _tolerance_mm(step_mm: float) -> float:
    """By how much steps of one length may differ."""
    return max(_ROUNDED_MM, _OFF_SHARE * step_mm)


def _bent(positions, ends: Line, path: str) -> DicomError:
    steps = np.diff(positions, axis=0)
    k = int(np.linalg.norm(steps - ends.step_mm, axis=1).argmax())
    lengths = np.linalg.norm(steps, axis=1)
    return DicomError(
        "series_bent",
        f"{path}: expected slices on a straight line, found steps of {lengths.min():.5g} to "
        f"{lengths.max():.5g} mm off it or at one place, the oddest between "
        f"{place(positions[k])} and {place(positions[k + 1])}; export the series again",
    )


def place(position) -> str:
    """A position [3], for people."""
    return "(" + ", ".join(f"{mm:g}" for mm in position) + ") mm"
