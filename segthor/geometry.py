"""Orientation of files, and the mapping between the scan's slices and the network's.

`Orientation` describes the order of a file's axes; `segthor.volume` uses it to turn arrays into
canonical (LPS) order [Z, Y, X]: z runs from inferior to superior, y from anterior to posterior, x
from the patient's right to the left, as a radiologist views a slice. `Placement` maps these slices
to the network's [Z, H, W], by a box and in-plane resampling, and back. Numpy and scipy only.
"""

import functools
import itertools
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from segthor import resample
from segthor.boxes import Box, around, reversing
from segthor.errors import InputError
from segthor.planes import Planes

AIR_HU = -1000
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Orientation:
    """Which axis of a file runs along the patient's left, posterior and superior direction.

    axes: For L, P, S the axis (0, 1, 2) of the file that is nearest to it.
    flipped: Whether that axis runs the other way.
    """

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    @classmethod
    def of(cls, affine: np.ndarray) -> "Orientation":
        """The orientation nearest to `affine` [4, 4] (voxel index to RAS+ mm)."""
        directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        cosines = _RAS_TO_LPS @ directions  # [patient's axis, file's axis]
        # All axes are assigned together: in an oblique scan the axis nearest to one direction may
        # also be the nearest to another.
        axes = max(
            itertools.permutations(range(3)),
            key=lambda order: sum(abs(cosines[i, axis]) for i, axis in enumerate(order)),
        )
        return cls(axes, tuple(bool(cosines[i, axis] < 0) for i, axis in enumerate(axes)))

    @property
    def is_lps(self) -> bool:
        """Whether the file's axes are x, y, z in canonical (LPS) order."""
        return self.axes == (0, 1, 2) and not any(self.flipped)

    def spacing_mm(self, affine: np.ndarray) -> tuple[float, float, float]:
        """Distance in mm between neighbours along z, y and x."""
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        return tuple(float(lengths[axis]) for axis in reversed(self.axes))

    def to_zyx(self, array: np.ndarray) -> np.ndarray:
        """Turns an array in the file's order of axes to canonical [Z, Y, X]; a view."""
        return array.transpose(self.axes)[reversing(self.flipped)].transpose(2, 1, 0)

    def to_file(self, zyx: np.ndarray) -> np.ndarray:
        """The inverse of `to_zyx`; a view."""
        array = zyx.transpose(2, 1, 0)[reversing(self.flipped)]
        return array.transpose(np.argsort(self.axes))


