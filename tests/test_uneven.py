"""Planes at uneven places: steps and gaps, thickness, scores, files and their way back."""

import math

import dicom_phantoms as phantoms
import numpy as np
import pydicom
import pytest
import structure_cases as cases
from hypothesis import given, settings
from hypothesis import strategies as st
from structure_cases import by_plastimatch, needs_dciodvfy, needs_plastimatch, validated
from test_metrics import box, small_masks, surface_points

from segthor import audit, body, figures, metrics, nifti, scans
from segthor.dicom import headers, segmentation, stacks, steps, structure_writer, structures
from segthor.dicom.series import read_stack
from segthor.errors import InputError
from segthor.organs import SEGTHOR
from segthor.planes import Planes, voxel_cm3
from segthor.volume import Grid, LabelMap, Volume
from serving.prediction import candidates, postprocess
from serving.prediction.postprocess import Rule
from tests import file_order

THIRDS = [k for k in range(12) if k % 3 == 2]  # what is left has steps of 3, 6, 3, 6 mm


# ---------------------------------------------------------------- which steps are gaps

STEPS = {  # steps in mm: how many slices are missing after which one, whether the rest is uneven
    "even": ([3] * 10, {}, False),
    "one slice": ([3] * 5 + [6] + [3] * 5, {5: 1}, False),
    "two places": ([1, 1, 1, 1, 3, 1, 2, 1], {4: 2, 6: 1}, False),
    "two slices with one between": ([3] * 5 + [6, 6] + [3] * 5, {5: 1, 6: 1}, False),
    "the last but one": ([1] * 20 + [2], {20: 1}, False),
    "the second": ([2] + [1] * 20, {0: 1}, False),
    "many": ([3] * 8 + [31] + [3] * 8, {8: 9}, False),
    "every third slice lacks": ([3, 6] * 6, {}, True),
    "every third slice of a part lacks": ([3] * 10 + [3, 6] * 6, {}, True),
    "two runs": ([3] * 6 + [6] * 6, {}, True),
    "a short run": ([3] * 8 + [6] * 3, {}, True),
    "three runs": ([6] * 4 + [3] * 9 + [6] * 4, {}, True),
    "a gap in the longer run": ([3] * 6 + [6, 6, 12, 6, 6, 6], {8: 1}, True),
    "growing": (list(np.arange(1, 3, 0.1)), {}, True),
    "one slice moved": ([5.7] * 4 + [7.7, 3.7] + [5.7] * 5, {}, True),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("turn", [1, -1], ids=["upwards", "downwards"])
def test_gaps_and_uneven_steps_are_told_apart(name, turn):
    lengths, missing, uneven = STEPS[name]
    if turn < 0:
        missing = {len(lengths) - 1 - k: count for k, count in missing.items()}
    z = np.r_[0, np.cumsum(lengths[::turn])]
    line = steps.fit_line(np.stack([0 * z, 0 * z + 4, z - 50], 1), np.array([0, 0, 1.0]), "x")
    assert dict(line.gaps) == missing and line.is_uneven == uneven
    if name == "even":
        assert line.offsets_mm is None
    else:
        np.testing.assert_allclose(line.offsets_mm, z)


def test_lost_slices_in_random_places_are_gaps():
    rng = np.random.default_rng(0)
    for lost in (2, 5, 10, 20):
        kept = np.sort(np.r_[0, 99, rng.choice(np.arange(1, 99), 98 - lost, replace=False)])
        z = 3.0 * kept
        line = steps.fit_line(np.stack([0 * z, 0 * z, z], 1), np.array([0, 0, 1.0]), "x")
        assert line.gaps


@pytest.mark.parametrize("change", ["bent", "close", "coronal"])
def test_slices_that_are_no_volume_are_refused(tmp_path, change):
    folder = tmp_path / "ct"

    def move(dataset, k):
        place = [float(mm) for mm in dataset.ImagePositionPatient]
        if change == "bent":
            place[0] += 0.1 * k**2
        if change == "close" and k == 6:
            place[2] -= 2.9
        if change == "coronal":
            place = [place[0], place[2] + 0.2 * k**2, place[1]]
            dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        dataset.ImagePositionPatient = [f"{mm:.8g}" for mm in place]

    with pytest.raises(AssertionError, match="series_bent|straight line|not axial"):
        cases.ct(folder, change=move)


# ---------------------------------------------------------------- planes


def test_a_plane_is_half_the_distance_to_each_neighbour_thick():
    planes = Planes.from_positions([5, 8, 11, 17, 23, 24])
    assert planes.offsets_mm == (0, 3, 6, 12, 18, 19)
    assert planes.thickness_mm.tolist() == [3, 3, 4.5, 6, 3.5, 1]
    even = Planes.from_positions(np.arange(7) * 2.5)
    assert even.thickness_mm.tolist() == [2.5] * 7


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([1, 1.25, 2, 2.5, 3, 4.5, 5, 6, 7.3]), min_size=2, max_size=30))
def test_the_even_grid_gives_every_plane_back(lengths):
    planes = Planes.from_positions(np.r_[0, np.cumsum(lengths)])
    values = np.random.default_rng(0).permutation(len(planes.offsets_mm))
    even = values[planes.to_even]
    np.testing.assert_array_equal(even[planes.from_even], values)
    assert planes.even_step_mm <= min(lengths) * 1.001
    places = np.linspace(0, planes.offsets_mm[-1], planes.even_count)
    apart = abs(places[:, None] - np.array(planes.offsets_mm))
    np.testing.assert_allclose(apart[np.arange(len(places)), planes.to_even], apart.min(1))


