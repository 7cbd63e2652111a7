"""Scans a drawn patient: the grid, the noise, the order of the file's axes."""

from dataclasses import dataclass

import numpy as np

from segthor.phantom.anatomy import BodyTraits
from segthor.phantom.canvas import Pose

_PIXELS = {"small": 128, "full": 512, "tiny": 48}
_COVER_MM = {"small": (285, 320), "full": (390, 470), "tiny": (304, 304)}
_TOP_MM = {"small": (98, 124), "full": (112, 160), "tiny": (98, 124)}
_SLICES = {"small": (35, 48), "full": (150, 284), "tiny": (16, 16)}
_AXCODES = ("LPS", "LPS", "LPS", "LPS", "RAS", "LAS", "LPI", "ASL")  # most files are LPS
_PADDING_HU = (None, None, -1024, -2000, -3024)
_BODY_MM = 352  # width of the reference patient's shoulders
_PAIRS = ("LR", "PA", "SI")


@dataclass(frozen=True)
class Scanner:
    """Parameters of one scan.

    shape: Voxels along the patient's L, P, S axes.
    spacing_mm: Distance between voxels along the same axes.
    top_mm: Height of the uppermost slice above the carina of a patient of scale 1.
    offset_mm: Position (L, P) of the body relative to the centre of the grid.
    axcodes: Directions of the file's axes, such as 'LPS'.
    oblique_deg: Rotation of grid and patient about the R and the A axis.
    origin_mm: RAS position of the rightmost, foremost, lowest voxel.
    noise_hu: Standard deviation of the noise.
    padding_hu: Value outside the scanner's circle, or None.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    top_mm: float
    offset_mm: tuple[float, float]
    axcodes: str
    oblique_deg: float
    origin_mm: tuple[float, float, float]
    noise_hu: float
    padding_hu: int | None

    @classmethod
    def draw(cls, rng, size: str, traits: BodyTraits, **overrides) -> "Scanner":
        """A random scan of a patient; raises ValueError for an unknown size."""
        if size not in _PIXELS:
            raise ValueError(f"size: expected one of {sorted(_PIXELS)}, got {size!r}")
        between = rng.uniform
        if size == "full":
            pixel_mm = 0.9 + 0.47 * rng.beta(1, 3)
            slice_mm = float(rng.choice([2.0, 2.5, 2.5, 2.5, 3.0, 3.3, 3.7]))
        else:
            width = _BODY_MM * traits.girth * traits.scale
            pixel_mm = between(1.1, 1.32) * width / _PIXELS[size]
            slice_mm = between(6.8, 8.0) if size == "small" else 19.0
        slices = round(between(*_COVER_MM[size]) / slice_mm)
        scan = {
            "shape": (_PIXELS[size],) * 2 + (int(np.clip(slices, *_SLICES[size])),),
            "spacing_mm": (round(pixel_mm, 3), round(pixel_mm, 3), round(slice_mm, 2)),
            "top_mm": between(*_TOP_MM[size]),
            "offset_mm": (between(-10, 10), between(-20, 5)),
            "axcodes": str(rng.choice(_AXCODES)),
            "oblique_deg": between(1, 3) if rng.random() < 0.15 else 0.0,
            "origin_mm": tuple(np.round(between(-150, 150, 3), 1)),
            "noise_hu": between(8, 25),
            "padding_hu": _PADDING_HU[rng.integers(len(_PADDING_HU))],
        }
        return cls(**(scan | overrides))

    def pose(self, traits: BodyTraits) -> Pose:
        """The pose of the patient: near the centre of the grid, the uppermost slice at `top_mm`."""
        size_x, size_y, size_z = np.multiply(np.subtract(self.shape, 1), self.spacing_mm)
        origin = (
            float(size_x / 2 + self.offset_mm[0]),
            float(size_y / 2 + self.offset_mm[1]),
            float(size_z - self.top_mm * traits.scale),
        )
        return Pose(origin, traits.scale, traits.roll_rad, (traits.lean_x, traits.lean_y))

    def acquire(self, drawn: np.ndarray, bias_hu: float, rng) -> np.ndarray:
        """Adds bias, correlated noise and the scanner's circle to HU float32 [Z, Y, X]; int16."""
        hu = np.empty(drawn.shape, np.int16)
        for k, section in enumerate(drawn):
            white = rng.standard_normal(section.shape, np.float32)
            # A reconstruction's noise is correlated between neighbouring pixels.
            grain = (white + np.roll(white, 1, 0) + np.roll(white, 1, 1)) / np.float32(np.sqrt(3))
            noisy = section + np.float32(self.noise_hu) * grain
            noisy += np.float32(bias_hu) * (section > -300)
            hu[k] = np.rint(np.clip(noisy, -1024, 32767))
        if self.padding_hu is not None:
            hu[:, _outside_circle(drawn.shape[1:])] = self.padding_hu
        return hu

    def affine(self) -> np.ndarray:
        """float64 [4, 4], voxel index in the order of the file's axes to RAS+ mm."""
        order, flips = self._order()
        cos, sin = np.cos(np.deg2rad(self.oblique_deg)), np.sin(np.deg2rad(self.oblique_deg))
        turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        turn = turn @ [[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]
        steps = turn @ np.diag(np.multiply(self.spacing_mm, (-1, -1, 1)))  # LPS to RAS
        affine = np.eye(4)
        affine[:3, 3] = self.origin_mm
        for i, (axis, flip) in enumerate(zip(order, flips, strict=True)):
            affine[:3, i] = -steps[:, axis] if flip else steps[:, axis]
            if flip:
                affine[:3, 3] += steps[:, axis] * (self.shape[axis] - 1)
        return affine

    def to_file(self, zyx: np.ndarray) -> np.ndarray:
        """Turns [Z, Y, X] as drawn to the order of the file's axes; a view."""
        order, flips = self._order()
        steps = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
        return zyx.transpose(2, 1, 0).transpose(order)[steps]

    def _order(self):
        """(order, flips): axis i of the file is axis order[i] of L, P, S, reversed if flips[i]."""
        order = [i for code in self.axcodes for i, pair in enumerate(_PAIRS) if code in pair]
        if sorted(order) != [0, 1, 2] or len(self.axcodes) != 3:
            raise ValueError(
                f"axcodes: expected one letter of each of {_PAIRS}, got {self.axcodes!r}"
            )
        flips = [code == _PAIRS[axis][1] for code, axis in zip(self.axcodes, order, strict=True)]
        return order, flips


def _outside_circle(shape):
    y, x = ((np.arange(n) - (n - 1) / 2) / (n / 2) for n in shape)
    return y[:, None] ** 2 + x[None, :] ** 2 > 1
