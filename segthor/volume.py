"""A scan and a label map in memory, and their grid. Numpy and scipy only.

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
from segthor.planes import Planes

_LEAST_MM = 1e-6  # between voxels: below it an affine is empty
SAME_PLACE_MM = 0.1  # largest distance between corners of equal grids; headers are float32
_ORIGIN_DECIMALS = 1  # of the mm in `Grid.lps_affine`, see there


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of a scan lie. The fields describe the file, in its order of axes.

    shape: Voxels along each axis of the file.
    affine: float64 [4, 4], voxel index in the file to RAS+ mm.
    header: The NIfTI header of the file; None for other files and for grids made in memory.
    orientation: Which axis of the file is x, y and z. By default each is the one nearest to the
      patient's axis; for contours, that of their scan (`Volume.along`).
    planes: Planes at uneven steps along z, from inferior to superior; `affine` then has the mean
      step. None if all steps are even.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    header: Any = None
    orientation: Orientation | None = None
    planes: Planes | None = None

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "affine", np.asarray(self.affine, np.float64))
        if self.orientation is None:
            object.__setattr__(self, "orientation", Orientation.of(self.affine))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along z, y and x; along uneven planes the mean."""
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

        The origin is rounded to 0.1 mm. It is computed from the origin of the file, which is the
        position of another corner, in float32, for each order of axes; its last digits differ.
        """
        affine = self._exact_lps_affine()
        affine[:3, 3] = affine[:3, 3].round(_ORIGIN_DECIMALS)
        return affine + 0.0  # turns -0.0 into 0.0

    def part(self, shape_zyx, first_zyx=(0, 0, 0), step_zyx=(1, 1, 1)) -> "Grid":
        """The grid, in canonical order, of every `step_zyx`-th voxel from `first_zyx`.

        first_zyx: Index of the first voxel; may have fractions, for voxels that are means.
        """
        affine = self._exact_lps_affine()
        if self.planes:
            return self._uneven_part(affine, shape_zyx, first_zyx, step_zyx)
        affine[:3, 3] += affine[:3, :3] @ first_zyx[::-1]
        affine[:3, :3] *= step_zyx[::-1]
        return Grid(shape_zyx[::-1], affine)

    def _uneven_part(self, affine, shape_zyx, first_zyx, step_zyx) -> "Grid":
        z_mm = self.planes.interpolate_mm(first_zyx[0] + step_zyx[0] * np.arange(shape_zyx[0]))
        mean_mm = np.linalg.norm(affine[:3, 2])
        affine[:3, 3] += affine[:3, :3] @ [*first_zyx[:0:-1], z_mm[0] / mean_mm]
        step = (z_mm[-1] - z_mm[0]) / max(1, len(z_mm) - 1) / mean_mm
        affine[:3, :3] *= [*step_zyx[:0:-1], step or 1.0]
        planes = Planes.from_positions(z_mm) if len(z_mm) > 1 else None
        return Grid(shape_zyx[::-1], affine, planes=planes)

    def even(self) -> "Grid":
        """The even grid from the first to the last of uneven planes, in the order of the file."""
        axis, shape, affine = self.orientation.axes[2], list(self.shape), self.affine.copy()
        affine[:3, axis] *= (shape[axis] - 1) / (self.planes.even_count - 1)
        shape[axis] = self.planes.even_count
        return Grid(shape, affine, orientation=self.orientation)

    def in_order_of(self, other: "Grid") -> "Grid":
        """The grid of the same voxels, for a file with the order of axes of another grid."""
        lps, affine = self._exact_lps_affine(), np.eye(4)
        axes, flipped = other.orientation.axes, other.orientation.flipped
        shape = np.array(self.shape_zyx)[::-1][np.argsort(axes)]
        affine[:3, 3] = lps[:3, 3]
        for k, (axis, flip) in enumerate(zip(axes, flipped, strict=True)):
            affine[:3, axis] = -lps[:3, k] if flip else lps[:3, k]
            if flip:
                affine[:3, 3] += lps[:3, k] * (shape[axis] - 1)
        return Grid(shape, affine, orientation=other.orientation, planes=self.planes)

    def _exact_lps_affine(self) -> np.ndarray:
        affine = self.affine.copy()
        for axis, flipped in zip(self.orientation.axes, self.orientation.flipped, strict=True):
            if flipped:
                affine[:3, 3] += affine[:3, axis] * (self.shape[axis] - 1)
                affine[:3, axis] *= -1
        return affine[:, [*self.orientation.axes, 3]]


def is_invertible(affine: np.ndarray) -> bool:
    """Whether an affine, float [4, 4], is finite and maps different voxels to different points."""
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        volume = abs(np.linalg.det(affine[:3, :3] / lengths))  # 0 for axes in one plane
    return bool(np.isfinite(affine).all() and lengths.min() > _LEAST_MM and volume > 1e-6)


def corner_distance_mm(shape, one: np.ndarray, other: np.ndarray) -> float:
    """The largest distance between the positions of a corner voxel under two affines."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], [1])).reshape(4, -1)
    with np.errstate(all="ignore"):  # invalid affines give infinity or NaN
        return float(np.linalg.norm((one - other)[:3] @ corners, axis=0).max())