@pytest.mark.parametrize("step_mm, lacking", [(3, 1), (3, 2), (2.5, 1), (4, 1), (1.25, 3)])
def test_slices_that_lack_do_not_move_the_box_about_the_body(step_mm, lacking):
    """The places that are looked at are those of all slices, as long as these are there."""
    z = np.arange(60)
    every = max(1, round(9 / step_mm))
    kept = z[(z % (2 * every) != lacking) & ((z < 20) | (z % every != lacking))]
    planes = Planes.from_positions(step_mm * kept)
    np.testing.assert_array_equal(kept[planes.choose_every(9)], z[::every])
    rng = np.random.default_rng(0)
    hu = np.full((60, 64, 64), -1000, np.int16)
    for k in z:
        row, column = rng.integers(8, 20, 2)
        hu[k, row : row + 36, column : column + 36] = 0
    expected = body.body_center_px(hu, (step_mm, 2.0, 2.0))
    mean_mm = planes.offsets_mm[-1] / (len(kept) - 1)
    assert body.body_center_px(hu[kept], (mean_mm, 2.0, 2.0), planes) == expected


def test_a_part_of_a_grid_has_the_planes_of_its_slices():
    grid = uneven_grid((6, 5, 7), [3, 3, 6, 6, 3, 3])
    part = grid.part((2, 5, 6), (1, 0, 0), (4, 1, 1))
    assert part.planes.offsets_mm == (0, 18)
    np.testing.assert_allclose(part.affine[:3, 3], grid.affine[:3, 3] + [0, 0, 3])
    assert part.spacing_mm[0] == pytest.approx(18)
    pairs = grid.part((3, 5, 6), (0.5, 0, 0), (2, 1, 1))  # means of two planes
    assert pairs.planes.offsets_mm == (0, 7.5, 18)


def uneven_grid(shape, lengths, spacing_mm=(1.0, 1.0)):
    """Axes L, P, S."""
    planes = Planes.from_positions(np.r_[0, np.cumsum(lengths)])
    step = planes.offsets_mm[-1] / len(lengths)
    return Grid(shape, np.diag([-spacing_mm[0], -spacing_mm[1], step, 1.0]), planes=planes)


# ---------------------------------------------------------------- scores and figures


