"""The regular line that the positions of a volume's slices lie on, or why there is none."""

from dataclasses import dataclass

import numpy as np

from segthor.dicom import DicomError

_EXACT_MM, _EXACT_SHARE = 0.02, 0.01  # off the even step of the first and the last slice
_OFF_SHARE = 0.1  # of a step: how far a slice may lie off the fitted line
_ROUNDED_MM = 0.1  # exporters round positions to it
_MOST_DEGREES = 45  # between the line and the normal of the slices
_WHOLE = 0.1  # share by which a gap may differ from a whole number of steps
_FEWEST_WIDE = 0.2  # share of longer steps, where rounding makes steps of two lengths


@dataclass(frozen=True)
class Line:
    """first_mm: Position of the first slice, LPS [3]. step_mm: From slice to slice, LPS [3].

    rounded_mm: What the positions were rounded to, where that moves slices by more than a tenth of
      a step; else 0.
    """

    first_mm: np.ndarray
    step_mm: np.ndarray
    rounded_mm: float = 0.0

    @property
    def length_mm(self) -> float:
        """The distance between slices along the line."""
        return float(np.linalg.norm(self.step_mm))

    def offsets_mm(self, positions: np.ndarray) -> np.ndarray:
        """Position minus the place of the slice on the line, [Z, 3]."""
        return positions - self.first_mm - np.arange(len(positions))[:, None] * self.step_mm


def fit_line(positions: np.ndarray, normal: np.ndarray, path: str, nominal_mm: float = 0) -> Line:
    """The regular line of positions [Z, 3], which are ordered along the slices' normal.

    path: A file of the volume, for messages. nominal_mm: The distance that the headers name.

    Raises:
      DicomError: 'series_gap', 'series_uneven'.
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
    raise _gap(positions, normal, path) or _uneven(positions, ends, path)


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


def _gap(positions, normal, path: str) -> DicomError | None:
    """Where slices are missing among slices at even steps."""
    along = np.diff(positions @ normal)
    usual = np.sort(along)[(len(along) - 1) // 2]
    wide = np.flatnonzero(along > 1.5 * usual)
    narrow = abs(np.delete(along, wide) - usual) > max(_ROUNDED_MM, _OFF_SHARE * usual)
    if not len(wide) or narrow.any() or 2 * len(wide) > len(along):
        return None
    times = along[wide] / usual
    if (abs(times - np.rint(times)) > _WHOLE * times).any():
        return None
    missing = np.rint(times).astype(int) - 1
    where = "; ".join(
        f"{count} between {_place(positions[k])} and {_place(positions[k + 1])}"
        for k, count in list(zip(wide, missing, strict=True))[:3]
    )
    message = f"{path}: slices {usual:.5g} mm apart are missing: {where}; export the series again"
    return DicomError("series_gap", message)


def _uneven(positions, ends: Line, path: str) -> DicomError:
    steps = np.diff(positions, axis=0)
    k = int(np.linalg.norm(steps - ends.step_mm, axis=1).argmax())
    lengths = np.linalg.norm(steps, axis=1)
    return DicomError(
        "series_uneven",
        f"{path}: expected slices at even steps, found steps of {lengths.min():.5g} to "
        f"{lengths.max():.5g} mm, the oddest between {_place(positions[k])} and "
        f"{_place(positions[k + 1])}; reconstruct the series at even steps",
    )


def _place(position) -> str:
    return "(" + ", ".join(f"{mm:g}" for mm in position) + ") mm"