@dataclass(frozen=True)
class Placement:
    """Where one patient's prepared slices [Z, H, W] lie in the scan. All slices are prepared.

    shape_zyx: Voxels of the scan along z, y and x.
    spacing_zyx_mm: Distance between neighbouring voxels of the scan along z, y and x.
    first_px: (row, column) of the centre of the first prepared pixel, in pixels of the scan.
    step_px: Distance between prepared pixels along (row, column), in pixels of the scan; exactly 1
      where the scan's own pixels are kept.
    size_px: H and W.
    planes_mm: Offsets of planes at uneven steps along z (`Planes.offsets_mm`); spacing_zyx_mm has
      the mean step. None where the steps are even.
    """

    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]
    first_px: tuple[float, float]
    step_px: tuple[float, float]
    size_px: int
    planes_mm: tuple[float, ...] | None = field(default=None, metadata={"omit_none": True})

    def __post_init__(self):
        sizes = *self.shape_zyx, *self.spacing_zyx_mm, *self.step_px, self.size_px
        if not min(sizes) > 0:
            raise InputError(f"expected sizes above 0, found {min(sizes)}")
        if self.planes_mm is not None:
            steps = np.diff(self.planes_mm)
            if len(self.planes_mm) != self.shape_zyx[0] or not len(steps) or min(steps) <= 0:
                raise InputError("planes_mm: expected an ascending offset for each plane")

    @classmethod
    def centred(
        cls, shape_zyx, spacing_zyx_mm, center_px, size_px: int, pixel_mm: float, planes_mm=None
    ) -> "Placement":
        """A placement of size_px x size_px pixels about (row, column) `center_px` of the scan.

        pixel_mm: Size of a prepared pixel; 0 to keep the scan's own pixels without resampling.
        """
        half = (size_px - 1) / 2
        if pixel_mm:
            step = (pixel_mm / spacing_zyx_mm[1], pixel_mm / spacing_zyx_mm[2])
            first = tuple(float(c - half * s) for c, s in zip(center_px, step, strict=True))
        else:
            step = (1.0, 1.0)
            first = tuple(float(np.floor(c - half + 0.5)) for c in center_px)
        shape = tuple(int(n) for n in shape_zyx)
        return cls(shape, tuple(spacing_zyx_mm), first, step, size_px, planes_mm)

    @property
    def offsets_mm(self) -> np.ndarray:
        """Offsets of the scan's slices along z, ascending, float [Z]."""
        even = np.arange(self.shape_zyx[0]) * self.spacing_zyx_mm[0]
        return np.array(self.planes_mm) if self.planes_mm else even

    @property
    def scan_planes(self) -> Planes | None:
        """The planes of the scan at uneven steps; None at even steps."""
        return Planes(self.planes_mm) if self.planes_mm else None

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between prepared voxels along [Z, H, W]."""
        z, y, x = self.spacing_zyx_mm
        return z, y * self.step_px[0], x * self.step_px[1]

    @property
    def is_native(self) -> bool:
        """Whether prepared pixels are the scan's own, without resampling."""
        return self.step_px == (1.0, 1.0) and all(float(px).is_integer() for px in self.first_px)

    @property
    def share_inside(self) -> float:
        """The share of the box that the scan covers, 0 to 1."""
        share = 1.0
        for first, step, length in self._axes():
            low, high = first - step / 2, first + (self.size_px - 0.5) * step
            share *= max(0.0, min(high, length - 0.5) - max(low, -0.5)) / (high - low)
        return share

    def image_to_model(self, zyx: np.ndarray):
        """Yields each slice of HU [Z, Y, X] as prepared [H, W].

        float32, resampled linearly, with averaging where pixels grow; or in the scan's dtype where
        its pixels are kept. Pixels outside the scan are air.
        """
        if self.is_native:
            yield from self._cut(zyx, AIR_HU)
        else:
            yield from resample.resample(zyx, *self._weights(), outside=AIR_HU)

    def labels_to_model(self, zyx: np.ndarray, boxes: dict[int, Box]) -> np.ndarray:
        """Labels [Z, Y, X] as prepared, uint8 [Z, H, W].

        Each label is resampled as a separate map, and the largest value wins.

        boxes: Label to bounding box.
        """
        if self.is_native:
            return self._cut(zyx, 0).astype(np.uint8, copy=False)
        return resample.resample_labels(zyx, boxes, *self._weights())

    def most_probable(
        self, probabilities: np.ndarray, values: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The value, uint8 [N, Y, X], of the most probable class of each pixel of the scan, and its
        probability, float32 [N, Y, X]; 0 for background.

        Resamples before the class is chosen, so that boundaries stay as smooth as predicted.

        probabilities: [N, H, W, K] of any N slices; their sum over K is 1, class 0 is background.
        values: uint8 [K], value for each class, 0 for background; by default its number.
        """
        values = np.arange(probabilities.shape[-1], dtype=np.uint8) if values is None else values
        classes = np.zeros((len(probabilities), *self.shape_zyx[1:]), np.uint8)
        shares = np.zeros(classes.shape, np.float32)
        back, there = self._way_back
        for n, plane in enumerate(probabilities):
            # A pixel of the scan between prepared pixels that are all more likely background than
            # not is background, so only the box about the other pixels is resampled.
            likely = plane[..., 0] <= 0.5
            inner = tuple(np.flatnonzero(likely.any(axis)) for axis in (1, 0))
            if not len(inner[0]):
                continue
            region = tuple(
                resample.reach(weights, slice(px[0], px[-1] + 1))
                for weights, px in zip(there, inner, strict=True)
            )
            winner, share = resample.largest(resample.resample_maps(plane, *back, region))
            classes[n][region] = values[winner]
            np.copyto(shares[n][region], share, where=winner > 0)
        return classes, shares

    def planes(self, maps: np.ndarray) -> np.ndarray:
        """Resamples maps [N, H, W, K] of N slices to the scan's pixels, float32 [N, K, Y, X]."""
        region, back = tuple(slice(0, length) for length in self.shape_zyx[1:]), self._way_back[0]
        return np.stack([resample.resample_maps(plane, *back, region) for plane in maps])

    def labels_outside(self, zyx: np.ndarray, boxes: dict[int, Box]) -> int:
        """Number of labelled voxels of [Z, Y, X] outside of the box.

        boxes: Label to bounding box.
        """
        labelled, inside = around(boxes.values()), (slice(None), *self._inside())
        if all(
            limit.start <= part.start and part.stop <= limit.stop
            for part, limit in zip(labelled[1:], inside[1:], strict=True)
        ):
            return 0
        return int(np.count_nonzero(zyx[labelled]) - np.count_nonzero(zyx[inside]))

    def _axes(self):
        """(first_px, step_px, number of the scan's pixels) of the rows, then of the columns."""
        return zip(self.first_px, self.step_px, self.shape_zyx[1:], strict=True)

    def _inside(self) -> tuple[slice, slice]:
        """The scan's rows and columns whose centres lie in the box."""
        slices = []
        for first, step, length in self._axes():
            low = int(np.ceil(first - step / 2))
            high = int(np.ceil(first + (self.size_px - 0.5) * step))
            slices.append(slice(min(max(low, 0), length), min(max(high, 0), length)))
        return tuple(slices)

    def _cut(self, zyx: np.ndarray, outside) -> np.ndarray:
        scan, first = self._inside(), map(int, self.first_px)
        model = (slice(s.start - px, s.stop - px) for s, px in zip(scan, first, strict=True))
        # An unsigned scan needs another dtype for the -1000 HU of air.
        dtype = np.result_type(zyx.dtype, np.min_scalar_type(outside))
        prepared = np.full((len(zyx), self.size_px, self.size_px), outside, dtype)
        prepared[(slice(None), *model)] = zyx[(slice(None), *scan)]
        return prepared

    def _weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column weights [size_px, length] from the scan to the prepared grid."""
        return tuple(
            resample.linear_weights(first + step * np.arange(self.size_px), step, length)
            for first, step, length in self._axes()
        )

    @functools.cached_property
    def _way_back(self) -> tuple[tuple, tuple]:
        """Sparse row and column weights [length, size_px] from the prepared grid to the scan, and
        their transposes.
        """
        dense = (
            resample.linear_weights((np.arange(length) - first) / step, 1 / step, self.size_px)
            for first, step, length in self._axes()
        )
        back = tuple(map(sparse.csr_array, dense))
        return back, tuple(sparse.csr_array(weights.T) for weights in back)