def brute_force(predicted, truth, places, spacing_mm):
    """Every score from its definition; each voxel [Z, Y, X] counts as its plane is thick."""
    ends = [places[0] - (places[1] - places[0]), *places, 2 * places[-1] - places[-2]]
    thickness = [(ends[k + 2] - ends[k]) / 2 for k in range(len(places))]

    def listed(voxels):
        points = [(places[z], y * spacing_mm[0], x * spacing_mm[1]) for z, y, x in voxels]
        return np.array(points), np.array([thickness[z] for z, _, _ in voxels])

    def directed(points, targets):
        return np.array([math.sqrt(((targets - point) ** 2).sum(1).min()) for point in points])

    def percentile(values, weights):
        return min(v for v in values if weights[values <= v].sum() >= 0.95 * weights.sum() - 1e-9)

    both = [listed([tuple(v) for v in np.argwhere(mask)]) for mask in (predicted, truth)]
    shared = listed([tuple(v) for v in np.argwhere(predicted & truth)])[1].sum()
    (inside, of_one), (inside_other, of_other) = both
    (surface, on_one), (surface_other, on_other) = map(
        listed, map(surface_points, (predicted, truth))
    )
    there, back = directed(surface, surface_other), directed(surface_other, surface)
    every, weights = np.r_[there, back], np.r_[on_one, on_other]
    area = spacing_mm[0] * spacing_mm[1] / 1000
    return (
        2 * shared / (of_one.sum() + of_other.sum()),
        every.max(),
        max(percentile(there, on_one), percentile(back, on_other)),
        max(
            (directed(inside, inside_other) * of_one).sum() / of_one.sum(),
            (directed(inside_other, inside) * of_other).sum() / of_other.sum(),
        ),
        (every * weights).sum() / weights.sum(),
        *(weights[every <= limit + 1e-4].sum() / weights.sum() for limit in (1, 2, 3)),
        of_one.sum() * area,
        of_other.sum() * area,
        (of_one.sum() - of_other.sum()) * area,
    )


@settings(max_examples=60, deadline=None)
@given(
    predicted=small_masks,
    truth=small_masks,
    lengths=st.lists(st.sampled_from([0.8, 1.0, 2.0, 3.0, 6.0]), min_size=4, max_size=4),
    memory=st.sampled_from([1, -1]),
)
def test_scores_equal_brute_force_over_planes_of_their_thickness(predicted, truth, lengths, memory):
    planes = Planes.from_positions(np.r_[0, np.cumsum(lengths)])
    spacing_mm = (sum(lengths) / 4, 1.1, 0.9)
    stored = [
        np.asfortranarray(mask[::memory].astype(np.uint8))[::memory] for mask in (predicted, truth)
    ]
    found = metrics.score(*stored, spacing_mm, [1], planes=planes)[1]
    expected = brute_force(predicted, truth, planes.offsets_mm, spacing_mm[1:])
    assert tuple(vars(found).values()) == pytest.approx(expected, rel=0, abs=1e-9)


def test_even_steps_score_as_without_planes():
    pair = [box((9, 8, 7), (1, 5), (2, 6), (1, 5)), box((9, 8, 7), (2, 7), (2, 7), (1, 4))]
    pair = [mask.astype(np.uint8) for mask in pair]
    planes = Planes.from_positions(np.arange(9) * 2.5)
    expected = metrics.score(*pair, (2.5, 1, 1), [1])[1].as_dict()
    found = metrics.score(*pair, (2.5, 1, 1), [1], planes=planes)[1].as_dict()
    for name in set(expected) - {"hausdorff95_mm"}:  # interpolated between voxels at even steps
        assert found[name] == pytest.approx(expected[name])


def test_figures_are_those_of_true_thickness():
    lengths = [3, 3, 6, 6, 3, 3]
    grid = uneven_grid((6, 5, 7), lengths, (2.0, 1.5))
    labels, hu = np.zeros((2, 7, 5, 6), np.int16)
    labels[2:5, 1:3, 2:4] = 2
    hu[2], hu[3], hu[4] = 10, 20, 50
    one = figures.measure_organs(
        Volume(hu, grid), LabelMap(labels.astype(np.uint8), grid, SEGTHOR)
    )["heart"]
    thickness = np.array([4.5, 6, 4.5])
    assert one.volume_cm3 == pytest.approx(4 * 3.0 * thickness.sum() / 1000, abs=0.005)
    assert one.extent_z_mm == 15 and one.slices == 3
    assert one.mean_hu == pytest.approx(np.average([10, 20, 50], weights=thickness), abs=0.05)
    assert one.center_lps_mm[2] == pytest.approx(12)


