"""The strengths of augmentation, options of the programs; `trainer.augment` applies them."""

import dataclasses
from dataclasses import dataclass

from segthor.options import check, option

ELASTIC_GRID_PX = 32  # pixels between control points
# A cubic B-spline deformation cannot fold while no control point moves by this share of the grid
# (Choi and Lee, Injectivity conditions of 2D and 3D uniform cubic B-spline functions, 2000), so it
# limits elastic_px.
NO_FOLDING = 0.48


def _strength(default: float, highest: float, text: str):
    return option(default, text, (0, highest))


@dataclass(frozen=True)
class Strengths:
    """Strengths of augmentation; 0 switches a kind off.

    Geometry and grey values are drawn uniformly between -strength and +strength, factors uniformly
    in their logarithm. The fields after `probability` damage a slice: each with that probability,
    with a magnitude drawn uniformly between 0 and the strength.

    There are no flips by default. A thorax mirrored left to right is situs inversus (one person in
    ten thousand), and the network could not learn on which side the aorta lies. Front and back are
    never exchanged in a scan, since the reader turns every scan to one orientation.
    """

    flip_left_right: float = _strength(0.0, 1, "Share of slices mirrored left to right.")
    flip_front_back: float = _strength(0.0, 1, "Share of slices mirrored front to back.")
    rotation_deg: float = _strength(15.0, 180, "Turn about the image's centre, in degrees.")
    scale: float = _strength(0.15, 1, "Size: a factor between 1 / (1 + this) and 1 + this.")
    shift: float = _strength(0.06, 1, "Shift along rows and columns, as a share of the side.")
    elastic_px: float = _strength(
        4.0,
        NO_FOLDING * ELASTIC_GRID_PX,
        f"Displacement in pixels of control points {ELASTIC_GRID_PX} pixels apart.",
    )

    window_level: float = _strength(0.08, 1, "Level of the window, as a share of its width.")
    window_width: float = _strength(0.15, 4, "Width: a factor between 1 / (1 + this) and 1 + this.")
    gamma: float = _strength(0.2, 4, "Exponent of grey, between 1 / (1 + this) and 1 + this.")
    contrast: float = _strength(
        0.1, 4, "Contrast about the slice's mean: a factor between 1 / (1 + this) and 1 + this."
    )
    brightness: float = _strength(0.05, 1, "Added grey, as a share of the whole scale.")

    probability: float = _strength(0.2, 1, "Share of slices that each of the following damages.")
    blur_px: float = _strength(1.2, 20, "Gaussian blur: standard deviation in pixels.")
    low_resolution: float = _strength(
        1.0, 15, "Pixels enlarged to 1 + this, then interpolated back."
    )
    sharpen: float = _strength(1.0, 10, "Difference to the smoothed slice, added this many times.")
    emboss: float = _strength(0.5, 10, "Gradient along the diagonal, added this many times.")
    noise: float = _strength(0.05, 1, "Gaussian noise: standard deviation, share of the scale.")
    cutout: float = _strength(0.2, 1, "Sides of a rectangle set to grey, as a share of the image.")

    def __post_init__(self):
        check(self)

    def at_least(self, other: "Strengths") -> "Strengths":
        """Returns, for each kind, the larger of the two strengths."""
        names = [spec.name for spec in dataclasses.fields(self)]
        return Strengths(**{name: max(getattr(self, name), getattr(other, name)) for name in names})

    @classmethod
    def none(cls) -> "Strengths":
        """All strengths 0: slices stay as they are stored."""
        return cls(**{spec.name: 0.0 for spec in dataclasses.fields(cls)})
