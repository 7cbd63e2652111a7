"""The files of one series to the stacks that they are the slices of, by their headers alone."""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from segthor.dicom import DicomError
from segthor.dicom.headers import Header, Plane
from segthor.dicom.series import Instance, Stack
from segthor.dicom.steps import fit_line, tilt_degrees

_SAME_PLACE_MM = 0.01
_SAME_COSINES, _SAME_SPACING_MM = 1e-3, 1e-3
_MOST_SHARED = 0.1  # of the images: positions that two acquisitions of one volume may share
_MOST_ALONG_AXIS = 32767  # what a label map in NIfTI can have
_TILTED_DEGREES = 0.1
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
SINGLE_IMAGE, SECOND_IMAGE = "single image", "second image of one position"  # left aside


class StackError(DicomError):
    """Why images are no stack. paths: their files."""

    def __init__(self, code: str, message: str, paths=()):
        super().__init__(code, message)
        self.paths = tuple(dict.fromkeys(paths))


@dataclass(frozen=True)
class Volumes:
    """What one series holds.

    volumes: A stack each, or the error that says why these images are none.
    left_aside: (why, path) of images that belong to no volume.
    """

    volumes: tuple[Stack | StackError, ...]
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


def of_series(headers, findings=()) -> Volumes:
    """The stacks among the headers of one series' CT images; opens no file.

    Images are of one volume where orientation, size, spacing and frame of reference agree. Several
    acquisitions are one volume where they lie side by side or fill one grid together. findings:
    (code, message) of what is unusual about the series, for all of its stacks.

    Errors: 'series_no_position', 'series_gap', 'series_uneven', 'series_several_volumes'.
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
        error = StackError("series_no_position", message, [header.path for header in headers])
        return Volumes((error,), ())
    aside = [
        ("image without a position", one.header.path)
        for one in slices
        if None in _fields(one.plane)
    ]
    volumes = []
    for group in _by_geometry(placed):
        sizes = Counter(one.header.acquisition for one in group)
        for volume, surplus in _by_acquisition(group):
            for one in surplus:
                is_single = sizes[one.header.acquisition] == 1
                aside.append((SINGLE_IMAGE if is_single else SECOND_IMAGE, one.header.path))
            if len(volume) < 2:
                aside.append((SINGLE_IMAGE, volume[0].header.path))
            else:
                shared = _finding_of_shared(surplus)
                volumes.append(_stack(volume, (*findings, *shared)))
    used = {path for volume in volumes for path in volume.paths}
    aside = [(why, path) for why, path in dict.fromkeys(aside) if path not in used]
    return Volumes(tuple(volumes), tuple(aside))


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


def _by_acquisition(group) -> list[tuple[list[_Slice], list[_Slice]]]:
    """Slices of each volume, and images that are left out since another one has their position.

    Acquisitions that share at most single positions and fill one grid together are one volume, as
    where the numbers alternate. Of the others those that lie side by side are one volume (step and
    shoot), and those that cover the same places are several.
    """
    normal = _normal(group[0].plane.orientation)
    by_number = {}
    for one in group:
        by_number.setdefault(one.header.acquisition, []).append(one)
    acquisitions = [by_number[number] for number in sorted(by_number, key=lambda n: (len(n), n))]
    together, surplus = _without_shared(acquisitions, normal)
    few = max(len(acquisitions) - 1, int(_MOST_SHARED * len(group)))
    is_one = len(surplus) <= few and _fill_one_grid(together, normal)
    if len(acquisitions) == 1 or is_one:
        return [(together, surplus)]
    return [(volume, []) for volume in _side_by_side(acquisitions, normal)]


def _without_shared(acquisitions, normal) -> tuple[list[_Slice], list[_Slice]]:
    """All slices, but of those of several acquisitions at one position only the first one's."""
    kept, surplus, owners = [], [], {}
    for number, slices in enumerate(acquisitions):
        for one in slices:
            place = round(float(one.position @ normal) / (2 * _SAME_PLACE_MM))
            near = (owners[p] for p in (place - 1, place, place + 1) if p in owners)
            owner = owners.setdefault(place, next(near, number))
            (kept if owner == number else surplus).append(one)
    return kept, surplus