def test_post_processing_weighs_pieces_by_their_volume():
    planes = Planes.from_positions([0, 1, 2, 3, 9, 15, 21])
    labels = np.zeros((7, 4, 4), np.uint8)
    labels[0:3, 0, 0] = 2  # three thin voxels: 3 mm long
    labels[5:7, 2, 2] = 2  # two thick ones: 12 mm
    rules = {"heart": Rule(largest=True)}
    made = file_order.on_grid(labels, (3.5, 10.0, 10.0), planes=planes)
    changes = postprocess.apply(made, rules)
    assert labels[0, 0, 0] == 0 and labels[5, 2, 2] == 2
    assert changes["heart"].removed_cm3 == pytest.approx(0.3)
    cm3 = voxel_cm3((3.5, 10.0, 10.0), planes)
    mask = labels == 2
    assert postprocess.clean(mask, Rule(min_cm3=1.2), cm3).any()
    assert not postprocess.clean(mask, Rule(min_cm3=1.21), cm3).any()


def test_candidates_are_scored_by_true_thickness():
    grid = uneven_grid((6, 5, 7), [3, 3, 6, 6, 3, 3])
    made, true = np.zeros((2, 7, 5, 6), np.uint8)
    made[3:6, 1:3, 2:4] = true[2:5, 1:3, 2:4] = 2
    maps = [LabelMap(zyx, grid, SEGTHOR) for zyx in (made, true)]
    scores = candidates.score_candidates(*maps, ["heart"])["heart"]
    expected = metrics.score(made, true, grid.spacing_mm, [2], planes=grid.planes)[2]
    assert vars(scores[0]) == pytest.approx(vars(expected))


# ---------------------------------------------------------------- DICOM and NIfTI

POSES = [("HFS", 0.0), ("FFS", 0.0), ("FFP", 0.0), ("HFDL", 0.0), ("HFS", 12.0)]


def uneven_stack(folder, pose="HFS", tilt=0.0, missing=THIRDS, **options):
    return cases.ct(folder / "ct", pose=pose, tilt_degrees=tilt, missing=missing, **options)


@pytest.mark.parametrize("pose, tilt", POSES)
def test_planes_lie_where_the_files_say(tmp_path, pose, tilt):
    stack = uneven_stack(tmp_path, pose, tilt)
    scan = read_stack(stack)
    assert [one.code for one in scan.findings][0] == "series_uneven"
    assert scan.findings[0].severity == "warn" and "3 to 6 mm" in scan.findings[0].message
    files = [pydicom.dcmread(one.path) for one in stack.instances]
    stored = np.array([f.ImagePositionPatient for f in files], float)
    places = np.linalg.norm(stored - stored[0], axis=1)
    if scan.grid.orientation.flipped[2]:
        places = places[-1] - places[::-1]
    np.testing.assert_allclose(scan.grid.planes.offsets_mm, places, atol=1e-3)
    assert scan.spacing_mm[0] == pytest.approx(places[-1] / (len(places) - 1), rel=1e-5)
    first = scan.grid.part(scan.grid.shape_zyx).lps_affine()[:3, 3] * [-1, -1, 1]
    np.testing.assert_allclose(first, scan.grid.lps_affine()[:3, 3] * [-1, -1, 1], atol=0.1)


