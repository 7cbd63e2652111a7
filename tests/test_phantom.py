"""Synthetic patients: the anatomy's laws, the scan's laws, and the data set that is written."""

import itertools

import numpy as np
import pytest
from programs import run
from scipy import ndimage

from segthor import files, phantom
from segthor.errors import InputError
from segthor.organs import SEGTHOR, Organ, Organs
from segthor.phantom.anatomy import BodyTraits
from segthor.phantom.canvas import Canvas, Pose, curve, merged
from segthor.phantom.dataset import paths
from segthor.phantom.scanner import Scanner
from tests import file_order

# Smallest and largest organ of the SegTHOR training set, cm3.
SEGTHOR_CM3 = {
    "esophagus": (30, 170),
    "heart": (438, 1829),
    "trachea": (22, 73),
    "aorta": (95, 465),
}
AXCODES = [
    "".join(code)
    for order in itertools.permutations(["LR", "PA", "SI"])
    for code in itertools.product(*order)
]


@pytest.fixture(scope="module", params=[12, pytest.param(40, marks=pytest.mark.thorough)])
def seeds(request):
    """Of patients who vary in all that is drawn; forty take 12 s to make."""
    return range(request.param)


@pytest.fixture(scope="module")
def small_patients(seeds):
    return [phantom.make(seed, "small") for seed in seeds]


