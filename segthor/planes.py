"""Planes at uneven places along z: their thickness, and an even grid for them. Numpy only.

A plane is as thick as half the distance to each of its two neighbours; the first and the last one
are as thick as the distance to their only neighbour. Between even planes this is the step.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from segthor.boxes import Box, MemoryOrder

_DECIMALS = 4  # of mm: positions are decimal numbers, and their differences carry rounding errors


@dataclass(frozen=True)
class Planes:
    """The planes of a scan that lie at uneven places.

    places_mm: Distance of each plane from the first one along z, ascending.
    gaps: The plane (from 0) below each gap, which is where slices are missing.
    """

    places_mm: tuple[float, ...]
    gaps: tuple[int, ...] = ()

    @classmethod
    def of(cls, places_mm, gaps=()) -> "Planes":
        """Planes at ascending places, of which the first one becomes 0."""
        places = np.round(np.subtract(places_mm, places_mm[0]), _DECIMALS) + 0.0
        return cls(tuple(places.tolist()), tuple(int(k) for k in gaps))

    @property
    def steps_mm(self) -> np.ndarray:
        """Distance between neighbouring planes, float64 [Z - 1]."""
        return np.diff(self.places_mm)

    @cached_property
    def thickness_mm(self) -> np.ndarray:
        """Thickness of each plane, float64 [Z]; see the top of this module."""
        steps = np.pad(self.steps_mm, 1, mode="edge")
        return (steps[1:] + steps[:-1]) / 2

    def at(self, index) -> np.ndarray:
        """Places in mm of plane numbers that need not be whole."""
        return np.interp(index, np.arange(len(self.places_mm)), self.places_mm)

    @property
    def words(self) -> str:
        """The steps, for people."""
        low, high = self.steps_mm.min(), self.steps_mm.max()
        return f"{low:.4g} to {high:.4g} mm"

    @cached_property
    def even_count(self) -> int:
        """Slices of the even grid from the first to the last plane, no wider than any step."""
        share = self.places_mm[-1] / self.steps_mm.min()
        return int(np.ceil(share - 1e-3)) + 1

    @property
    def even_step_mm(self) -> float:
        """The step of the even grid."""
        return self.places_mm[-1] / (self.even_count - 1)

    @cached_property
    def nearest(self) -> np.ndarray:
        """The plane that is nearest to each slice of the even grid, int [even_count]."""
        middles = np.add(self.places_mm[1:], self.places_mm[:-1]) / 2
        return np.searchsorted(middles, np.linspace(0, self.places_mm[-1], self.even_count))

    @cached_property
    def slices(self) -> np.ndarray:
        """The slice of the even grid that holds each plane, int [Z]: values[nearest][slices] are
        the values. Of a plane's slices the one that lies nearest to it."""
        distances = np.abs(np.arange(self.even_count) * self.even_step_mm - self.at(self.nearest))
        order = np.lexsort((distances, self.nearest))
        _, first = np.unique(self.nearest[order], return_index=True)
        return order[first]


def voxel_cm3(spacing_mm, planes: Planes | None = None) -> float | np.ndarray:
    """The volume of a voxel; of uneven planes that of a voxel in each plane, float64 [Z, 1, 1].

    spacing_mm: Of z, y, x; planes: None where they lie at even steps.
    """
    if planes is None:
        return float(np.prod(spacing_mm)) / 1000
    return planes.thickness_mm[:, None, None] * float(np.prod(spacing_mm[1:])) / 1000


def volume_cm3(mask: np.ndarray, cm3: float | np.ndarray) -> float:
    """The volume of a mask [Z, Y, X]; cm3: of a voxel, see `voxel_cm3`."""
    if np.ndim(cm3):
        return float((mask.sum((1, 2), keepdims=True) * cm3).sum())
    return np.count_nonzero(mask) * cm3


class Lattice(NamedTuple):
    """Where the voxels of a cropped array lie.

    spacing_mm: Distance of neighbours along each axis; of uneven planes the mean.
    axis: The axis of uneven planes; None: there is none.
    places_mm: Places of the planes along it.
    thickness_mm: Thickness of these planes.
    """

    spacing_mm: tuple[float, ...]
    axis: int | None = None
    places_mm: np.ndarray | None = None
    thickness_mm: np.ndarray | None = None

    @classmethod
    def of(cls, spacing_mm, planes: Planes | None, order: MemoryOrder, box: Box) -> "Lattice":
        """The lattice of a box with a margin of one voxel, in the order of memory."""
        if planes is None:
            return cls(spacing_mm)
        axis = order.axes.index(0)
        way = slice(None, None, -1 if order.backward[axis] else 1)
        values = np.array(planes.places_mm)[way], planes.thickness_mm[way]
        return cls(spacing_mm, axis, *(np.pad(one[box[axis]], 1) for one in values))

    def points_mm(self, index: np.ndarray) -> np.ndarray:
        """Voxel indices [N, 3] in mm."""
        points = index * self.spacing_mm
        if self.axis is not None:
            points[:, self.axis] = self.places_mm[index[:, self.axis]]
        return points

    def weights(self, index: np.ndarray) -> np.ndarray | None:
        """How much each voxel counts, in units of the mean step; None: all the same."""
        if self.axis is None:
            return None
        return self.thickness_mm[index[:, self.axis]] / self.spacing_mm[self.axis]