@pytest.mark.parametrize("pose, tilt", POSES)
def test_structure_set_and_segments_come_back_on_the_true_planes(tmp_path, pose, tilt):
    stack = uneven_stack(tmp_path, pose, tilt)
    made = cases.labels(stack.shape)
    drawn = structure_writer.outlines(made.T, cases.USED)
    path = str(tmp_path / "rs.dcm")
    structure_writer.write_structures(path, stack, drawn, cases.ORIGIN)
    found = structures.read(path, stack, cases.USED)
    np.testing.assert_array_equal(stack.to_planes(found.zyx).T, made)
    heights = {round(float(one.position_mm[2]), 3) for one in stack.instances}
    if not tilt:
        for roi in pydicom.dcmread(path).ROIContourSequence:
            for contour in roi.ContourSequence:
                assert {round(float(mm), 3) for mm in contour.ContourData[2::3]} <= heights
    path = str(tmp_path / "seg.dcm")
    segmentation.write_segmentation(path, stack, made.T, cases.USED, cases.ORIGIN)
    dataset = pydicom.dcmread(path)
    for frame, item in zip(
        dataset.pixel_array, dataset.PerFrameFunctionalGroupsSequence, strict=True
    ):
        place = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
        apart = np.linalg.norm(stack.positions_mm - place, axis=1)
        assert apart.min() < 1e-4
        number = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        organ = list(cases.USED)[number - 1]
        np.testing.assert_array_equal(frame.T > 0, made[..., apart.argmin()] == organ.label)


@needs_dciodvfy
def test_a_validator_finds_no_error_in_objects_on_uneven_planes(tmp_path):
    stack = uneven_stack(tmp_path, change=cases.with_identity)
    made = cases.labels(stack.shape)
    drawn = structure_writer.outlines(made.T, cases.USED)
    structure_writer.write_structures(str(tmp_path / "rs.dcm"), stack, drawn, cases.ORIGIN)
    segmentation.write_segmentation(
        str(tmp_path / "seg.dcm"), stack, made.T, cases.USED, cases.ORIGIN
    )
    assert not validated(tmp_path / "rs.dcm") and not validated(tmp_path / "seg.dcm")


@pytest.mark.parametrize("pose, tilt", POSES)
def test_a_label_map_on_the_even_grid_comes_back_to_the_planes(tmp_path, pose, tilt):
    grid = uneven_stack(tmp_path, pose, tilt).grid
    labels = np.random.default_rng(0).integers(0, 5, grid.shape_zyx).astype(np.uint8)
    path, even = str(tmp_path / "labels.nii.gz"), grid.even()
    nifti.write(path, labels[grid.planes.to_even], even)
    found = scans.read_labels(path, ("ct", grid), organs=SEGTHOR)
    np.testing.assert_array_equal(found.zyx, labels)
    assert found.grid.planes == grid.planes
    ends = [np.array([0, 0, 0, 1.0]), np.array([*np.subtract(grid.shape, 1), 1.0])]
    other = [np.array([0, 0, 0, 1.0]), np.array([*np.subtract(even.shape, 1), 1.0])]
    for one, two in zip(ends, other, strict=True):
        np.testing.assert_allclose(grid.affine @ one, even.affine @ two, atol=1e-6)
    # Plane for plane, as programs write it that know the mean step alone.
    nifti.write(path, labels, Grid(grid.shape, grid.affine))
    np.testing.assert_array_equal(scans.read_labels(path, ("ct", grid), organs=SEGTHOR).zyx, labels)
    with pytest.raises(InputError, match="3 to 6 mm"):
        nifti.write(path, labels, grid)


def test_a_gap_is_named_with_its_place_its_files_and_the_organs_across_it(tmp_path):
    stack = uneven_stack(tmp_path, missing=[4, 5])
    scan = read_stack(stack)
    (gap,) = scan.findings
    names = [stack.instances[k].path.rsplit("/", 1)[1] for k in (3, 4)]
    z = [stack.positions_mm[k][2] for k in (3, 4)]
    assert (gap.code, gap.severity) == ("series_gap", "reject")
    for word in ("2 between", f"{z[0]:g}) mm in {names[0]}", f"{z[1]:g}) mm in {names[1]}"):
        assert word in gap.message
    labels = np.zeros(scan.zyx.shape, np.uint8)
    labels[2:6, 5:9, 5:9], labels[0:4, 12:15, 12:15] = 2, 1  # the heart crosses it alone
    (named,) = audit.name_organs_at_gaps(
        scan.findings, scan.grid, LabelMap(labels, scan.grid, SEGTHOR)
    )
    assert named.message == f"{gap.message}; on both sides: heart"