@pytest.fixture(scope="module")
def few_seeds(seeds):
    """Of patients who are made for one test."""
    return seeds[: len(seeds) // 4]


def where(patient, name):
    """RAS mm [N, 3] of an organ's voxels."""
    index = np.argwhere(patient.labels == SEGTHOR[name].label)
    return index @ patient.affine[:3, :3].T + patient.affine[:3, 3]


def volume_cm3(patient, name):
    voxel_mm3 = abs(np.linalg.det(patient.affine[:3, :3]))
    return (patient.labels == SEGTHOR[name].label).sum() * voxel_mm3 / 1000


def lps(seed, size="tiny", **overrides):
    return phantom.make(seed, size, axcodes="LPS", oblique_deg=0.0, **overrides)


def test_a_seed_always_gives_the_same_voxels():
    first = phantom.tiny(3)
    phantom.tiny(4)
    again = phantom.tiny(3)
    np.testing.assert_array_equal(first.hu, again.hu)
    np.testing.assert_array_equal(first.labels, again.labels)
    np.testing.assert_array_equal(first.affine, again.affine)


def test_seeds_give_different_patients(small_patients):
    assert len({patient.hu.tobytes() for patient in small_patients}) == len(small_patients)
    spacings = {patient.scanner.spacing_mm for patient in small_patients}
    assert len(spacings) > len(small_patients) // 2


def test_patients_vary_in_what_real_ones_vary_in(small_patients):
    contrasts = [patient.traits.contrast_hu for patient in small_patients]
    assert 40 <= min(contrasts) < 60 < 160 < max(contrasts) <= 180
    assert len({patient.scanner.axcodes for patient in small_patients}) >= 4
    assert len({patient.scanner.padding_hu for patient in small_patients}) == 4
    assert {patient.traits.arms_down for patient in small_patients} == {True, False}
    assert any(patient.scanner.oblique_deg for patient in small_patients)
    assert any(patient.hu.max() > 2000 for patient in small_patients), "metal"
    assert any(patient.traits.couch_gap < 0 for patient in small_patients), "lies on the couch"


@pytest.mark.parametrize("size, pixels, slices", [("small", 128, (35, 48)), ("tiny", 48, (16, 16))])
def test_sizes_are_as_promised(size, pixels, slices):
    for seed in range(5):
        made = lps(seed, size)
        assert made.hu.shape[:2] == (pixels, pixels)
        assert slices[0] <= made.hu.shape[2] <= slices[1]


def test_full_size_scans_have_the_data_sets_grids_and_show_the_whole_thorax():
    shapes, pixels_mm = [], []
    for seed in range(300):
        traits = BodyTraits.draw(np.random.default_rng(seed))
        scan = Scanner.draw(np.random.default_rng(seed), "full", traits)
        shapes.append(scan.shape)
        pixels_mm.append(scan.spacing_mm[0])
        assert scan.shape[:2] == (512, 512) and 150 <= scan.shape[2] <= 284
        assert 0.9 <= scan.spacing_mm[0] <= 1.37 and 2.0 <= scan.spacing_mm[2] <= 3.7
        height_mm = scan.shape[2] * scan.spacing_mm[2] / traits.scale
        assert -480 < scan.top_mm - height_mm < -165, "from the stomach up, within what is drawn"
    assert len(set(shapes)) > 20 and np.median(pixels_mm) == pytest.approx(0.98, abs=0.06)


def test_image_and_labels_share_shape_and_have_their_types(small_patients):
    for patient in small_patients:
        assert patient.hu.shape == patient.labels.shape
        assert (patient.hu.dtype, patient.labels.dtype) == (np.int16, np.uint8)
        assert set(np.unique(patient.labels)) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("name", SEGTHOR.names)
def test_volumes_are_those_of_real_patients(small_patients, name):
    low, high = SEGTHOR_CM3[name]
    for seed, patient in enumerate(small_patients):
        assert low <= volume_cm3(patient, name) <= high, f"seed {seed}"


def test_hu_of_the_organs_are_those_of_tissue_blood_and_air(small_patients):
    for seed, patient in enumerate(small_patients):
        mean = {o.name: patient.hu[patient.labels == o.label].mean() for o in SEGTHOR}
        blood = 42 + patient.traits.contrast_hu
        assert -950 <= mean["trachea"] <= -700, f"seed {seed}"
        assert 0.45 * patient.traits.contrast_hu + 20 <= mean["heart"] <= blood + 10, f"seed {seed}"
        assert blood - 40 <= mean["aorta"] <= blood + 10, f"seed {seed}"
        assert -20 <= mean["esophagus"] <= 55, f"seed {seed}"


def test_every_organ_passes_its_own_plausible_ranges(small_patients):
    for seed, patient in enumerate(small_patients):
        along_z = np.abs(patient.affine[2, :3]).argmax()
        step_mm = patient.scanner.spacing_mm[2]
        for organ in SEGTHOR:
            mask = patient.labels == organ.label
            parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
            assert count <= organ.max_components, f"seed {seed}: {organ.name}"
            others = tuple(axis for axis in range(3) if axis != along_z)
            extent = mask.any(axis=others).sum() * step_mm
            assert organ.extent_z_mm[0] <= extent <= organ.extent_z_mm[1], f"{seed} {organ.name}"


def test_the_esophagus_stands_out_from_what_surrounds_it(few_seeds):
    for seed in few_seeds:
        made = lps(seed, "small", esophagus_air_at=None, noise_hu=0.0)
        organ = made.labels == SEGTHOR["esophagus"].label
        cross = np.zeros((3, 3, 1), bool)
        cross[1], cross[:, 1] = True, True
        near = ndimage.binary_dilation(organ, cross, 1)
        ring = ndimage.binary_dilation(near, cross, 1) & ~near & (made.labels == 0)
        assert made.hu[organ].mean() - np.median(made.hu[ring]) > 30, f"seed {seed}"


def test_contrast_brightens_blood_and_moves_nothing():
    dark, bright = (lps(2, "small", contrast_hu=c, noise_hu=0.0) for c in (40.0, 180.0))
    np.testing.assert_array_equal(dark.labels, bright.labels)
    gain = bright.hu.astype(int) - dark.hu
    inside = ndimage.binary_erosion(bright.labels == SEGTHOR["aorta"].label)
    np.testing.assert_allclose(gain[inside], 140, atol=6)
    assert np.abs(gain[bright.labels == SEGTHOR["trachea"].label]).max() <= 45


def test_noise_has_the_asked_for_strength_and_no_bias():
    noisy, clean = (lps(1, "small", noise_hu=n, padding_hu=None) for n in (20.0, 0.0))
    body = clean.hu > -900  # air is clipped at -1024
    difference = (noisy.hu.astype(int) - clean.hu)[body]
    assert abs(difference.mean()) < 0.5
    assert abs(difference.std() - 20) < 0.5


def test_the_heart_lies_to_the_left_in_front_of_the_esophagus(few_seeds):
    for seed in few_seeds:
        made = phantom.make(seed, "small", oblique_deg=0.0)
        heart, esophagus = where(made, "heart"), where(made, "esophagus")
        body = np.argwhere(made.hu > -200) @ made.affine[:3, :3].T + made.affine[:3, 3]
        level = np.abs(body[:, 2] - heart[:, 2].mean()) < 30
        assert heart[:, 0].mean() < body[level, 0].mean() - 5, "RAS: left is negative"
        level = np.abs(esophagus[:, 2] - heart[:, 2].mean()) < 30
        assert esophagus[level, 1].max() < heart[:, 1].mean(), "RAS: the back is negative"


def test_the_esophagus_runs_behind_the_trachea_in_every_slice(few_seeds):
    for seed in few_seeds:
        made = lps(seed, "small")
        rows = np.arange(made.labels.shape[1])[None, :]
        shared = 0
        for section in made.labels.transpose(2, 0, 1):
            trachea, esophagus = section == 3, section == 1
            if trachea.any() and esophagus.any():
                shared += 1
                front, back = ((mask * rows).sum() / mask.sum() for mask in (trachea, esophagus))
                assert back > front + 2
        assert shared >= 10


def test_the_descending_aorta_runs_left_of_the_spine(few_seeds):
    for seed in few_seeds:
        # Upright and unenhanced: ribs are even on both sides, and only bone is above 180 HU.
        plain = {"contrast_hu": 40.0, "noise_hu": 0.0, "roll_rad": 0.0, "arms_down": False}
        made = lps(seed, "small", **plain)
        heart = np.flatnonzero((made.labels == 2).any(axis=(0, 1)))
        for k in heart[len(heart) // 4 : len(heart) // 2]:
            x, y = np.nonzero(made.labels[:, :, k] == 4)
            bone_x, bone_y = np.nonzero(made.hu[:, :, k] > 180)
            middle = np.median(bone_x[bone_y > y.mean()])
            assert x.mean() > middle + 3, "LPS: x grows to the left"


def test_heart_only_low_trachea_only_high(small_patients):
    for patient in small_patients:
        heart, trachea = where(patient, "heart")[:, 2], where(patient, "trachea")[:, 2]
        assert trachea.min() > np.median(heart)
        assert trachea.max() > heart.max() + 40


def test_no_bone_or_muscle_sticks_out_of_the_skin(few_seeds):
    for seed in few_seeds:
        made = lps(seed, "small", couch_gap=40.0, noise_hu=0.0, arms_down=False, bias_hu=0.0)
        body, _ = tissue_parts(made)
        for k in range(made.hu.shape[2] // 2):  # there are no shoulders
            whole = ndimage.binary_fill_holes(body[:, :, k])
            skin = whole & ndimage.binary_dilation(~whole, np.ones((3, 3)))
            assert made.hu[:, :, k][skin].max() < 25, f"seed {seed}, slice {k}"


def tissue_parts(made):
    parts, _ = ndimage.label(made.hu > -400)
    sizes = np.bincount(parts.ravel())[1:]
    return parts == 1 + sizes.argmax(), parts > 0


@pytest.mark.parametrize("gap_mm, apart", [(12.0, True), (-3.0, False)])
def test_the_couch_lies_behind_the_body_and_bears_no_label(gap_mm, apart):
    plain = {"couch_curve": 0.0, "noise_hu": 0.0, "arms_down": False, "padding_hu": None}
    made = lps(5, "small", couch_gap=gap_mm, spacing_mm=(4.0, 4.0, 7.0), **plain)
    body, tissue = tissue_parts(made)
    middle = made.hu.shape[2] // 3
    rows = np.flatnonzero(tissue[:, :, middle].any(axis=0))
    body_rows = np.flatnonzero(body[:, :, middle].any(axis=0))
    assert rows.max() > body_rows.max(), "the lower face is never part of the body"
    width_mm = np.ptp(np.flatnonzero(body[:, :, middle].any(axis=1))) * made.scanner.spacing_mm[0]
    assert (width_mm < 400) == apart, "the couch is 450 mm wide"
    assert body[made.labels > 0][made.hu[made.labels > 0] > -400].all()


@pytest.mark.parametrize("codes", AXCODES)
def test_axis_codes_permute_the_array_and_leave_the_patient_in_place(codes):
    plain, turned = lps(6), phantom.tiny(6, axcodes=codes, oblique_deg=0.0)
    directions = turned.affine[:3, :3]
    nearest = np.abs(directions).argmax(axis=0)
    found = [
        ("LR", "PA", "IS")[axis][int(directions[axis, i] > 0)] for i, axis in enumerate(nearest)
    ]
    assert "".join(found) == codes
    rng = np.random.default_rng(0)
    index = rng.integers(0, plain.hu.shape, (500, 3))
    world = index @ plain.affine[:3, :3].T + plain.affine[:3, 3]
    there = (world - turned.affine[:3, 3]) @ np.linalg.inv(directions).T
    there = np.rint(there).astype(int)
    np.testing.assert_array_equal(plain.hu[tuple(index.T)], turned.hu[tuple(there.T)])
    np.testing.assert_array_equal(plain.labels[tuple(index.T)], turned.labels[tuple(there.T)])


def test_all_48_axis_codes_were_tried():
    assert len(set(AXCODES)) == 48


def test_an_oblique_grid_is_tilted_by_about_the_asked_for_angle_and_stays_orthogonal():
    made = phantom.tiny(1, axcodes="LPS", oblique_deg=3.0)
    columns = made.affine[:3, :3] / np.linalg.norm(made.affine[:3, :3], axis=0)
    np.testing.assert_allclose(columns.T @ columns, np.eye(3), atol=1e-12)
    tilt = np.rad2deg(np.arccos(columns[2, 2]))
    assert 3.0 < tilt < 3.0 * 1.5
    np.testing.assert_allclose(np.linalg.norm(made.affine[:3, :3], axis=0), made.scanner.spacing_mm)


def test_shape_and_spacing_can_be_asked_for():
    made = phantom.make(1, shape=(33, 40, 21), spacing_mm=(11.0, 9.0, 13.0), axcodes="SLP")
    assert made.hu.shape == (21, 33, 40)
    np.testing.assert_allclose(np.linalg.norm(made.affine[:3, :3], axis=0), (13.0, 11.0, 9.0))


def test_a_finer_scan_of_a_patient_shows_the_same_heart():
    coarse = lps(3, "small")
    fine = lps(
        3, "small", shape=(300, 300, 100), spacing_mm=(1.4, 1.4, 3.0), top_mm=coarse.scanner.top_mm
    )
    for name, tolerance in (("heart", 0.02), ("esophagus", 0.05)):
        assert volume_cm3(fine, name) == pytest.approx(volume_cm3(coarse, name), rel=tolerance)


def test_organs_not_contoured_have_no_label_and_the_same_image():
    some = SEGTHOR.select(("heart", "esophagus"))
    whole, part = phantom.tiny(2), phantom.tiny(2, organs=some)
    np.testing.assert_array_equal(whole.hu, part.hu)
    kept = np.isin(whole.labels, [organ.label for organ in some])
    np.testing.assert_array_equal(part.labels, whole.labels * kept)


def test_padding_fills_the_corners_outside_the_scanners_circle():
    made = lps(0, padding_hu=-3024)
    assert (made.hu[0, 0] == -3024).all() and (made.hu[-1, -1] == -3024).all()
    assert (made.hu[24, 24] > -1025).all() and (made.labels[made.hu == -3024] == 0).all()
    assert lps(0, padding_hu=None).hu.min() >= -1024


def test_metal_is_a_few_voxels_far_above_bone():
    made = lps(0, "small", metal_hu=25000.0)
    assert 1 <= (made.hu > 3000).sum() <= 60


@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"size": "huge"}, "size: expected"),
        ({"axcodes": "LPP"}, "axcodes: expected"),
        ({"axcodes": "LP"}, "axcodes: expected"),
        ({"organs": Organs((Organ("liver", 1, (9, 9, 9)),))}, "organs: phantoms have no liver"),
        ({"contrast": 3}, "unexpected keyword argument 'contrast'"),
    ],
)
def test_wrong_arguments_are_named(arguments, error):
    with pytest.raises((ValueError, TypeError, InputError), match=error):
        phantom.make(0, **({"size": "tiny"} | arguments))


