"""Planes at uneven steps along z: their thickness, and an even grid for them. Numpy only.

The thickness of a plane is half the distance between its two neighbours; that of the first and the
last plane is the distance to their only neighbour. Of planes at even steps it is the step.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from segthor.boxes import Box, MemoryOrder

_DECIMALS = 4  # of mm; differences of decimal numbers have rounding errors


@dataclass(frozen=True)
class Planes:
    """The planes of a scan at uneven steps.

    offsets_mm: Distance of each plane from the first one along z, ascending.
    gaps: Number (from 0) of the plane below each gap, where slices are missing.
    """

    offsets_mm: tuple[float, ...]
    gaps: tuple[int, ...] = ()

    @classmethod
    def from_positions(cls, positions_mm, gaps=()) -> "Planes":
        """Makes planes of ascending positions along z [Z]; their offsets start at 0."""
        # Adding 0.0 turns integers into floats, and -0.0 into 0.0.
        offsets = np.round(np.subtract(positions_mm, positions_mm[0]), _DECIMALS) + 0.0
        return cls(tuple(offsets.tolist()), tuple(int(k) for k in gaps))

    @property
    def steps_mm(self) -> np.ndarray:
        """Distances between neighbouring planes, float64 [Z - 1]."""
        return np.diff(self.offsets_mm)

    @cached_property
    def thickness_mm(self) -> np.ndarray:
        """Thickness of each plane, float64 [Z]; see the top of this module."""
        steps = np.pad(self.steps_mm, 1, mode="edge")
        return (steps[1:] + steps[:-1]) / 2

    def interpolate_mm(self, index) -> np.ndarray:
        """Offsets in mm of plane numbers, which may have fractions."""
        return np.interp(index, np.arange(len(self.offsets_mm)), self.offsets_mm)

    def choose_every(self, step_mm: float) -> np.ndarray:
        """Numbers of planes about `step_mm` apart, rounded to a multiple of the least step."""
        least = self.steps_mm.min()
        step = max(1, round(step_mm / least)) * least
        offsets = np.arange(0, self.offsets_mm[-1] + least / 2, step)
        return np.unique(np.searchsorted(self._middles_mm, offsets))

    @property
    def step_range(self) -> str:
        """The shortest and the longest step, for messages."""
        low, high = self.steps_mm.min(), self.steps_mm.max()
        return f"{low:.4g} to {high:.4g} mm"

    @cached_property
    def even_count(self) -> int:
        """Number of slices of the even grid.

        The grid reaches from the first to the last plane; its step is at most the shortest step.
        """
        num_steps = self.offsets_mm[-1] / self.steps_mm.min()
        return int(np.ceil(num_steps - 1e-3)) + 1

    @property
    def _middles_mm(self) -> np.ndarray:
        """Offsets halfway between neighbouring planes, float64 [Z - 1]."""
        return np.add(self.offsets_mm[1:], self.offsets_mm[:-1]) / 2

    @property
    def even_step_mm(self) -> float:
        """Distance between slices of the even grid."""
        return self.offsets_mm[-1] / (self.even_count - 1)

    @cached_property
    def to_even(self) -> np.ndarray:
        """The plane nearest to each slice of the even grid, int [even_count].

        `values[to_even]` puts the values of the planes on the even grid.
        """
        offsets = np.linspace(0, self.offsets_mm[-1], self.even_count)
        return np.searchsorted(self._middles_mm, offsets)

    @cached_property
    def from_even(self) -> np.ndarray:
        """The slice of the even grid that stands for each plane, int [Z].

        Of the slices that hold a plane it is the nearest one; `values[to_even][from_even]` are the
        values.
        """
        offsets = self.interpolate_mm(self.to_even)
        distances = np.abs(np.arange(self.even_count) * self.even_step_mm - offsets)
        order = np.lexsort((distances, self.to_even))
        _, first = np.unique(self.to_even[order], return_index=True)
        return order[first]


def voxel_cm3(spacing_mm, planes: Planes | None = None) -> float | np.ndarray:
    """The volume of a voxel in cm3.

    Args:
      spacing_mm: Spacing along z, y and x.
      planes: Planes at uneven steps; None at even steps.

    Returns:
      A float; with planes the volume of a voxel of each plane, float64 [Z, 1, 1].
    """
    if planes is None:
        return float(np.prod(spacing_mm)) / 1000
    return planes.thickness_mm[:, None, None] * float(np.prod(spacing_mm[1:])) / 1000


def volume_cm3(mask: np.ndarray, cm3: float | np.ndarray) -> float:
    """The volume of a mask [Z, Y, X] in cm3.

    cm3: Volume of its voxels, from `voxel_cm3`.
    """
    if np.ndim(cm3):
        return float((mask.sum((1, 2), keepdims=True) * cm3).sum())
    return np.count_nonzero(mask) * cm3


class Lattice(NamedTuple):
    """Positions and weights of the voxels of a cropped array.

    spacing_mm: Distance between neighbours along each axis; along uneven planes the mean.
    axis: The axis across uneven planes; None without such planes.
    offsets_mm: Offsets of the planes along this axis, float64 [N].
    thickness_mm: Thickness of these planes, float64 [N].
    """

    spacing_mm: tuple[float, ...]
    axis: int | None = None
    offsets_mm: np.ndarray | None = None
    thickness_mm: np.ndarray | None = None

    @classmethod
    def of(cls, spacing_mm, planes: Planes | None, order: MemoryOrder, box: Box) -> "Lattice":
        """The lattice of a box with a margin of one voxel; its axes are in the order of memory.

        spacing_mm: Along each axis of the array, in its own order.
        """
        spacing_mm = tuple(spacing_mm[axis] for axis in order.axes)
        if planes is None:
            return cls(spacing_mm)
        axis = order.axes.index(0)
        direction = slice(None, None, -1 if order.backward[axis] else 1)
        values = np.array(planes.offsets_mm)[direction], planes.thickness_mm[direction]
        return cls(spacing_mm, axis, *(np.pad(one[box[axis]], 1) for one in values))

    def points_mm(self, index: np.ndarray) -> np.ndarray:
        """Positions in mm of voxel indices [N, 3]."""
        points = index * self.spacing_mm
        if self.axis is not None:
            points[:, self.axis] = self.offsets_mm[index[:, self.axis]]
        return points

    def weights(self, index: np.ndarray) -> np.ndarray | None:
        """Thickness of the plane of each voxel [N] over the mean step; None if all are equal."""
        if self.axis is None:
            return None
        return self.thickness_mm[index[:, self.axis]] / self.spacing_mm[self.axis]