def _are_same(one: Grid, other: Grid) -> bool:
    """Whether two grids have their voxels at the same positions, in any order of the axes."""
    if one.shape_zyx != other.shape_zyx:
        return False
    affines = one._exact_lps_affine(), other._exact_lps_affine()
    return corner_distance_mm(one.shape_zyx[::-1], *affines) <= SAME_PLACE_MM


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan in memory.

    zyx: HU [Z, Y, X], in native byte order.
    grid: Where the voxels lie.
    findings: Findings about how the scan is stored.
    acquisition: For DICOM, what the headers say about the scanner and the patient's position.
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
        """A label map with the order of axes of its scan.

        Where the affine of a label map is damaged, or at 45 degrees to the patient, its own order
        of axes may differ from the scan's, and would exchange left and right.
        """
        if self.grid.shape != scan.shape:
            return self
        grid = replace(self.grid, orientation=scan.orientation)
        return replace(self, zyx=grid.to_zyx(self.grid.to_file(self.zyx)), grid=grid)

    def on_planes(self, scan: Grid) -> "Volume":
        """Puts contours from a NIfTI file on the uneven planes of their scan.

        NIfTI cannot store uneven planes: the file holds either the even grid (`Grid.even`) or one
        slice per plane. Contours on neither, and those of even scans, are returned unchanged.
        """
        if scan.planes is None or self.grid.planes is not None:
            return self
        if _are_same(self.grid, scan):
            return replace(self, grid=scan)
        if _are_same(self.grid, scan.even()):
            return replace(self, zyx=self.zyx[scan.planes.from_even], grid=scan)
        return self


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Contours or a prediction in memory. `zyx` must not change once `boxes` has been used.

    zyx: uint8 [Z, Y, X], label values; 0 is background.
    grid: Where the voxels lie.
    organs: The table of the label values.
    contoured: Names of the organs that a structure set has contours of; None for a file that does
      not say it.
    findings: Findings about the file and its values.
    """

    zyx: np.ndarray
    grid: Grid
    organs: Organs
    contoured: tuple[str, ...] | None = None
    findings: tuple[Finding, ...] = ()

    @cached_property
    def boxes(self) -> dict[int, Box]:
        """Label to bounding box, for labels that have a voxel."""
        return label_boxes(self.zyx)

    @property
    def has_ignored(self) -> bool:
        """Whether there are ignored voxels; see `segthor.ignored`."""
        return ignored.LABEL in self.boxes and ignored.is_free(self.organs)

    @cached_property
    def left_out(self) -> np.ndarray | None:
        """bool [Z, Y, X], the ignored voxels; None where there are none."""
        return self.zyx == ignored.LABEL if self.has_ignored else None