# The drawing, against distances computed voxel by voxel.


@pytest.fixture
def canvas():
    pose = Pose((21.0, 18.0, 30.0), 1.1, np.deg2rad(12), (0.1, -0.07))
    return Canvas((14, 22, 26), (1.9, 2.1, 4.0), pose)


def brute_positions(canvas):
    """Patient mm of every voxel [Z, Y, X, 3], by inverting the pose one voxel at a time."""
    pose, positions = canvas.pose, np.empty((*canvas.hu.shape, 3))
    turn = np.array(
        [
            [np.cos(pose.roll_rad), -np.sin(pose.roll_rad)],
            [np.sin(pose.roll_rad), np.cos(pose.roll_rad)],
        ]
    )
    for k, j, i in np.ndindex(canvas.hu.shape):
        x, y, z = np.array([i, j, k]) * canvas.spacing_mm - pose.origin_mm
        flat = np.array([x, y]) - np.array(pose.lean) * z
        positions[k, j, i] = *(np.linalg.inv(turn) @ flat / pose.scale), z / pose.scale
    return positions


def test_a_tube_covers_the_voxels_near_its_axis(canvas):
    points = np.array([(-9.0, -6, -20), (2, 3, -4), (8, -4, 9), (6, 9, 14)])
    radii = np.array([3.0, 5, 4, 6])
    steps = np.linspace(0, 1, 400)[:, None]
    dense = np.concatenate([a + steps * (b - a) for a, b in itertools.pairwise(points)])
    thick = np.concatenate([a + steps[:, 0] * (b - a) for a, b in itertools.pairwise(radii)])
    positions = brute_positions(canvas)
    distance = np.linalg.norm(positions[..., None, :] - dense, axis=-1) - thick
    canvas.mark(canvas.tube(points, radii), 1)
    expected, decided = distance.min(-1) < 0, np.abs(distance.min(-1)) > 0.3
    assert expected.sum() > 60
    np.testing.assert_array_equal(canvas.labels[decided] == 1, expected[decided])


