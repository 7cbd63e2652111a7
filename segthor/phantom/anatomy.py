"""The traits of a synthetic patient, and the positions and shapes of its organs.

All lengths are in mm of a patient frame: x to the patient's left, y to the back, z upwards, with
the origin in the midline at the height of the carina. Sizes and positions are those of an adult.
"""

from dataclasses import dataclass

import numpy as np

from segthor.phantom.canvas import curve

CRICOID_MM = 122.0  # the lower end of the larynx, where trachea and esophagus begin
FAT_HU, MUSCLE_HU, BLOOD_HU = -95.0, 50.0, 42.0

_SPINE_Z = (-480, -300, -200, -100, 0, 60, 110, 150, 200, 320)
_SPINE_Y = (34, 42, 50, 59, 62, 57, 48, 41, 38, 38)


@dataclass(frozen=True)
class BodyTraits:
    """BodyTraits that differ between patients; lengths in mm, densities in HU."""

    scale: float = 1.0
    girth: float = 1.0
    fat: float = 16.0
    roll_rad: float = 0.0
    lean_x: float = 0.0
    lean_y: float = 0.0
    contrast_hu: float = 110.0
    bias_hu: float = 0.0
    heart_size: float = 1.0
    heart_shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    heart_turn_rad: float = 0.0
    aorta_radius: float = 12.0
    aorta_shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    trachea_radius: float = 10.0
    esophagus_radius: float = 7.4
    esophagus_hu: float = 40.0
    esophagus_sway: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    esophagus_air_at: float | None = None
    diaphragm: float = 0.0
    lung_hu: float = -850.0
    arms_down: bool = False
    couch_gap: float = 5.0
    couch_curve: float = 0.0003
    metal_hu: float | None = None

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "BodyTraits":
        """A random patient."""
        between = rng.uniform
        return cls(
            scale=between(0.96, 1.07),
            girth=between(0.95, 1.06),
            fat=between(9, 26),
            roll_rad=np.deg2rad(between(-4, 4)),
            lean_x=between(-0.03, 0.03),
            lean_y=between(-0.02, 0.02),
            contrast_hu=between(40, 180),
            bias_hu=between(-8, 8),
            heart_size=between(0.93, 1.12),
            heart_shift=tuple(between(-4, 4, 3)),
            heart_turn_rad=between(-0.15, 0.15),
            aorta_radius=between(11, 13.5),
            aorta_shift=tuple(between(-2.5, 2.5, 3)),
            trachea_radius=between(9.3, 11),
            esophagus_radius=between(6.9, 8.3),
            esophagus_hu=between(35, 45),
            esophagus_sway=tuple(between(-3.5, 3.5, 4)),
            esophagus_air_at=_sometimes(rng, 0.5, between(-130, 90)),
            diaphragm=between(-10, 10),
            lung_hu=between(-880, -820),
            arms_down=bool(rng.random() < 0.3),
            couch_gap=between(-3, 10),
            couch_curve=between(0, 0.0006),
            metal_hu=_sometimes(rng, 0.25, between(3000, 25000)),
        )

    @property
    def blood_hu(self) -> float:
        """HU of blood with contrast agent."""
        return BLOOD_HU + self.contrast_hu


def _sometimes(rng, probability, value):
    return float(value) if rng.random() < probability else None


def spine_y(z):
    """Centre of the vertebral bodies at height `z`."""
    return np.interp(z, _SPINE_Z, _SPINE_Y)


def trachea_path(t: BodyTraits) -> np.ndarray:
    """The trachea from below the carina to the pharynx, [N, 4]: x, y, z, radius of the lumen."""
    r = t.trachea_radius
    gap = 17 + 2 * t.esophagus_radius + 5.5 + r  # spine, esophagus, walls
    knots = [(-1 + 0.01 * z, spine_y(z) - gap, z, r) for z in (-4, 25, 55, 85, 115)]
    knots += [(0, spine_y(135) - gap, 135, r + 1), (0, spine_y(200) - gap + 4, 200, r + 2)]
    knots += [(0, spine_y(320) - gap + 4, 320, r)]
    return curve(knots, 8)


