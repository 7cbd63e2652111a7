"""Draws smooth shapes, given in millimetres of the patient, on the voxels of a scan.

Arrays are [Z, Y, X]: z from inferior to superior, y from anterior to posterior, x from the
patient's right to the left (LPS). Shapes are signed distances in mm, negative inside. Each is
computed only in its bounding box, so that a full-size scan is drawn in seconds.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicHermiteSpline

from segthor.boxes import around, relative

AIR_HU = -1000.0


@dataclass(frozen=True)
class Pose:
    """Position of the patient in the scanner.

    origin_mm: Position (x, y, z) of the carina, from the centre of the grid's first voxel.
    scale: Size of the patient relative to the reference anatomy.
    roll_rad: Rotation about z.
    lean: Shift in (x, y) per mm along z.
    """

    origin_mm: tuple[float, float, float]
    scale: float
    roll_rad: float
    lean: tuple[float, float]

    def matrix(self) -> np.ndarray:
        """Matrix [3, 3] from patient mm to scanner mm relative to `origin_mm`."""
        cos, sin = np.cos(self.roll_rad), np.sin(self.roll_rad)
        return self.scale * np.array(
            [[cos, -sin, self.lean[0]], [sin, cos, self.lean[1]], [0, 0, 1]]
        )


class Field(NamedTuple):
    """A signed distance on a part of the canvas.

    region: The part, as slices.
    mm: float32 [Z, Y, X] of this part.
    """

    region: tuple[slice, slice, slice]
    mm: np.ndarray


class Canvas:
    """The arrays that shapes are drawn on, all [Z, Y, X].

    hu: float32.
    labels: uint8.
    lungs: float32, share of the voxel that is lung, from 1 (left) over 0 to -1 (right); shapes that
      are drawn over a lung reduce it.
    """

    def __init__(self, shape_zyx, spacing_mm, pose: Pose):
        """`spacing_mm` is (x, y, z)."""
        self.pose, self.spacing_mm = pose, np.asarray(spacing_mm, float)
        self.hu = np.full(shape_zyx, AIR_HU, np.float32)
        self.labels = np.zeros(shape_zyx, np.uint8)
        self.lungs = np.zeros(shape_zyx, np.float32)
        # Edges are as wide as a pixel, like the partial volume effect of a scanner.
        self.edge_mm = 1.3 * max(self.spacing_mm[:2]) / pose.scale
        self._to_index = pose.matrix() / self.spacing_mm[:, None]
        self._origin_index = np.asarray(pose.origin_mm) / self.spacing_mm
        nz, ny, nx = shape_zyx
        self.z_mm = ((np.arange(nz) * self.spacing_mm[2] - pose.origin_mm[2]) / pose.scale).astype(
            np.float32
        )
        self.scanner_x = (np.arange(nx) * self.spacing_mm[0] - pose.origin_mm[0])[None, :]
        self.scanner_y = (np.arange(ny) * self.spacing_mm[1] - pose.origin_mm[1])[:, None]
        cos = float(np.cos(pose.roll_rad) / pose.scale)
        sin = float(np.sin(pose.roll_rad) / pose.scale)
        self._x = (cos * self.scanner_x + sin * self.scanner_y).astype(np.float32)
        self._y = (-sin * self.scanner_x + cos * self.scanner_y).astype(np.float32)
        # All pixels of a slice are shifted alike, so that x and y are [Y, X] planes.
        shift_x, shift_y = (pose.scale * lean * self.z_mm for lean in pose.lean)
        self._shift_x = cos * shift_x + sin * shift_y
        self._shift_y = -sin * shift_x + cos * shift_y

    def plane(self, k: int):
        """Patient x and y in mm, each [Y, X], of slice `k`."""
        return self._x - self._shift_x[k], self._y - self._shift_y[k]

    def coordinates(self, region):
        """Patient x, y [Z, Y, X] and z [Z, 1, 1] in mm of a region."""
        zs, ys, xs = region
        x = self._x[ys, xs] - self._shift_x[zs, None, None]
        y = self._y[ys, xs] - self._shift_y[zs, None, None]
        return x, y, self.z_mm[zs, None, None]

    def region(self, low, high):
        """The part of the grid that covers a box, given by two corners (x, y, z) in patient mm."""
        centre = self._to_index @ ((low + high) / 2) + self._origin_index
        reach = np.abs(self._to_index) @ ((high - low) / 2)
        slices = []
        for axis, size in zip((2, 1, 0), self.hu.shape, strict=True):
            first = min(max(math.floor(centre[axis] - reach[axis]), 0), size)
            last = min(max(math.ceil(centre[axis] + reach[axis]) + 1, first), size)
            slices.append(slice(first, last))
        return tuple(slices)

    def tube(self, points, radii, margin_mm=0.0) -> Field:
        """A chain of round cones through `points` [N, 3], with `radii` [N] or one radius, in mm.

        The distance is exact up to `margin_mm` outside the tube, and large beyond.
        """
        points = np.asarray(points, np.float32)
        radii = np.broadcast_to(np.asarray(radii, np.float32), len(points))
        reach = radii + margin_mm + self.edge_mm
        low, high = points - reach[:, None], points + reach[:, None]
        whole = self.region(low.min(0), high.max(0))
        mm = np.full([part.stop - part.start for part in whole], 1e3, np.float32)
        for i in range(len(points) - 1):
            part = self.region(low[i : i + 2].min(0), high[i : i + 2].max(0))
            if all(axis.stop > axis.start for axis in part):
                inner = relative(part, whole)
                cone = _cone(self.coordinates(part), points[i : i + 2], radii[i : i + 2])
                np.minimum(mm[inner], cone, out=mm[inner])
        return Field(whole, mm)

    def ellipsoid(self, centre, semi_axes, axes=None, margin_mm=0.0) -> Field:
        """An ellipsoid; `axes` [3, 3] has the directions of its semi-axes as rows, default x, y, z.

        Lengths are in mm.
        """
        semi = np.asarray(semi_axes, np.float32)
        axes = np.eye(3, dtype=np.float32) if axes is None else np.asarray(axes, np.float32)
        reach = np.sqrt(((semi[:, None] * axes) ** 2).sum(0)) + margin_mm + self.edge_mm
        region = self.region(centre - reach, centre + reach)
        x, y, z = (c - o for c, o in zip(self.coordinates(region), centre, strict=True))
        near = far = 0
        for axis, length in zip(axes, semi, strict=True):
            along = (axis[0] * x + axis[1] * y + axis[2] * z) / length
            near, far = near + along**2, far + (along / length) ** 2
        near = np.sqrt(near)
        return Field(region, near * (near - 1) / np.maximum(np.sqrt(far), 1e-6))

    def paint(self, field: Field, hu, grow_mm=0.0) -> None:
        """Fills the shape, grown by `grow_mm`; `hu` is a number or broadcasts over the region."""
        self.blend(field.region, field.mm - np.float32(grow_mm), hu)

    def blend(self, region, mm, hu, of_lung=0) -> None:
        """Fills a region where `mm` is negative, with a soft edge.

        of_lung: Whether the filling belongs to the left lung (1), the right lung (-1) or none (0);
          broadcasts over the region, as `hu` does.
        """
        cover = np.clip(np.float32(0.5) - mm / np.float32(self.edge_mm), 0, 1)
        view = self.hu[region]
        view += cover * (hu - view)
        lungs = self.lungs[region]
        lungs += cover * (of_lung - lungs)

    def mark(self, field: Field, label: int, from_mm=-np.inf, to_mm=np.inf) -> None:
        """Labels the voxels whose centres lie inside the shape and between two heights z."""
        z = self.z_mm[field.region[0], None, None]
        inside = (field.mm < 0) & (z >= from_mm) & (z <= to_mm)
        self.labels[field.region][inside] = label


def merged(canvas: Canvas, fields, round_mm=0.0) -> Field:
    """The union of shapes; concave edges are rounded with a radius of about `round_mm`."""
    whole = around(field.region for field in fields)
    union = np.full([part.stop - part.start for part in whole], 1e3, np.float32)
    for region, mm in fields:
        inner = relative(region, whole)
        view = union[inner]
        crease = np.maximum(round_mm - np.abs(view - mm), 0)
        union[inner] = np.minimum(view, mm) - crease**2 / (4 * round_mm or 1)
    return Field(whole, union)


def curve(knots, step_mm=6.0) -> np.ndarray:
    """Points [N, 3 or more] on a smooth curve through `knots`, about `step_mm` apart.

    Further columns, such as a radius, are interpolated in the same way.
    """
    knots = np.asarray(knots, float)
    chord = np.r_[0, np.cumsum(np.linalg.norm(np.diff(knots[:, :3], axis=0), axis=1))]
    count = max(int(np.ceil(chord[-1] / step_mm)), 1) + 1
    slopes = np.gradient(knots, chord, axis=0)
    return CubicHermiteSpline(chord, knots, slopes)(np.linspace(0, chord[-1], count))


def oval(x, y, half_x: float, half_y: float):
    """Distance in mm, along the ray from the origin, to a superellipse of exponent 2.5."""
    u, v = np.abs(x) / np.float32(half_x), np.abs(y) / np.float32(half_y)
    f = (u * u * np.sqrt(u) + v * v * np.sqrt(v)) ** np.float32(0.4)
    return np.sqrt(x * x + y * y) * (1 - 1 / np.maximum(f, np.float32(1e-3)))


def _cone(coordinates, ends, radii):
    (ax, ay, az), (dx, dy, dz) = ends[0], ends[1] - ends[0]
    x, y, z = coordinates[0] - ax, coordinates[1] - ay, coordinates[2] - az
    length2 = max(float(dx * dx + dy * dy + dz * dz), 1e-6)
    t = np.clip((x * dx + y * dy + z * dz) / np.float32(length2), 0, 1)
    distance = np.sqrt((x - t * dx) ** 2 + (y - t * dy) ** 2 + (z - t * dz) ** 2)
    return distance - (radii[0] + t * (radii[1] - radii[0]))