def test_an_ellipsoid_covers_the_voxels_inside_it(canvas):
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    centre, semi = np.array([-2.0, 1, -6]), np.array([14.0, 8, 6])
    inside = ((((brute_positions(canvas) - centre) @ turn.T) / semi) ** 2).sum(-1)
    canvas.mark(canvas.ellipsoid(centre, semi, turn), 2)
    decided = np.abs(inside - 1) > 1e-3
    assert (inside < 1).sum() > 60
    np.testing.assert_array_equal(canvas.labels[decided] == 2, inside[decided] < 1)


def test_a_shape_out_of_view_changes_nothing(canvas):
    before = canvas.hu.copy()
    shape = canvas.tube([(500, 0, 0), (600, 0, 0)], 5)
    canvas.paint(shape, 100.0)
    canvas.mark(shape, 1)
    np.testing.assert_array_equal(canvas.hu, before)
    assert not canvas.labels.any()


def test_a_marked_shape_ends_at_the_heights_given(canvas):
    canvas.mark(canvas.tube([(0, 0, -40), (0, 0, 40)], 6), 3, from_mm=-9, to_mm=11)
    z = canvas.z_mm[canvas.labels.any(axis=(1, 2))]
    assert -9 <= z.min() < -9 + 4 and 11 - 4 < z.max() <= 11


