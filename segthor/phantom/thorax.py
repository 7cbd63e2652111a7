"""Draws what surrounds the mediastinum: couch, trunk, lungs, abdomen, arms, bones. In mm and HU."""

import numpy as np

from segthor.phantom.anatomy import CRICOID_MM, FAT_HU, MUSCLE_HU, BodyTraits, spine_y, trachea_path
from segthor.phantom.canvas import Canvas, curve, merged, oval
from segthor.phantom.contours import SPINAL_CORD

# Half widths (x) and half depths (y) by height z, of the body's surface and of the rib cage inside.
_BODY_Z = (-480, -200, -60, 20, 70, 100, 125, 145, 165, 190, 340)
_BODY_X = (158, 163, 168, 176, 186, 190, 172, 120, 76, 66, 70)
_BODY_Y = (112, 116, 117, 112, 100, 90, 80, 70, 64, 64, 80)
_CAGE_Z = (-480, -150, -60, 0, 40, 70, 90, 102, 110)
_CAGE_X = (128, 133, 133, 127, 112, 88, 62, 38, 12)
_CAGE_Y = (88, 94, 94, 88, 76, 60, 44, 28, 10)
_BACK_Y = 116.0
_CORD_END_MM = -240.0  # the lower edge of L2, where contours of the cord end (atlas of RTOG 1106)
_RIBS_Z = (86, 66, 44, 22, 0, -24, -50, -78, -106, -136)


def draw_couch(canvas: Canvas, t: BodyTraits) -> None:
    """Draws a foam plate with two hard faces below the back; it does not roll with the patient."""
    x, y = canvas.scanner_x, canvas.scanner_y
    top = canvas.pose.scale * (_BACK_Y + 0.5 * (t.fat - 16)) + t.couch_gap - t.couch_curve * x**2
    sides = np.abs(x) - 225
    for depth, thickness, hu in ((15, 26, -870), (2.5, 5, 60), (27.5, 5, 20)):
        plate = np.maximum(np.abs(y - top - depth) - thickness / 2, sides)
        canvas.blend(np.s_[:], plate.astype(np.float32)[None], hu)


def draw_trunk(canvas: Canvas, t: BodyTraits) -> None:
    """Draws skin, fat, muscle, lungs and the content of the rib cage below them, by slices."""
    for k, z in enumerate(canvas.z_mm):
        x, y = canvas.plane(k)
        half_x, half_y, centre_y = _body_section(t, float(z))
        body = oval(x, y - centre_y, half_x, half_y)
        for grow, hu in ((0, 10), (-1.5, FAT_HU - 5), (-t.fat, MUSCLE_HU)):
            canvas.blend(k, body - grow, hu)
        if z < _CAGE_Z[-1]:
            _draw_cage_section(canvas, t, k, x, y, float(z))


def _body_section(t, z):
    half_x = t.girth * np.interp(z, _BODY_Z, _BODY_X) + 0.7 * (t.fat - 16)
    half_y = np.interp(z, _BODY_Z, _BODY_Y) + 0.5 * (t.fat - 16)
    back = _BACK_Y + 0.5 * (t.fat - 16) - np.interp(z, (120, 180), (0, 20))
    return half_x, half_y, back - half_y


def _cage_section(z):
    half_x, half_y = np.interp(z, _CAGE_Z, _CAGE_X), np.interp(z, _CAGE_Z, _CAGE_Y)
    return half_x, half_y, np.interp(z, (-100, 0, 110), (0, 4, 26))


def _draw_cage_section(canvas, t, k, x, y, z):
    half_x, half_y, centre_y = _cage_section(z)
    cage = oval(x, y - centre_y, half_x, half_y)
    canvas.blend(k, cage, FAT_HU)
    dome = _dome_mm(t, x, y)
    below = 0.7 * (z - dome)  # its slope makes the height a distance
    half_mediastinum = 24 * np.clip(1 - ((y - 20) / 95) ** 2, 0.2, 1)
    lung = np.maximum(cage + 1, half_mediastinum - np.abs(x - 2))
    canvas.blend(k, np.maximum(lung, -below), t.lung_hu, of_lung=np.sign(x - 2))
    if z < -90 + t.diaphragm:
        canvas.blend(k, np.maximum(np.maximum(cage + 1, below), -below - 3), MUSCLE_HU)
        # The left lobe lies in front and thins out downwards.
        medial = x - (45 + 0.6 * (z + 110)) + 0.5 * (y + 40) + 0.004 * (y + 20) ** 2
        liver = np.maximum(medial, y - 62 + 0.3 * np.abs(x + 60))
        liver = np.maximum(np.maximum(cage + 4, below + 3), np.maximum(liver, -250 - z))
        canvas.blend(k, liver, 58 + 0.4 * t.contrast_hu)


