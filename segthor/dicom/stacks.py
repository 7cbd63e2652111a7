"""The files of one series to the stacks that they are the slices of, by their headers alone."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from segthor.dicom import DicomError
from segthor.dicom.headers import Header, Plane
from segthor.dicom.series import Instance, Stack

_SAME_PLACE_MM = 0.01
_SAME_COSINES, _SAME_SPACING_MM = 1e-3, 1e-3
_STEP_MM, _STEP_SHARE, _DRIFT_SHARE = 0.02, 0.01, 0.1
_MOST_ALONG_AXIS = 32767  # what a label map in NIfTI can have
_TILTED_DEGREES, _MOST_DEGREES = 0.1, 45
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Volumes:
    """What one series holds. left_aside: (why, path) of images that belong to no volume.

    volumes: a stack each, or the error that says why these images are none.
    """

    volumes: tuple[Stack | DicomError, ...]
    left_aside: tuple[tuple[str, str], ...]


class _Slice(NamedTuple):
    header: Header
    frame: int | None
    plane: Plane

    @property
    def position(self) -> np.ndarray:
        return np.array(self.plane.position_mm)

    @property
    def instance(self) -> Instance:
        header = self.header
        uids = (header.sop_class_uid, header.sop_instance_uid)
        return Instance(header.path, self.frame, *uids, self.plane.position_mm)


def of_series(headers) -> Volumes:
    """The stacks among the headers of one series' CT images; opens no file.

    Images are of one volume where orientation, size, spacing and frame of reference agree and
    their acquisitions do not overlap. Errors: 'series_no_position', 'series_gap', 'series_uneven'.
    """
    slices = [
        _Slice(header, frame if header.is_enhanced else None, plane)
        for header in sorted(headers, key=lambda h: (h.sop_instance_uid, h.path))
        for frame, plane in enumerate(header.planes)
    ]
    placed = [one for one in slices if None not in _fields(one.plane)]
    if not placed:
        path = slices[0].header.path if slices else headers[0].path
        expected = "expected images with position, orientation and pixel spacing"
        message = f"{path}: {expected}, found none of its series has them; export it again"
        return Volumes((DicomError("series_no_position", message),), ())
    aside = [
        ("image without a position", one.header.path)
        for one in slices
        if None in _fields(one.plane)
    ]
    volumes = []
    for group in _by_geometry(placed):
        for volume in _by_acquisition(group):
            if len(volume) < 2:
                aside.append(("single image", volume[0].header.path))
            else:
                volumes.append(_stack(volume))
    return Volumes(tuple(volumes), tuple(dict.fromkeys(aside)))


def is_same_geometry(one: Stack, other: Stack) -> bool:
    """Whether slices of the two could be of one volume."""
    return one.shape[:2] == other.shape[:2] and _close(
        (one.orientation, one.pixel_spacing_mm), (other.orientation, other.pixel_spacing_mm)
    )


def _fields(plane: Plane):
    return plane.position_mm, plane.orientation, plane.spacing_mm


def _close(one, other) -> bool:
    limits = (_SAME_COSINES, _SAME_SPACING_MM)
    return all(
        abs(a - b) < limit
        for values, others, limit in zip(one, other, limits, strict=True)
        for a, b in zip(values, others, strict=True)
    )


def _by_geometry(slices) -> list[list[_Slice]]:
    """Slices of one size, orientation, spacing and frame of reference."""
    groups = []
    for one in slices:
        for group in groups:
            first = group[0]
            if _kind(one) == _kind(first) and _close(
                _fields(one.plane)[1:], _fields(first.plane)[1:]
            ):
                group.append(one)
                break
        else:
            groups.append([one])
    return groups


def _kind(one: _Slice):
    header = one.header
    return header.rows, header.columns, header.frame_of_reference_uid, header.study_uid


def _by_acquisition(group) -> list[list[_Slice]]:
    """Acquisitions that lie side by side are one volume (step and shoot), others are several."""
    normal = _normal(group[0].plane.orientation)
    acquisitions = {}
    for one in group:
        acquisitions.setdefault(one.header.acquisition, []).append(one)
    volumes = []  # (distances of all its slices, slices)
    for number in sorted(acquisitions, key=lambda number: (len(number), number)):
        slices = acquisitions[number]
        distances = [float(one.position @ normal) for one in slices]
        low, high = min(distances) - _SAME_PLACE_MM, max(distances) + _SAME_PLACE_MM
        for taken, volume in volumes:
            if high < min(taken) or low > max(taken):
                taken += distances
                volume += slices
                break
        else:
            volumes.append((distances, slices))
    return [volume for _, volume in volumes]


def _normal(orientation) -> np.ndarray:
    normal = np.cross(orientation[:3], orientation[3:])
    return normal / np.linalg.norm(normal)


def _stack(slices) -> Stack | DicomError:
    plane, header = slices[0].plane, slices[0].header
    normal = _normal(plane.orientation)
    kept, duplicates = _unique(slices, normal)
    path = kept[0].header.path
    if len(kept) < 2:
        message = f"{path}: {len(slices)} images at one place; expected the slices of a volume"
        return DicomError("series_several_volumes", message)
    shape = header.columns, header.rows, len(kept)
    if max(shape) > _MOST_ALONG_AXIS:
        found = " x ".join(map(str, shape))
        message = f"{path}: expected at most {_MOST_ALONG_AXIS} voxels along an axis, found {found}"
        return DicomError("file_too_large", message)
    positions = np.array([one.plane.position_mm for one in kept])
    problem = _step_problem(positions, normal, path)
    if problem:
        return problem
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    row_mm, column_mm = plane.spacing_mm
    affine = np.eye(4)
    affine[:3, 0] = np.array(plane.orientation[:3]) * column_mm
    affine[:3, 1] = np.array(plane.orientation[3:]) * row_mm
    affine[:3, 2], affine[:3, 3] = step, positions[0]
    affine[:3] = _LPS_TO_RAS @ affine[:3]
    return Stack(
        instances=tuple(one.instance for one in kept),
        shape=shape,
        affine=affine,
        positions_mm=positions,
        orientation=plane.orientation,
        pixel_spacing_mm=plane.spacing_mm,
        series_uid=header.series_uid,
        study_uid=header.study_uid,
        frame_of_reference_uid=header.frame_of_reference_uid,
        findings=tuple(_findings(kept, len(duplicates), _tilt_degrees(step, normal))),
        duplicates=duplicates,
    )


def _unique(slices, normal):
    """Slices in order along the normal, and (k, instance) of those at the place of another."""
    ordered = sorted(slices, key=lambda one: float(one.position @ normal))
    kept, duplicates = [], []
    for one in ordered:
        if kept and np.linalg.norm(one.position - kept[-1].position) < _SAME_PLACE_MM:
            duplicates.append((len(kept) - 1, one.instance))
        else:
            kept.append(one)
    return kept, tuple(duplicates)


def _step_problem(positions, normal, path: str) -> DicomError | None:
    """What is wrong with the distances between neighbouring slices."""
    steps = np.diff(positions, axis=0)
    mean = steps.mean(0)
    length = np.linalg.norm(mean)
    off = np.linalg.norm(steps - mean, axis=1)
    line = positions[0] + np.arange(len(positions))[:, None] * mean
    drift = np.linalg.norm(positions - line, axis=1)
    even = off.max() <= _tolerance(length) and drift.max() < _DRIFT_SHARE * length
    if even and _tilt_degrees(mean, normal) < _MOST_DEGREES:
        return None
    along = steps @ normal
    usual = np.sort(along)[(len(along) - 1) // 2]
    wide = np.flatnonzero(along > 1.5 * usual)
    narrow = abs(np.delete(along, wide) - usual) > _tolerance(usual)
    if len(wide) and not narrow.any() and 2 * len(wide) <= len(along):
        missing = np.rint(along[wide] / usual).astype(int) - 1
        where = "; ".join(
            f"{count} between {_place(positions[k])} and {_place(positions[k + 1])}"
            for k, count in list(zip(wide, missing, strict=True))[:3]
        )
        message = (
            f"{path}: slices {usual:.5g} mm apart are missing: {where}; export the series again"
        )
        return DicomError("series_gap", message)
    k, lengths = int(off.argmax()), np.linalg.norm(steps, axis=1)
    return DicomError(
        "series_uneven",
        f"{path}: expected slices at even steps, found steps of {lengths.min():.5g} to "
        f"{lengths.max():.5g} mm, the oddest between {_place(positions[k])} and "
        f"{_place(positions[k + 1])}; reconstruct the series at even steps",
    )


def _tolerance(step_mm: float) -> float:
    return max(_STEP_MM, _STEP_SHARE * step_mm)


def _place(position) -> str:
    return "(" + ", ".join(f"{mm:g}" for mm in position) + ") mm"


def _tilt_degrees(step, normal) -> float:
    # By the sine: the cosine of a small angle loses it.
    sine = np.linalg.norm(np.cross(step, normal)) / np.linalg.norm(step)
    degrees = float(np.degrees(np.arcsin(min(sine, 1))))
    return degrees if step @ normal > 0 else 180 - degrees


def _findings(kept, num_duplicates: int, tilt_degrees: float):
    if num_duplicates:
        yield "series_duplicates", f"{num_duplicates} images lie in the series twice"
    if tilt_degrees > _TILTED_DEGREES:
        yield "series_tilted", f"the gantry was tilted by {tilt_degrees:.1f} degrees"
    for code, count, what in (
        ("series_lossy", sum(one.header.is_lossy for one in kept), "compressed with loss"),
        ("series_derived", sum(one.header.is_derived for one in kept), "derived from others"),
    ):
        if count:
            yield code, f"{count} of {len(kept)} images are {what}"