def test_a_merged_shape_is_the_union(canvas):
    one, two = canvas.tube([(-8, 0, -8), (0, 0, 0)], 5), canvas.tube([(0, 4, 4), (6, 8, 9)], 4)
    canvas.mark(one, 1)
    canvas.mark(two, 1)
    union = canvas.labels.copy()
    canvas.labels[:] = 0
    canvas.mark(merged(canvas, [one, two]), 1)
    np.testing.assert_array_equal(canvas.labels, union)


def test_a_curve_passes_through_its_knots():
    knots = np.array([(0, 0, 0, 4), (10, 4, -3, 6), (22, 1, 5, 5)], float)
    path = curve(knots, step_mm=0.05)
    for knot in knots:
        assert np.linalg.norm(path - knot, axis=1).min() < 0.05


# The data set.


def test_the_layout_is_segthors_and_the_files_hold_what_make_gives(tmp_path):
    out = str(tmp_path / "patients")
    phantom.write_dataset(out, 2, 1, "small", 5, report=lambda line: None)
    found = {str(p.relative_to(out)) for p in (tmp_path / "patients").rglob("*") if p.is_file()}
    assert found == {
        "phantoms.json",
        "train/Patient_01/Patient_01.nii.gz",
        "train/Patient_01/GT.nii.gz",
        "train/Patient_02/Patient_02.nii.gz",
        "train/Patient_02/GT.nii.gz",
        "test/Patient_41.nii.gz",
        "test_labels/Patient_41.nii.gz",
    }
    scan = file_order.read(files.join(out, "test", "Patient_41.nii.gz"))
    labels = file_order.read(files.join(out, "test_labels", "Patient_41.nii.gz"))
    made = phantom.make(phantom.patient_seed(5, 41), "small")
    np.testing.assert_array_equal(scan.array, made.hu)
    np.testing.assert_array_equal(labels.array, made.labels)
    np.testing.assert_allclose(scan.grid.affine, made.affine, atol=1e-4)
    np.testing.assert_array_equal(scan.grid.affine, labels.grid.affine)
    assert (scan.array.dtype, labels.array.dtype) == (np.int16, np.uint8)