def _fill_one_grid(slices, normal) -> bool:
    """Whether slices lie at even steps, but for slices that are missing."""
    positions = np.array([one.plane.position_mm for one in _unique(slices, normal)[0]])
    if len(positions) < 3:
        return True
    try:
        fit_line(positions, normal, "", slices[0].header.spacing_mm)
    except DicomError as error:
        return error.code == "series_gap"
    return True


def _side_by_side(acquisitions, normal) -> list[list[_Slice]]:
    volumes = []  # (distances of all its slices, slices)
    for slices in acquisitions:
        distances = [float(one.position @ normal) for one in slices]
        low, high = min(distances) - _SAME_PLACE_MM, max(distances) + _SAME_PLACE_MM
        for taken, volume in volumes:
            if high < min(taken) or low > max(taken):
                taken += distances
                volume += slices
                break
        else:
            volumes.append((distances, [*slices]))
    return [volume for _, volume in volumes]


def _normal(orientation) -> np.ndarray:
    normal = np.cross(orientation[:3], orientation[3:])
    return normal / np.linalg.norm(normal)


def _stack(slices, findings) -> Stack | StackError:
    plane, header = slices[0].plane, slices[0].header
    normal, paths = _normal(plane.orientation), [one.header.path for one in slices]
    kept, duplicates = _unique(slices, normal)
    path = kept[0].header.path
    if len(kept) < 2:
        message = f"{path}: {len(slices)} images at one place; expected the slices of a volume"
        return StackError("series_several_volumes", message, paths)
    shape = header.columns, header.rows, len(kept)
    if max(shape) > _MOST_ALONG_AXIS:
        found = " x ".join(map(str, shape))
        message = f"{path}: expected at most {_MOST_ALONG_AXIS} voxels along an axis, found {found}"
        return StackError("file_too_large", message, paths)
    positions = np.array([one.plane.position_mm for one in kept])
    try:
        line = fit_line(positions, normal, path, header.spacing_mm)
    except DicomError as error:
        return StackError(error.code, str(error), paths)
    row_mm, column_mm = plane.spacing_mm
    affine = np.eye(4)
    affine[:3, 0] = np.array(plane.orientation[:3]) * column_mm
    affine[:3, 1] = np.array(plane.orientation[3:]) * row_mm
    affine[:3, 2], affine[:3, 3] = line.step_mm, line.first_mm
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
        findings=(*_findings(kept, len(duplicates), line, normal), *findings),
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


def _findings(kept, num_duplicates: int, line, normal):
    if num_duplicates:
        yield "series_duplicates", f"{num_duplicates} images lie in the series twice"
    tilt = tilt_degrees(line.step_mm, normal)
    if tilt > _TILTED_DEGREES:
        yield "series_tilted", f"the gantry was tilted by {tilt:.1f} degrees"
    for code, count, what in (
        ("series_lossy", sum(one.header.is_lossy for one in kept), "compressed with loss"),
        ("series_derived", sum(one.header.is_derived for one in kept), "derived from others"),
    ):
        if count:
            yield code, f"{count} of {len(kept)} images are {what}"
    if line.rounded_mm:
        message = f"positions are rounded to {line.rounded_mm:g} mm; slices are taken to lie"
        yield "series_rounded", f"{message} {line.length_mm:.4g} mm apart"
    if any(one.header.has_commas for one in kept):
        yield "series_decimal_commas", "numbers with a decimal comma are read as with a point"
    uids = Counter(one.header.sop_instance_uid for one in kept if one.frame is None)
    shared = sum(count for count in uids.values() if count > 1)
    if shared:
        message = f"{shared} of {len(kept)} images share a SOPInstanceUID with another"
        yield "series_sop_uids", f"{message}; contours cannot refer to them"


def _finding_of_shared(surplus):
    if surplus:
        message = "positions have an image of a second acquisition, which is left out"
        yield "series_shared_positions", f"{len(surplus)} {message}"
