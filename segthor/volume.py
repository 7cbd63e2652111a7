"""A scan and a label map in memory, and where their voxels lie. Numpy and scipy only.

Every array of a scan is [Z, Y, X] in canonical (LPS) order: z from inferior to superior, y from
anterior to posterior, x from the patient's right to the left. `nifti` and `dicom` read files into
this order, as views, and write them from it; no other code turns an array.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from segthor import ignored
from segthor.boxes import Box, label_boxes
from segthor.findings import Finding
from segthor.geometry import Orientation
from segthor.organs import Organs

_LEAST_MM = 1e-6  # between voxels: below it an affine is empty
_ORIGIN_DECIMALS = 1  # of the mm in `Grid.lps_affine`, see there


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of a scan lie. The fields describe the scan's file, in its order of axes.

    shape: Voxels along each axis of the file.
    affine: float64 [4, 4], voxel index in the file to RAS+ mm.
    header: The NIfTI header of the file; None for other files and for grids made in memory.
    orientation: Which axis of the file is x, y and z. By default those nearest to the patient's
      axes; of contours, those of their scan (`Volume.along`).
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    header: Any = None
    orientation: Orientation | None = None

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "affine", np.asarray(self.affine, np.float64))
        if self.orientation is None:
            object.__setattr__(self, "orientation", Orientation.of(self.affine))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along z, y and x."""
        return self.orientation.spacing_mm(self.affine)

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Voxels along z, y and x."""
        return tuple(self.shape[axis] for axis in reversed(self.orientation.axes))

    def to_zyx(self, array: np.ndarray) -> np.ndarray:
        """An array in the file's order of axes as [Z, Y, X]; a view."""
        return self.orientation.to_zyx(array)

    def to_file(self, zyx: np.ndarray) -> np.ndarray:
        """[Z, Y, X] in the file's order of axes; a view."""
        return self.orientation.to_file(zyx)

    def lps_affine(self) -> np.ndarray:
        """float64 [4, 4], canonical index (x, y, z) to RAS+ mm; the same for every order of axes.

        The origin is rounded to 0.1 mm: a file that counts from another corner holds another
        float32 origin, so its last digits depend on how the scan was stored.
        """
        affine = self._exact_lps_affine()
        affine[:3, 3] = affine[:3, 3].round(_ORIGIN_DECIMALS)
        return affine + 0.0  # turns -0.0 into 0.0

    def part(self, shape_zyx, first_zyx=(0, 0, 0), step_zyx=(1, 1, 1)) -> "Grid":
        """The grid, in canonical order, of every step-th voxel from the first one on.

        first_zyx: need not be whole numbers, for voxels that are means of others.
        """
        affine = self._exact_lps_affine()
        affine[:3, 3] += affine[:3, :3] @ first_zyx[::-1]
        affine[:3, :3] *= step_zyx[::-1]
        return Grid(shape_zyx[::-1], affine)

    def in_order_of(self, other: "Grid") -> "Grid":
        """The grid of the same voxels in a file whose order of axes is that of another grid."""
        lps, affine = self._exact_lps_affine(), np.eye(4)
        axes, flipped = other.orientation.axes, other.orientation.flipped
        shape = np.array(self.shape_zyx)[::-1][np.argsort(axes)]
        affine[:3, 3] = lps[:3, 3]
        for k, (axis, flip) in enumerate(zip(axes, flipped, strict=True)):
            affine[:3, axis] = -lps[:3, k] if flip else lps[:3, k]
            if flip:
                affine[:3, 3] += lps[:3, k] * (shape[axis] - 1)
        return Grid(shape, affine, orientation=other.orientation)

    def _exact_lps_affine(self) -> np.ndarray:
        affine = self.affine.copy()
        for axis, flipped in zip(self.orientation.axes, self.orientation.flipped, strict=True):
            if flipped:
                affine[:3, 3] += affine[:3, axis] * (self.shape[axis] - 1)
                affine[:3, axis] *= -1
        return affine[:, [*self.orientation.axes, 3]]


def is_invertible(affine: np.ndarray) -> bool:
    """Whether an affine, float [4, 4], gives each voxel a place of its own."""
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        volume = abs(np.linalg.det(affine[:3, :3] / lengths))  # of a cube, as the affine shears it
    return bool(np.isfinite(affine).all() and lengths.min() > _LEAST_MM and volume > 1e-6)


def corner_distance_mm(shape, one: np.ndarray, other: np.ndarray) -> float:
    """The largest distance between the places that two affines give a corner voxel."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], [1])).reshape(4, -1)
    with np.errstate(all="ignore"):  # affines that make no sense are infinitely far apart
        return float(np.linalg.norm((one - other)[:3] @ corners, axis=0).max())


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan in memory.

    zyx: HU [Z, Y, X], in native byte order.
    grid: Where the voxels lie.
    findings: What deserves a warning in how the scan is stored.
    acquisition: What DICOM images say of the scanner and the patient's position.
    """

    zyx: np.ndarray
    grid: Grid
    findings: tuple[Finding, ...] = ()
    acquisition: Mapping[str, str] = field(default_factory=dict)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along z, y and x."""
        return self.grid.spacing_mm

    def along(self, scan: Grid) -> "Volume":
        """Contours with the axes of the scan that they are of.

        Where the affine of a label map is damaged, or at 45 degrees to the patient, its nearest
        axes may be others than those of its scan: left and right would be mixed up.
        """
        if self.grid.shape != scan.shape:
            return self
        grid = replace(self.grid, orientation=scan.orientation)
        return replace(self, zyx=grid.to_zyx(self.grid.to_file(self.zyx)), grid=grid)


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Contours or a prediction in memory. Its labels are not changed once `boxes` was used.

    zyx: uint8 [Z, Y, X], label values; 0 is background.
    grid: Where the voxels lie.
    organs: The table that the label values are of.
    contoured: Names of the organs that are contoured, where the file says so, as a structure set
      does; None where it does not.
    findings: What the reader had to make of the file, and what is wrong with its values.
    """

    zyx: np.ndarray
    grid: Grid
    organs: Organs
    contoured: tuple[str, ...] | None = None
    findings: tuple[Finding, ...] = ()

    @cached_property
    def boxes(self) -> dict[int, Box]:
        """The bounding box of each label that has a voxel."""
        return label_boxes(self.zyx)

    @property
    def has_ignored(self) -> bool:
        """Whether some voxels are not annotated; see `segthor.ignored`."""
        return ignored.LABEL in self.boxes and ignored.is_free(self.organs)

    @cached_property
    def left_out(self) -> np.ndarray | None:
        """bool [Z, Y, X], the ignored voxels; None where there are none."""
        return self.zyx == ignored.LABEL if self.has_ignored else None
