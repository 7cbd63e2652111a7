"""Draws the mediastinum: the organs at risk, with their labels, and the great vessels."""

import numpy as np

from segthor.phantom import anatomy
from segthor.phantom.anatomy import CRICOID_MM, FAT_HU, MUSCLE_HU, BodyTraits, spine_y
from segthor.phantom.canvas import Canvas, curve, merged
from segthor.phantom.contours import AORTA, ESOPHAGUS, HEART, TRACHEA

BRONCHI_END_MM = -16.0  # the trachea's contour follows the main bronchi down to this height


def draw_mediastinum(canvas: Canvas, t: BodyTraits) -> None:
    """Draws HU, labels and surrounding fat of aorta, esophagus, heart and trachea."""
    aorta = _tube(canvas, anatomy.aorta_path(t), 4)
    esophagus = _tube(canvas, anatomy.esophagus_path(t), 4)
    airway, *bronchi = (
        _tube(canvas, path, 6) for path in (anatomy.trachea_path(t), *anatomy.bronchi_paths(t))
    )
    ellipsoids = [canvas.ellipsoid(*part, margin_mm=9) for part in anatomy.heart_parts(t)]
    heart = merged(canvas, ellipsoids, round_mm=8)

    for field in (aorta, esophagus, airway, heart):
        canvas.paint(field, FAT_HU, grow_mm=4)
    _draw_great_vessels(canvas, t)
    canvas.paint(aorta, t.blood_hu)
    canvas.mark(aorta, AORTA)
    canvas.paint(esophagus, t.esophagus_hu)
    canvas.mark(esophagus, ESOPHAGUS)
    _draw_esophagus_air(canvas, t)
    _draw_heart(canvas, t, heart, ellipsoids)
    trachea = merged(canvas, [airway, *bronchi])
    canvas.paint(trachea, MUSCLE_HU, grow_mm=1.8)
    canvas.paint(trachea, -990.0)
    canvas.mark(trachea, TRACHEA, BRONCHI_END_MM, CRICOID_MM)


def _tube(canvas, path, margin_mm):
    return canvas.tube(path[:, :3], path[:, 3], margin_mm)


def _draw_heart(canvas, t, heart, ellipsoids):
    """Draws muscle with four chambers of blood."""
    muscle_hu = 50 + 0.45 * t.contrast_hu
    canvas.paint(heart, muscle_hu)
    canvas.mark(heart, HEART)
    for atrium in ellipsoids[1:]:
        canvas.paint(atrium, t.blood_hu, grow_mm=-3)
    centre, semi, axes = anatomy.heart_parts(t)[0]
    for along, across, size in ((0.12, 0.42, (0.66, 0.42, 0.6)), (0.0, -0.5, (0.68, 0.3, 0.66))):
        chamber = centre + along * semi[0] * axes[0] - across * semi[1] * axes[1]
        canvas.paint(canvas.ellipsoid(chamber, semi * size, axes), t.blood_hu)


def _draw_esophagus_air(canvas, t):
    if t.esophagus_air_at is not None:
        path = anatomy.esophagus_path(t)
        inside = path[np.abs(path[:, 2] - t.esophagus_air_at) < 14]
        if len(inside) > 1:
            canvas.paint(canvas.tube(inside[:, :3], 0.33 * inside[:, 3]), -800.0)


def _draw_great_vessels(canvas: Canvas, t: BodyTraits) -> None:
    """Draws pulmonary arteries, superior vena cava and arch branches, which have no label."""
    gap = anatomy.trachea_path(t)[0, 1]
    trunk = [(20, -44, -48, 12), (24, -34, -24, 12), (34, -10, -12, 9), (60, 12, -20, 7)]
    right = [(26, -30, -22, 9), (0, gap - 21, -20, 8), (-40, gap - 14, -24, 7), (-62, 4, -30, 6)]
    cava = [(-34, -24, -60, 9), (-39, -18, -20, 9), (-38, -16, 30, 8), (-34, -22, 60, 7)]
    cava += [(-52, -14, 110, 5.5), (-42, 0, 180, 5), (-42, 0, 320, 5)]
    vein = [
        (-34, -24, 48, 7),
        (0, -46, 56, 6),
        (34, -34, 68, 6),
        (50, -14, 110, 5),
        (42, 0, 200, 5),
    ]
    neck = spine_y(150) - 30
    branches = [
        [(-4, -24, 40, 6), (-20, -14, 70, 6), (-26, -2, 110, 5), (-28, neck, 200, 4)],
        [(12, -12, 42, 5), (18, -4, 72, 4.5), (24, 0, 110, 4.5), (28, neck, 200, 4)],
        [(28, 12, 40, 6), (32, 14, 72, 5.5), (50, 6, 98, 5), (90, -6, 106, 4)],
    ]
    for knots in (trunk, right, cava, vein, *branches):
        vessel = _tube(canvas, curve(knots), 3)
        canvas.paint(vessel, FAT_HU, grow_mm=2.5)
        canvas.paint(vessel, t.blood_hu - 10)