def bronchi_paths(t: BodyTraits) -> list[np.ndarray]:
    """Right and left main bronchus, [N, 4]: x, y, z, radius of the lumen."""
    x, y, z, r = trachea_path(t)[0]
    right = [(x - 2, y, z + 5, 0.75 * r), (-24, y + 1, -20, 0.68 * r), (-50, y + 4, -38, 0.5 * r)]
    left = [(x + 2, y, z + 5, 0.72 * r), (27, y + 2, -22, 0.6 * r), (56, y + 7, -38, 0.45 * r)]
    return [curve(right), curve(left)]


def aorta_path(t: BodyTraits) -> np.ndarray:
    """The aorta from the valve over the arch to the abdomen, [N, 4]: x, y, z, radius."""
    r = t.aorta_radius
    knots = [
        (4, -30, -62, 1.12 * r),
        (-10, -33, -30, 1.2 * r),
        (-16, -33, 0, 1.18 * r),
        (-11, -28, 24, 1.12 * r),
        (6, -19, 37, 1.08 * r),
        (24, 0, 37, 1.04 * r),
        (31, 24, 27, 1.0 * r),
        (32, 40, 4, 1.0 * r),
        (31, 44, -30, r),
        (27, 44, -80, 0.96 * r),
    ]
    for z in (-130, -180, -240, -300, -480):
        x = np.interp(z, (-480, -250, -130, -80), (3, 4, 20, 27))
        radius = np.interp(z, (-480, -250, -80), (0.75, 0.85, 0.96)) * r
        knots.append((x, spine_y(z) - 19 - radius + 0.55 * max(x - 4, 0), z, radius))
    path = curve(knots)
    path[:, :3] += np.asarray(t.aorta_shift) * [0.6, 0.4, 1]
    return path


def esophagus_path(t: BodyTraits) -> np.ndarray:
    """The esophagus from the cricoid to the stomach, [N, 4]: x, y, z, radius; beside the aorta."""
    r, sway = t.esophagus_radius, t.esophagus_sway
    front = 17.5 + r  # the esophagus touches the spine
    knots = [
        (0, spine_y(CRICOID_MM) - front, CRICOID_MM - r, 0.95 * r),
        (3 + sway[0], spine_y(75) - front, 75, 0.95 * r),
        (5 + sway[1], spine_y(25) - front, 25, r),
        (5 + 0.5 * sway[1], spine_y(-20) - front, -20, r),
        (7 + sway[2], spine_y(-60) - front, -60, r),
        (11 + sway[3], spine_y(-100) - front - 6, -100, 1.03 * r),
        (20 + 0.5 * sway[3], 22, -135, 1.05 * r),
        (27, 14, -150, 1.05 * r),
        (42, 4, -165, 1.1 * r),
    ]
    path, aorta = curve(knots), aorta_path(t)
    for point in path:
        offset = point[:3] - aorta[:, :3]
        distance = np.linalg.norm(offset, axis=1)
        nearest = np.argmin(distance - aorta[:, 3])
        overlap = point[3] + aorta[nearest, 3] + 2 - distance[nearest]
        if overlap > 0:
            away = offset[nearest, :2]
            point[:2] += overlap * away / np.linalg.norm(away)
    return path


def heart_parts(t: BodyTraits):
    """(centre, semi-axes, axes) of the ventricles, the right and the left atrium."""
    long = np.array([0.72, -0.45, -0.53]) / np.linalg.norm([0.72, -0.45, -0.53])
    cos, sin = np.cos(t.heart_turn_rad), np.sin(t.heart_turn_rad)
    long = np.array([cos * long[0] - sin * long[1], sin * long[0] + cos * long[1], long[2]])
    side = np.cross(long, [0, 0, 1.0])
    side /= np.linalg.norm(side)
    axes = np.stack([long, side, np.cross(long, side)])
    shift, size = np.asarray(t.heart_shift), t.heart_size
    parts = [
        ((24, -34, -84), (63, 47, 44), axes),
        ((-20, -28, -72), (28, 32, 38), np.eye(3)),
        ((4, 0, -52), (34, 19, 25), np.eye(3)),
    ]
    return [
        (np.asarray(centre) + shift, size * np.asarray(semi), axes) for centre, semi, axes in parts
    ]