def _dome_mm(t, x, y):
    """Height z of the diaphragm above each point."""
    right = -100 - 0.0075 * ((x + 72) ** 2 + 0.8 * (y - 5) ** 2)
    left = -114 - 0.0085 * ((x - 76) ** 2 + 0.8 * (y - 5) ** 2)
    return np.maximum(right, left) + np.float32(t.diaphragm)


def draw_abdomen(canvas: Canvas, t: BodyTraits) -> None:
    """Draws spleen, kidneys and some bowel; see `draw_stomach` for the stomach."""
    spleen_hu, down = 50 + 0.6 * t.contrast_hu, t.diaphragm
    for centre, semi, hu in (
        ((98, 44, -188 + down), (26, 38, 40), spleen_hu),
        ((52, 44, -255), (25, 24, 55), 35 + t.contrast_hu),
        ((-56, 44, -270), (25, 24, 55), 35 + t.contrast_hu),
        ((20, -40, -290), (85, 30, 45), 30.0),
        ((-40, -30, -350), (70, 35, 40), 30.0),
        ((60, -20, -370), (50, 40, 50), 30.0),
    ):
        canvas.paint(canvas.ellipsoid(np.array(centre), semi), hu)


def draw_stomach(canvas: Canvas, t: BodyTraits) -> None:
    """Draws wall, fluid and air at the front; the label of the esophagus ends at the wall."""
    centre = np.array([66.0, -8, -182 + 0.5 * t.diaphragm])
    stomach = canvas.ellipsoid(centre, (38, 44, 32), margin_mm=3)
    canvas.paint(stomach, 55 + 0.3 * t.contrast_hu)
    canvas.paint(stomach, 12.0, grow_mm=-4)
    _, y, _ = canvas.coordinates(stomach.region)
    canvas.blend(stomach.region, np.maximum(stomach.mm + 5, y - centre[1] + 18), -980.0)
    canvas.mark(stomach, 0)


def draw_lung_vessels(canvas: Canvas, t: BodyTraits, rng: np.random.Generator) -> None:
    """Draws branches from each hilum that become thinner, inside the lung only.

    As in clinical contours of a lung, they belong to the lung; shapes that are drawn later do not:
    arteries, bronchi and fat of the hilum.
    """
    for side in (-1, 1):
        for _ in range(26):
            start = np.array([side * 46, 10, -22]) + rng.normal(0, 5, 3)
            goal = np.array([side * rng.uniform(70, 120), rng.uniform(-75, 85), 0])
            goal[2] = rng.uniform(-125, 80)
            middle = (start + goal) / 2 + rng.normal(0, 8, 3)
            radius = rng.uniform(2.2, 3.6)
            _draw_lung_vessel(canvas, t, [start, middle, goal], radius)
            for _ in range(2):
                tip = (middle + goal) / 2 + rng.normal(0, 28, 3)
                _draw_lung_vessel(canvas, t, [middle, (middle + tip) / 2, tip], 0.6 * radius)


def _draw_lung_vessel(canvas, t, knots, radius):
    if radius < canvas.edge_mm / 3:  # too thin for the scan's pixels to show
        return
    points = curve(knots, 14)
    vessel = canvas.tube(points, np.linspace(radius, 0.35 * radius, len(points)))
    wall = 1e3 * (canvas.hu[vessel.region] > -600)
    canvas.blend(vessel.region, vessel.mm + wall, t.blood_hu - 20, canvas.lungs[vessel.region])


def draw_arms(canvas: Canvas, t: BodyTraits) -> None:
    """Draws arms along the body, or raised beside the head, with the shoulders."""
    body_x, _, _ = _body_section(t, 90)
    for side in (-1, 1):
        shoulder = (side * (body_x - 22), 20, 92)
        hand = (side * (body_x + 42), 30, -480) if t.arms_down else (side * 150, -40, 340)
        elbow = (side * (body_x + 36), 26, 10) if t.arms_down else (side * (body_x - 8), 0, 180)
        arm = curve([shoulder, elbow, hand], 25)
        field = canvas.tube(arm, 40)
        for grow, hu in ((0, 10), (-1.5, FAT_HU), (-8, MUSCLE_HU)):
            canvas.paint(field, hu, grow)
        _bone(canvas, arm, 11, 700, 150, 4)


