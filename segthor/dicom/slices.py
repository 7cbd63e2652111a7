"""Slices of a series, sorted into those that are of one volume."""

from typing import NamedTuple

import numpy as np

from segthor.dicom import DicomError
from segthor.dicom.headers import Header, Plane
from segthor.dicom.series import Instance, Stack
from segthor.dicom.steps import fit_line

_SAME_PLACE_MM = 0.01
_SAME_COSINES, _SAME_SPACING_MM = 1e-3, 1e-3
_MOST_SHARED = 0.1  # of the images: positions that acquisitions of one volume may share


class Slice(NamedTuple):
    """One slice: its file, its number in an enhanced file, and where it lies."""

    header: Header
    frame: int | None
    plane: Plane

    @property
    def position(self) -> np.ndarray:
        """LPS mm, centre of the first pixel."""
        return np.array(self.plane.position_mm)

    @property
    def instance(self) -> Instance:
        """What reading it needs."""
        header = self.header
        uids = (header.sop_class_uid, header.sop_instance_uid)
        return Instance(header.path, self.frame, *uids, self.plane.position_mm)


def fill_one_grid(headers) -> bool:
    """Whether the images of several parts lie at even steps, but for slices that are missing."""
    slices = [Slice(h, None, plane) for h in headers for plane in h.planes]
    slices = [one for one in slices if None not in fields_of(one.plane)]
    same = [one for one in slices if _matches(one, slices[0])]
    return bool(slices) and len(same) == len(slices) and _fill_one_grid(slices)


def is_same_geometry(one: Stack, other: Stack) -> bool:
    """Whether slices of the two could be of one volume."""
    return one.shape[:2] == other.shape[:2] and _close(
        (one.orientation, one.pixel_spacing_mm), (other.orientation, other.pixel_spacing_mm)
    )


def fields_of(plane: Plane):
    """All that places a slice; None for what its file lacks."""
    return plane.position_mm, plane.orientation, plane.spacing_mm


def _close(one, other) -> bool:
    limits = (_SAME_COSINES, _SAME_SPACING_MM)
    return all(
        abs(a - b) < limit
        for values, others, limit in zip(one, other, limits, strict=True)
        for a, b in zip(values, others, strict=True)
    )


def by_geometry(slices) -> list[list[Slice]]:
    """Slices of one size, orientation and spacing."""
    groups = []
    for one in slices:
        for group in groups:
            first = group[0]
            if _matches(one, first):
                group.append(one)
                break
        else:
            groups.append([one])
    return groups


def _matches(one: Slice, other: Slice) -> bool:
    sizes = [(each.header.rows, each.header.columns) for each in (one, other)]
    return sizes[0] == sizes[1] and _close(fields_of(one.plane)[1:], fields_of(other.plane)[1:])


def by_acquisition(group) -> list[tuple[list[Slice], list[Slice]]]:
    """Slices of each volume, and images that are left out since another one has their position.

    Acquisitions that share at most single positions and fill one grid together are one volume, as
    where the numbers alternate. Of the others those that lie side by side are one volume (step and
    shoot), and those that cover the same places are several.
    """
    normal = normal_of(group[0].plane.orientation)
    by_number = {}
    for one in group:
        by_number.setdefault(one.header.acquisition, []).append(one)
    acquisitions = [by_number[number] for number in sorted(by_number, key=lambda n: (len(n), n))]
    together, surplus = _without_shared(acquisitions, normal)
    few = max(len(acquisitions) - 1, int(_MOST_SHARED * len(group)))
    is_one = len(surplus) <= few and _fill_one_grid(together)
    if len(acquisitions) == 1 or is_one:
        return [(together, surplus)]
    return [(volume, []) for volume in _side_by_side(acquisitions, normal)]


def _without_shared(acquisitions, normal) -> tuple[list[Slice], list[Slice]]:
    """All slices, but of those of several acquisitions at one position only the first one's."""
    kept, surplus, owners = [], [], {}
    for number, slices in enumerate(acquisitions):
        for one in slices:
            place = round(float(one.position @ normal) / (2 * _SAME_PLACE_MM))
            near = (owners[p] for p in (place - 1, place, place + 1) if p in owners)
            owner = owners.setdefault(place, next(near, number))
            (kept if owner == number else surplus).append(one)
    return kept, surplus


def _fill_one_grid(slices) -> bool:
    normal = normal_of(slices[0].plane.orientation)
    positions = np.array([one.plane.position_mm for one in unique(slices, normal)[0]])
    if len(positions) < 3:
        return True
    try:
        fit_line(positions, normal, "", slices[0].header.spacing_mm)
    except DicomError as error:
        return error.code == "series_gap"
    return True


def _side_by_side(acquisitions, normal) -> list[list[Slice]]:
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


def normal_of(orientation) -> np.ndarray:
    """Unit vector at right angles to a slice."""
    normal = np.cross(orientation[:3], orientation[3:])
    return normal / np.linalg.norm(normal)


def unique(slices, normal):
    """Slices in order along the normal, and (k, instance) of those at the place of another."""
    ordered = sorted(slices, key=lambda one: float(one.position @ normal))
    kept, duplicates = [], []
    for one in ordered:
        if kept and np.linalg.norm(one.position - kept[-1].position) < _SAME_PLACE_MM:
            duplicates.append((len(kept) - 1, one.instance))
        else:
            kept.append(one)
    return kept, tuple(duplicates)
