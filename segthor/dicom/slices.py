"""Sorts the slices of a series into volumes."""

from typing import NamedTuple

import numpy as np

from segthor.dicom import DicomError
from segthor.dicom.headers import Header, Plane
from segthor.dicom.series import Instance, Stack
from segthor.dicom.steps import fit_line

_SAME_POSITION_MM = 0.01
_SAME_COSINES, _SAME_SPACING_MM = 1e-3, 1e-3
_MOST_SHARED = 0.1  # share of the images with a position that another acquisition has, too


class PlacedSlice(NamedTuple):
    """One slice.

    header: Header of its file.
    frame: Its number in an enhanced file, from 0; None in a file of one slice.
    plane: Where it lies.
    """

    header: Header
    frame: int | None
    plane: Plane

    @property
    def position(self) -> np.ndarray:
        """Centre of the first pixel, LPS mm [3]."""
        return np.array(self.plane.position_mm)

    @property
    def instance(self) -> Instance:
        """What is needed to read the slice."""
        header = self.header
        uids = (header.sop_class_uid, header.sop_instance_uid)
        return Instance(header.path, self.frame, *uids, self.plane.position_mm)


def fill_one_grid(headers) -> bool:
    """Whether images lie at even steps, apart from missing slices."""
    slices = [PlacedSlice(h, None, plane) for h in headers for plane in h.planes]
    slices = [one for one in slices if None not in one.plane]
    same = [one for one in slices if _matches(one, slices[0])]
    return bool(slices) and len(same) == len(slices) and _fill_one_grid(slices)


def is_same_geometry(one: Stack, other: Stack) -> bool:
    """Whether two stacks have the same size, orientation and pixel spacing."""
    return one.shape[:2] == other.shape[:2] and _close(
        (one.orientation, one.pixel_spacing_mm), (other.orientation, other.pixel_spacing_mm)
    )


def _close(one, other) -> bool:
    limits = (_SAME_COSINES, _SAME_SPACING_MM)
    return all(
        abs(a - b) < limit
        for values, others, limit in zip(one, other, limits, strict=True)
        for a, b in zip(values, others, strict=True)
    )


def by_geometry(slices) -> list[list[PlacedSlice]]:
    """Groups slices by size, orientation and spacing."""
    groups = []
    for one in slices:
        same = next((group for group in groups if _matches(one, group[0])), None)
        if same is None:
            groups.append([one])
        else:
            same.append(one)
    return groups


def _matches(one: PlacedSlice, other: PlacedSlice) -> bool:
    sizes = [(each.header.rows, each.header.columns) for each in (one, other)]
    return sizes[0] == sizes[1] and _close(one.plane[1:], other.plane[1:])


def by_acquisition(group) -> list[tuple[list[PlacedSlice], list[PlacedSlice]]]:
    """(slices, left out) of each volume in a group of slices with one geometry.

    Acquisitions that share at most a few positions and fill one grid together are one volume, as
    when their numbers alternate; of two images at one position the second is left out. Other
    acquisitions are one volume if they lie side by side (step and shoot), and several volumes if
    they cover the same positions.
    """
    normal = normal_of(group[0].plane.orientation)
    by_number = {}
    for one in group:
        by_number.setdefault(one.header.acquisition, []).append(one)
    acquisitions = [by_number[number] for number in sorted(by_number, key=lambda n: (len(n), n))]
    together, second = _split_shared(acquisitions, normal)
    few = max(len(acquisitions) - 1, int(_MOST_SHARED * len(group)))
    is_one = len(second) <= few and _fill_one_grid(together)
    if len(acquisitions) == 1 or is_one:
        return [(together, second)]
    return [(volume, []) for volume in _side_by_side(acquisitions, normal)]


def _split_shared(acquisitions, normal) -> tuple[list[PlacedSlice], list[PlacedSlice]]:
    """(first, second): slices, and those at a position that an earlier acquisition has."""
    first, second, owners = [], [], {}
    for number, slices in enumerate(acquisitions):
        for one in slices:
            bin_ = round(float(one.position @ normal) / (2 * _SAME_POSITION_MM))
            near = (owners[p] for p in (bin_ - 1, bin_, bin_ + 1) if p in owners)
            owner = owners.setdefault(bin_, next(near, number))
            (first if owner == number else second).append(one)
    return first, second


def _fill_one_grid(slices) -> bool:
    normal = normal_of(slices[0].plane.orientation)
    positions = np.array([one.plane.position_mm for one in unique(slices, normal)[0]])
    if len(positions) < 3:
        return True
    try:
        line = fit_line(positions, normal, "", slices[0].header.spacing_mm)
    except DicomError:
        return False
    return not line.is_uneven


def _side_by_side(acquisitions, normal) -> list[list[PlacedSlice]]:
    volumes = []  # (positions of the slices along the normal, slices)
    for slices in acquisitions:
        distances = [float(one.position @ normal) for one in slices]
        low, high = min(distances) - _SAME_POSITION_MM, max(distances) + _SAME_POSITION_MM
        for occupied, volume in volumes:
            if high < min(occupied) or low > max(occupied):
                occupied += distances
                volume += slices
                break
        else:
            volumes.append((distances, [*slices]))
    return [volume for _, volume in volumes]


def normal_of(orientation) -> np.ndarray:
    """Unit vector perpendicular to a slice."""
    normal = np.cross(orientation[:3], orientation[3:])
    return normal / np.linalg.norm(normal)


def heights_mm(headers) -> np.ndarray:
    """Positions [N] of the slices of some files along the normal of the first; may be empty."""
    planes = [plane for header in headers for plane in header.planes if plane.position_mm]
    directions = next((plane.orientation for plane in planes if plane.orientation), None)
    if directions is None:
        return np.zeros(0)
    return np.array([plane.position_mm for plane in planes]) @ normal_of(directions)


def unique(slices, normal):
    """Slices sorted along the normal, and (k, instance) of those at the position of slice k."""
    ordered = sorted(slices, key=lambda one: float(one.position @ normal))
    distinct, duplicates = [], []
    for one in ordered:
        if distinct and np.linalg.norm(one.position - distinct[-1].position) < _SAME_POSITION_MM:
            duplicates.append((len(distinct) - 1, one.instance))
        else:
            distinct.append(one)
    return distinct, tuple(duplicates)