def draw_skeleton(canvas: Canvas, t: BodyTraits) -> None:
    """Draws spine, ribs, sternum, collarbones, shoulder blades, and the larynx."""
    _draw_spine(canvas)
    for side in (-1, 1):
        for level in _RIBS_Z:
            _bone(canvas, _rib_path(side, level), 5.5, 380, 180, 2.5)
        clavicle = [(side * 14, -62, 46), (side * 70, -60, 72), (side * 150, 12, 96)]
        _bone(canvas, curve(clavicle, 15), 6.5, 420, 180, 2.5)
        blade = np.array([[0.55 * side, 0.83, 0], [-0.83 * side, 0.55, 0], [0, 0, 1]])
        canvas.paint(canvas.ellipsoid(np.array([side * 112, 76, 34]), (5, 38, 58), blade), 280.0)
    front = np.array([(0, _front_y(z) - 7, z) for z in (44, 10, -30, -70, -100)])
    sternum = merged(canvas, [canvas.tube(front + [x, 0, 0], 6) for x in range(-14, 15, 4)])
    canvas.paint(sternum, 280.0)
    canvas.paint(sternum, 140.0, grow_mm=-2)
    airway = trachea_path(t)
    throat = airway[airway[:, 2] > CRICOID_MM + 3]
    larynx = canvas.tube(throat[:6, :3], throat[:6, 3] + 5)
    canvas.paint(larynx, 190.0)


def _front_y(z):
    _, half_y, centre_y = _cage_section(max(z, -100) if z < 44 else 44)
    return centre_y - half_y


def _rib_path(side, level):
    """A rib, from its vertebra around the cage and down towards the front."""
    turns = np.deg2rad(np.linspace(12, 156 if level > -100 else 120, 14))
    points = []
    for turn in turns:
        z = level - 62 * (turn / np.pi) ** 1.3
        half_x, half_y, centre_y = _cage_section(z)
        x = side * (half_x + 6) * np.sin(turn)
        points.append((x, centre_y + (half_y + 6) * np.cos(turn), z))
    root = (side * 20, spine_y(level) + 12, level + 2)
    return curve([root, *points], 14)


def _draw_spine(canvas):
    """Draws vertebrae, discs and muscle, and labels the spinal canal as spinal cord.

    Cord and fluid have the same HU here, and in planning the canal is often contoured instead.
    """
    heights = np.arange(-480, 341, 10.0)
    column = np.stack([0 * heights, spine_y(heights), heights], 1)
    muscle = canvas.tube(column + [0, 16, 0], 28)
    canvas.paint(muscle, MUSCLE_HU)
    for height in np.arange(-483, 330, 25.0):
        centre = np.array([0, spine_y(height), height])
        for side in (-1, 1):
            process = np.array([centre + [side * 10, 20, 0], centre + [side * 32, 28, 4]])
            _bone(canvas, process, 5, 300, 200, 2)
        spinous = np.array([centre + [0, 34, -2], centre + [0, 41, -14]])
        _bone(canvas, spinous, 4, 300, 200, 2)
    body, arch = canvas.tube(column, 17), canvas.tube(column + [0, 26, 0], 14)
    canvas.paint(arch, 320.0)
    canvas.paint(body, 330.0)
    z = canvas.z_mm[body.region[0], None, None]
    disc = np.abs((z + 408) % 25 - 12.5) < 3.5
    canvas.paint(body, np.where(disc, 90, 190).astype(np.float32), grow_mm=-2)
    canal = canvas.tube(column + [0, 26, 0], 9)
    canvas.paint(canal, 30.0)
    canvas.mark(canal, SPINAL_CORD, from_mm=_CORD_END_MM)


def _bone(canvas, points, radius, cortex_hu, marrow_hu, cortex_mm):
    bone = canvas.tube(points, radius)
    canvas.paint(bone, cortex_hu)
    canvas.paint(bone, marrow_hu, grow_mm=-cortex_mm)


def draw_metal(canvas: Canvas, t: BodyTraits) -> None:
    """Draws wires in the sternum, as after an operation: a few voxels far above the HU of bone."""
    if t.metal_hu is not None:
        for z in (20, -10, -40):
            y = _front_y(z) - 8
            canvas.paint(canvas.tube([(-5, y, z), (5, y, z)], 1.6), t.metal_hu)