def test_test_patients_follow_the_training_patients_where_there_are_more_than_40():
    assert [number for number, _, _ in paths("d", 2, 2)] == [1, 2, 41, 42]
    assert [number for number, _, _ in paths("d", 43, 2)][-3:] == [43, 44, 45]
    assert len({scan for _, scan, _ in paths("d", 120, 30)}) == 150


def call(*flags):
    return run(["-m", "segthor.phantom", *flags])


def test_the_program_resumes_and_refuses_other_settings(tmp_path):
    out = tmp_path / "patients"
    flags = [f"--output={out}", "--patients=2", "--test_patients=0", "--size=small", "--seed=1"]
    first = call(*flags)
    assert first.returncode == 0, first.stderr
    assert f"python -m beam_jobs.build --input={out}" in first.stdout
    assert first.stdout.count("Patient_0") == 2
    lost = out / "train" / "Patient_02" / "GT.nii.gz"
    kept = out / "train" / "Patient_01" / "GT.nii.gz"
    content, stamp = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    second = call(*flags)
    assert second.returncode == 0 and "Patient_01.nii.gz: is there already" in second.stdout
    assert (lost.read_bytes(), kept.stat().st_mtime_ns) == (content, stamp)
    third = call(*flags, "--seed=2")
    assert third.returncode == 2
    assert third.stderr.startswith("error: ") and third.stderr.count("\n") == 1
    assert "seed 1" in third.stderr and "seed 2" in third.stderr


def test_a_folder_with_something_else_in_it_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="notes.txt"):
        phantom.write_dataset(str(tmp_path), 1, 0, "small", 0)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