@pytest.mark.parametrize("missing, code", [([5], "series_gap"), (THIRDS, "series_uneven")])
def test_contours_on_slices_that_lack_are_left_out_and_counted(tmp_path, missing, code):
    whole = cases.ct(tmp_path / "whole")
    square = cases.square(4, 4, 9, 9)
    drawn = [cases.contour(whole, k, square) for k in range(1, 11)]
    path = cases.structure_set(tmp_path / "rs.dcm", whole, [("Heart", drawn)])
    stack = uneven_stack(tmp_path, missing=missing)
    found = structures.read(path, stack, SEGTHOR)
    lost = len([k for k in missing if 1 <= k < 11])
    left_out = {one.code: one.message for one in found.findings}
    assert f"heart: {lost} contours" in left_out["contour_without_slice"]
    assert stack.findings[0][0] == code
    assert np.count_nonzero(found.zyx) == 25 * (10 - lost)
    off = [cases.contour(whole, k + 0.5, square) for k in range(1, 10)]
    path = cases.structure_set(tmp_path / "off.dcm", whole, [("Heart", off)])
    with pytest.raises(InputError, match="was the CT resampled"):
        structures.read(path, stack, SEGTHOR)


@needs_plastimatch
@pytest.mark.parametrize("missing", [THIRDS, [5]], ids=["uneven", "gap"])
def test_another_program_finds_the_structures_in_place(tmp_path, missing):
    """plastimatch fills them on all slices of the series, also on those that we did not have."""
    cases.ct(tmp_path / "whole")
    stack = uneven_stack(tmp_path, missing=missing)
    made = cases.labels(stack.shape)
    drawn = structure_writer.outlines(made.T, cases.USED)
    structure_writer.write_structures(str(tmp_path / "rs.dcm"), stack, drawn, cases.ORIGIN)
    whole, masks = tmp_path / "whole", tmp_path / "masks"
    masks = by_plastimatch(tmp_path / "rs.dcm", whole, masks, "--xor-contours")
    kept = np.delete(np.arange(cases.SHAPE[2]), missing)
    for organ in cases.USED:
        found = masks[organ.tg263]
        assert np.count_nonzero(found[..., kept] != (made == organ.label)) <= 5
        assert not found[..., missing].any()


def test_two_interleaved_acquisitions_of_other_places_are_two_volumes(tmp_path):
    """Steps of 6 mm, the second 2 mm above the first: their union has steps of 2, 4, 2, 4 mm."""
    air = np.full((20, 20, 12), -1000, np.int16)
    affine = np.diag([-1.0, -1.0, 6.0, 1.0])
    moved = affine.copy()
    moved[2, 3] = 2
    paths = phantoms.write_series(tmp_path, air, affine, acquisition=1)
    paths += phantoms.write_series(tmp_path, air, moved, acquisition=2, copy="b")
    found = stacks.make_stacks([headers.read(path) for path in paths]).stacks
    assert [one.shape for one in found] == [(20, 20, 12)] * 2
    assert all(one.offsets_mm is None for one in found)


def test_acquisitions_of_other_steps_one_above_the_other_are_one_uneven_volume(tmp_path):
    air = np.full((20, 20, 8), -1000, np.int16)
    affine, above = np.diag([-1.0, -1.0, 3.0, 1.0]), np.diag([-1.0, -1.0, 6.0, 1.0])
    above[2, 3] = 24
    paths = phantoms.write_series(tmp_path, air, affine, acquisition=1)
    paths += phantoms.write_series(tmp_path, air, above, acquisition=2, copy="b")
    (found,) = stacks.make_stacks([headers.read(path) for path in paths]).stacks
    assert found.shape[2] == 16 and found.findings[0][0] == "series_uneven"
