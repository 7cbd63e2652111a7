"""Scores against hand-worked masks, brute force, three libraries, and the laws that they obey."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import SimpleITK
import skimage.measure
import skimage.metrics
import skimage.segmentation
import surface_distance
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from segthor import metrics
from segthor.boxes import nonzero_box
from segthor.errors import InputError
from tests import file_order

# Spacing as whole steps of a unit, so that libraries without spacing, or with float32 distances,
# can be asked in whole numbers and give the exact answer.
GRIDS = [(0.49, (2, 2, 5)), (0.25, (3, 5, 7)), (1.5, (1, 1, 1))]
EXACT = dict(rel=0, abs=1e-6)


def box(shape, *ranges):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*limits) for limits in ranges)] = True
    return mask


def ball(shape, center, radius):
    offsets = (np.arange(n) - c for n, c in zip(shape, center, strict=True))
    return sum(d**2 for d in np.meshgrid(*offsets, indexing="ij")) <= radius**2


def noise(seed, density, shape=(13, 11, 9)):
    return np.random.default_rng(seed).random(shape) < density


SHAPE = (15, 14, 12)
SOLID = box(SHAPE, (2, 11), (2, 11), (2, 11))
PAIRS = {
    "sparse noise": (noise(1, 0.05), noise(2, 0.05)),
    "even noise": (noise(3, 0.5), noise(4, 0.5)),
    "dense noise": (noise(5, 0.95), noise(6, 0.95)),
    "overlapping balls": (ball(SHAPE, (6, 6, 5), 4.5), ball(SHAPE, (8, 7, 6), 5)),
    "touching boxes": (box(SHAPE, (1, 5), (2, 9), (3, 8)), box(SHAPE, (5, 11), (2, 9), (3, 8))),
    "distant boxes": (box(SHAPE, (0, 2), (0, 3), (0, 1)), box(SHAPE, (13, 15), (9, 14), (10, 12))),
    "nested balls": (ball(SHAPE, (7, 7, 6), 2), ball(SHAPE, (7, 7, 6), 5.5)),
    "solid in its hollow": (SOLID & ~box(SHAPE, (4, 9), (4, 9), (4, 9)), SOLID),
    "at the array's edge": (
        box(SHAPE, (0, 6), (0, 14), (0, 12)),
        box(SHAPE, (0, 15), (0, 9), (4, 12)),
    ),
    "a stray voxel": (ball(SHAPE, (4, 4, 4), 3) | box(SHAPE, (14, 15), (13, 14), (11, 12)), SOLID),
    "one voxel each": (box(SHAPE, (3, 4), (5, 6), (7, 8)), box(SHAPE, (9, 10), (1, 2), (8, 9))),
    "one voxel inside": (box(SHAPE, (6, 7), (6, 7), (6, 7)), SOLID),
    "equal": (SOLID, SOLID),
}
pairs = pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
grids = pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: str(grid[1]))


@pytest.fixture(params=[0, math.inf], ids=["transform", "tree"])
def either_search(request, monkeypatch):
    """Runs the test with every distance from the distance transform, then from the k-d tree."""
    monkeypatch.setattr(metrics, "_PAIRS_PER_VOXEL", request.param)


def score(predicted, truth, spacing_mm):
    label_maps = (mask.astype(np.uint8) * 4 for mask in (predicted, truth))
    return metrics.score(*label_maps, spacing_mm, [4])[4]


def spacing_of(grid):
    unit_mm, steps = grid
    return tuple(unit_mm * step for step in steps)


# ---------------------------------------------------------------- by hand


def test_two_lone_voxels_are_their_distance_apart_by_every_measure():
    predicted, truth = (
        box((3, 3, 5), (1, 2), (1, 2), (0, 1)),
        box((3, 3, 5), (1, 2), (1, 2), (3, 4)),
    )
    assert score(predicted, truth, (0.5, 0.5, 2.5)) == metrics.OrganScore(
        dice=0,
        hausdorff_mm=7.5,
        hausdorff95_mm=7.5,
        average_hausdorff_mm=7.5,
        mean_surface_distance_mm=7.5,
        surface_dice_1mm=0,
        surface_dice_2mm=0,
        surface_dice_3mm=0,
        predicted_cm3=0.000625,
        truth_cm3=0.000625,
        difference_cm3=0,
    )


def test_rod_moved_by_one_voxel():
    """Ten voxels of 2 mm in a row, one step on: nine in common, one at 2 mm on either side."""
    predicted, truth = (
        box((12, 3, 3), (1, 11), (1, 2), (1, 2)),
        box((12, 3, 3), (0, 10), (1, 2), (1, 2)),
    )
    result = score(predicted, truth, (2, 1, 1))
    assert dataclasses.astuple(result) == pytest.approx(
        # 95th percentile of nine 0 and one 2: 0.55 of the way from the ninth to the tenth.
        (0.9, 2, 1.1, 0.2, 0.2, 0.9, 1, 1, 0.02, 0.02, 0)
    )


def test_average_hausdorff_is_over_all_voxels_and_the_other_distances_are_over_surfaces():
    """A cube of 5 without its middle: the cavity's six walls are 1 mm below the cube's surface."""
    truth = box((7, 7, 7), (1, 6), (1, 6), (1, 6))
    predicted = truth & ~box((7, 7, 7), (3, 4), (3, 4), (3, 4))
    result = score(predicted, truth, (1, 1, 1))
    assert result.average_hausdorff_mm == pytest.approx(1 / 125)
    assert result.mean_surface_distance_mm == pytest.approx(6 / (98 + 98 + 6))
    assert result.hausdorff_mm == 1
    assert result.hausdorff95_mm == pytest.approx(np.percentile([0] * 98 + [1] * 6, 95))


def test_volume_difference_is_predicted_minus_truth_in_cm3():
    result = score(
        box((20, 20, 20), (0, 20), (0, 10), (0, 5)), np.ones((20, 20, 20), bool), (1, 2, 0.5)
    )
    assert (result.predicted_cm3, result.truth_cm3, result.difference_cm3) == (1, 8, -7)


# ---------------------------------------------------------------- brute force


def surface_points(mask):
    """Voxels that miss one of their six neighbours, one by one."""
    voxels = {tuple(v) for v in np.argwhere(mask)}
    steps = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 0, 0), (0, -1, 0), (0, 0, -1)]
    return [
        v for v in sorted(voxels) if any(tuple(np.add(v, step)) not in voxels for step in steps)
    ]


def brute_force(predicted, truth, spacing_mm):
    """Every score from its definition, over all pairs of voxels. Masks with at least one voxel."""

    def directed(points, targets):
        return np.array([np.sqrt(((targets - point) ** 2).sum(axis=1)).min() for point in points])

    voxels = [np.argwhere(mask) * spacing_mm for mask in (predicted, truth)]
    surfaces = [np.array(surface_points(mask)) * spacing_mm for mask in (predicted, truth)]
    there, back = directed(*surfaces), directed(*surfaces[::-1])
    both = np.concatenate([there, back])
    volumes = [mask.sum() * np.prod(spacing_mm) / 1000 for mask in (predicted, truth)]
    return (
        2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()),
        both.max(),
        max(np.percentile(there, 95), np.percentile(back, 95)),
        max(directed(*voxels).mean(), directed(*voxels[::-1]).mean()),
        both.mean(),
        *(np.mean(both <= tolerance + 1e-4) for tolerance in (1, 2, 3)),
        *volumes,
        volumes[0] - volumes[1],
    )


small_masks = st_numpy.arrays(bool, (5, 4, 3)).filter(np.any)
spacings = st.tuples(*[st.sampled_from([0.7, 0.9765625, 1.0, 1.37, 2.5, 3.0])] * 3)


@pytest.mark.parametrize("pairs_per_voxel", [0, math.inf], ids=["transform", "tree"])
@settings(max_examples=80, deadline=None)
@given(predicted=small_masks, truth=small_masks, spacing_mm=spacings)
def test_scores_equal_brute_force_over_all_pairs(pairs_per_voxel, predicted, truth, spacing_mm):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_PAIRS_PER_VOXEL", pairs_per_voxel)
        result = dataclasses.astuple(score(predicted, truth, spacing_mm))
    assert result == pytest.approx(brute_force(predicted, truth, spacing_mm), rel=0, abs=1e-9)


@pairs
def test_scores_equal_brute_force_on_shapes(pair, either_search):
    spacing_mm = (0.98, 1.37, 2.5)
    expected = brute_force(*pair, spacing_mm)
    assert dataclasses.astuple(score(*pair, spacing_mm)) == pytest.approx(expected, rel=0, abs=1e-9)


# ---------------------------------------------------------------- independent libraries


def itk_image(mask, spacing_mm):
    # A margin, since ITK knows no outside of an image.
    image = SimpleITK.GetImageFromArray(np.pad(mask, 1).astype(np.uint8).T)
    image.SetSpacing([float(spacing) for spacing in spacing_mm])
    return image


def itk_contours(pair, spacing_mm):
    images = (itk_image(mask, spacing_mm) for mask in pair)
    return [SimpleITK.BinaryContour(image, fullyConnected=False) for image in images]


def itk_hausdorff(first, second):
    measure = SimpleITK.HausdorffDistanceImageFilter()
    measure.Execute(first, second)
    return measure.GetHausdorffDistance(), measure.GetAverageHausdorffDistance()


def itk_directed_mean(points, targets, spacing_mm):
    """Mean over the voxels of `points` of the distance to `targets`, in double precision.

    ITK offers the mean of both directions only. From the union of both masks to `targets`, the way
    back is 0, and only the voxels of `points` outside of `targets` add to the way there.
    """
    union = points | targets
    _, average = itk_hausdorff(itk_image(union, spacing_mm), itk_image(targets, spacing_mm))
    return 2 * average * union.sum() / points.sum()


def itk_surface_distances(pair, grid):
    """Both directions' surface distances by ITK's distance map; exact, since squared and whole."""
    unit_mm, steps = grid
    contours = itk_contours(pair, steps)

    def directed(points, targets):
        squared = SimpleITK.SignedMaurerDistanceMap(
            targets, squaredDistance=True, useImageSpacing=True
        )
        inside = SimpleITK.GetArrayFromImage(points) != 0
        # Negative inside of the contour, which is one voxel thick: 0.
        distances = np.maximum(SimpleITK.GetArrayFromImage(squared)[inside].astype(float), 0)
        return unit_mm * np.sqrt(distances)

    return directed(*contours), directed(*contours[::-1])


def spread(mask, steps):
    """The same points on a grid of unit voxels, for libraries without spacing."""
    sparse = np.zeros([n * step for n, step in zip(mask.shape, steps, strict=True)], bool)
    sparse[tuple(slice(None, None, step) for step in steps)] = mask
    return sparse


def skimage_surface(mask):
    boundary = skimage.segmentation.find_boundaries(np.pad(mask, 1), connectivity=1, mode="inner")
    return boundary[1:-1, 1:-1, 1:-1]


@pairs
@grids
def test_dice_equals_simpleitk_and_surface_distance(pair, grid):
    overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*(itk_image(mask, spacing_of(grid)) for mask in pair))
    dice = score(*pair, spacing_of(grid)).dice
    assert dice == pytest.approx(overlap.GetDiceCoefficient(), **EXACT)
    assert dice == pytest.approx(surface_distance.compute_dice_coefficient(*pair), **EXACT)


@pairs
@grids
def test_hausdorff_equals_simpleitk_and_scikit_image(pair, grid, either_search):
    unit_mm, steps = grid
    hausdorff = score(*pair, spacing_of(grid)).hausdorff_mm
    assert hausdorff == pytest.approx(
        itk_hausdorff(*itk_contours(pair, spacing_of(grid)))[0], **EXACT
    )
    points = (spread(skimage_surface(mask), steps) for mask in pair)
    expected = unit_mm * skimage.metrics.hausdorff_distance(*points)
    assert hausdorff == pytest.approx(expected, **EXACT)


@pairs
@grids
def test_average_hausdorff_equals_simpleitk_and_scikit_image(pair, grid, either_search):
    unit_mm, steps = grid
    average = score(*pair, spacing_of(grid)).average_hausdorff_mm
    there = itk_directed_mean(*pair, spacing_of(grid))
    back = itk_directed_mean(*pair[::-1], spacing_of(grid))
    assert average == pytest.approx(max(there, back), **EXACT)
    points = (spread(mask, steps) for mask in pair)
    expected = unit_mm * skimage.metrics.hausdorff_distance(*points, method="modified")
    assert average == pytest.approx(expected, **EXACT)


@pairs
@grids
def test_volumes_equal_simpleitk_and_scikit_image(pair, grid):
    result = score(*pair, spacing_of(grid))
    for mask, volume_cm3 in zip(pair, (result.predicted_cm3, result.truth_cm3), strict=True):
        shape = SimpleITK.LabelShapeStatisticsImageFilter()
        shape.Execute(itk_image(mask, spacing_of(grid)))
        assert volume_cm3 == pytest.approx(shape.GetPhysicalSize(1) / 1000, **EXACT)
        region = skimage.measure.regionprops(mask.astype(np.uint8), spacing=spacing_of(grid))[0]
        assert volume_cm3 == pytest.approx(region.area / 1000, **EXACT)


@pairs
@grids
def test_surface_scores_equal_those_of_simpleitks_distance_maps(pair, grid, either_search):
    there, back = itk_surface_distances(pair, grid)
    both = np.concatenate([there, back])
    result = score(*pair, spacing_of(grid))
    worse95 = max(np.percentile(there, 95), np.percentile(back, 95))
    assert result.hausdorff95_mm == pytest.approx(worse95, **EXACT)
    assert result.mean_surface_distance_mm == pytest.approx(both.mean(), **EXACT)
    for tolerance_mm in (1, 2, 3):
        close = np.mean(both <= tolerance_mm + 1e-4)
        assert getattr(result, f"surface_dice_{tolerance_mm}mm") == pytest.approx(close)


@grids
def test_surface_scores_equal_monais(grid):
    torch = pytest.importorskip("torch", reason="MONAI and torch come with the extra `bench`")
    monai = pytest.importorskip("monai.metrics", reason="MONAI comes with the extra `bench`")
    common = dict(include_background=True, spacing=spacing_of(grid))
    for pair in PAIRS.values():
        tensors = [torch.from_numpy(mask[None, None]) for mask in pair]
        expected = {
            "hausdorff_mm": monai.compute_hausdorff_distance(*tensors, **common),
            "hausdorff95_mm": monai.compute_hausdorff_distance(*tensors, percentile=95, **common),
            "mean_surface_distance_mm": monai.compute_average_surface_distance(
                *tensors, symmetric=True, **common
            ),
        }
        for tolerance_mm in metrics.TOLERANCES_MM:
            expected[f"surface_dice_{tolerance_mm:.0f}mm"] = monai.compute_surface_dice(
                *tensors, class_thresholds=[tolerance_mm + 1e-4], **common
            )
        result = score(*pair, spacing_of(grid))
        for name, tensor in expected.items():
            # MONAI's distances are float32.
            assert getattr(result, name) == pytest.approx(float(tensor), rel=1e-6, abs=1e-6), name


@pytest.mark.parametrize("name", ["overlapping balls", "touching boxes", "nested balls"])
def test_hausdorff_of_full_shapes_equals_surface_distance(name):
    """Its points are voxel corners, ours centres; on shapes without crevices the longest agrees."""
    distances = surface_distance.compute_surface_distances(*PAIRS[name], (1, 1, 1))
    expected = surface_distance.compute_robust_hausdorff(distances, 100)
    assert score(*PAIRS[name], (1, 1, 1)).hausdorff_mm == pytest.approx(expected)


def test_real_contours_moved_by_a_voxel_score_as_simpleitk_says(real_ct):
    scan = file_order.read(str(real_ct / "lung1_002" / "labels.nii.gz"))
    truth = np.pad(scan.array[nonzero_box(scan.array)], 2)
    predicted = np.roll(truth, (1, -1, 1), (0, 1, 2))
    results = metrics.score(predicted, truth, scan.grid.spacing_mm, [1, 2])
    for label, result in results.items():
        pair = predicted == label, truth == label
        hausdorff, _ = itk_hausdorff(*itk_contours(pair, scan.grid.spacing_mm))
        assert result.hausdorff_mm == pytest.approx(hausdorff, **EXACT)
        there = itk_directed_mean(*pair, scan.grid.spacing_mm)
        back = itk_directed_mean(*pair[::-1], scan.grid.spacing_mm)
        assert result.average_hausdorff_mm == pytest.approx(max(there, back), **EXACT)


# ---------------------------------------------------------------- empty masks

EMPTY = np.zeros(SHAPE, bool)
DISTANCES = [name for name in metrics.SCORES if name.endswith("_mm")]
SHARES = [name for name in metrics.SCORES if "dice" in name]


@pytest.mark.parametrize(
    "mask", [EMPTY, SOLID, np.ones(SHAPE, bool)], ids=["empty", "solid", "all"]
)
def test_equal_masks_score_perfectly_even_if_empty(mask):
    result = score(mask, mask, (1, 1, 2.5))
    assert [getattr(result, name) for name in SHARES] == [1] * 4
    assert [getattr(result, name) for name in DISTANCES] == [0] * 4
    assert result.difference_cm3 == 0


@pytest.mark.parametrize("pair", [(EMPTY, SOLID), (SOLID, EMPTY)], ids=["missed", "invented"])
def test_one_empty_mask_scores_no_dice_and_infinite_distances(pair):
    result = score(*pair, (1, 1, 2.5))
    assert [getattr(result, name) for name in SHARES] == [0] * 4
    assert [getattr(result, name) for name in DISTANCES] == [math.inf] * 4
    assert result.difference_cm3 == pytest.approx(result.predicted_cm3 - result.truth_cm3)


@pytest.mark.parametrize("method", ["standard", "modified"])
@pytest.mark.parametrize("pair", [(EMPTY, EMPTY), (EMPTY, SOLID), (SOLID, EMPTY)])
def test_empty_masks_score_as_in_scikit_image(pair, method):
    result = score(*pair, (1, 1, 1))
    distance = result.hausdorff_mm if method == "standard" else result.average_hausdorff_mm
    assert distance == skimage.metrics.hausdorff_distance(*pair, method=method)


def test_scores_of_a_missed_organ_go_through_strict_json():
    values = score(EMPTY, SOLID, (1, 1, 1)).as_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert {name for name, value in values.items() if value is None} == set(DISTANCES)


def test_a_label_that_neither_map_holds_is_scored_as_both_empty():
    result = metrics.score(*[np.zeros((4, 4, 4), np.uint8)] * 2, (1, 1, 1), [1, 3])
    assert list(result) == [1, 3]
    assert result[3].dice == 1


# ---------------------------------------------------------------- laws


def lengths_scaled(result, factor):
    scaled = {name: getattr(result, name) * factor for name in DISTANCES}
    volumes = {n: getattr(result, n) * factor**3 for n in metrics.SCORES if n.endswith("_cm3")}
    return dataclasses.replace(result, **scaled, **volumes)


def assert_same(result, expected):
    assert dataclasses.astuple(result) == pytest.approx(dataclasses.astuple(expected), rel=1e-12)


@pairs
def test_swapping_the_maps_swaps_the_volumes_and_nothing_else(pair):
    forth, back = score(*pair, (0.98, 0.98, 2.5)), score(*pair[::-1], (0.98, 0.98, 2.5))
    assert_same(
        back,
        dataclasses.replace(
            forth,
            predicted_cm3=forth.truth_cm3,
            truth_cm3=forth.predicted_cm3,
            difference_cm3=-forth.difference_cm3,
        ),
    )


@pairs
def test_axis_order_flips_and_memory_layout_change_nothing(pair):
    spacing_mm = np.array([0.9, 1.37, 2.5])
    expected = score(*pair, spacing_mm)
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            steps = tuple(slice(None, None, flip) for flip in flips)
            turned = [mask.transpose(axes)[steps] for mask in pair]
            assert_same(score(*turned, spacing_mm[list(axes)]), expected)
            fortran = (turned[0], np.asfortranarray(turned[1]))
            assert_same(score(*fortran, spacing_mm[list(axes)]), expected)


@pairs
def test_room_around_the_masks_changes_nothing(pair):
    spacing_mm = (0.9, 1.37, 2.5)
    moved = [np.pad(mask, ((7, 1), (0, 12), (3, 3))) for mask in pair]
    assert_same(score(*moved, spacing_mm), score(*pair, spacing_mm))


@pairs
def test_lengths_scale_with_spacing_and_volumes_with_its_cube(pair):
    result, doubled = score(*pair, (0.9, 1.37, 2.5)), score(*pair, (1.8, 2.74, 5.0))
    for name in (*DISTANCES, "predicted_cm3", "truth_cm3", "difference_cm3", "dice"):
        assert getattr(doubled, name) == pytest.approx(getattr(lengths_scaled(result, 2), name))


@pairs
def test_scores_are_ordered(pair):
    result = score(*pair, (0.9, 1.37, 2.5))
    assert result.hausdorff95_mm <= result.hausdorff_mm
    assert result.mean_surface_distance_mm <= result.hausdorff_mm
    assert result.surface_dice_1mm <= result.surface_dice_2mm <= result.surface_dice_3mm


def test_every_label_is_scored_as_if_it_were_alone():
    rng = np.random.default_rng(7)
    maps = [rng.integers(0, 5, (9, 8, 7), np.uint8) for _ in range(2)]
    results = metrics.score(*maps, (1, 1, 2.5), [1, 2, 3, 4])
    for label, result in results.items():
        assert result == score(*(label_map == label for label_map in maps), (1, 1, 2.5))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.int64])
def test_dtype_changes_nothing(dtype):
    pair = PAIRS["overlapping balls"]
    results = metrics.score(*(mask.astype(dtype) for mask in pair), (1, 1, 2.5), [1])
    assert results[1] == score(*pair, (1, 1, 2.5))


def test_rounding_of_an_oblique_affine_moves_no_voxel_across_a_tolerance():
    """Voxels of 1 mm one step apart; a turned affine in float32 gives 1 mm only to seven digits."""
    angle = 0.3
    turn = [
        [math.cos(angle), -math.sin(angle), 0],
        [math.sin(angle), math.cos(angle), 0],
        [0, 0, 1],
    ]
    spacing_mm = np.linalg.norm(np.array(turn, np.float32).astype(float), axis=0)
    assert spacing_mm.max() > 1  # else nothing is tested
    pair = box((9, 9, 9), (1, 6), (1, 6), (1, 6)), box((9, 9, 9), (2, 7), (2, 7), (1, 6))
    straight, oblique = score(*pair, (1, 1, 1)), score(*pair, spacing_mm)
    assert oblique.surface_dice_1mm == straight.surface_dice_1mm < 1


# ---------------------------------------------------------------- Dice from counts


def test_dice_from_counts_equals_dice_from_masks():
    counts = [((a & b).sum(), a.sum(), b.sum()) for a, b in PAIRS.values()]
    expected = [score(*pair, (1, 1, 1)).dice for pair in PAIRS.values()]
    assert metrics.dice_from_counts(*np.array(counts).T) == pytest.approx(expected)


def test_dice_from_counts_of_parts_is_the_dice_of_the_whole():
    a, b = PAIRS["overlapping balls"]
    parts = [np.stack([(x & y).sum((0, 1)), x.sum((0, 1)), y.sum((0, 1))]) for x, y in [(a, b)]]
    whole = metrics.dice_from_counts(*parts[0].sum(axis=1))
    assert whole == pytest.approx(score(a, b, (1, 1, 1)).dice)


def test_dice_from_counts_is_1_without_voxels_and_0_without_overlap():
    assert metrics.dice_from_counts([0, 0, 0], [0, 5, 0], [0, 0, 7]).tolist() == [1, 0, 0]
    assert float(metrics.dice_from_counts(0, 0, 0)) == 1


def test_dice_from_counts_holds_beyond_32_bits():
    n = np.int32(2**31 - 1)
    assert metrics.dice_from_counts(n, n, n) == 1
    assert metrics.dice_from_counts(np.array([n]), np.array([n]), np.array([n])).tolist() == [1]


# ---------------------------------------------------------------- bad input

LABELS = np.zeros((4, 5, 6), np.uint8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((LABELS[0], LABELS[0], (1, 1, 1), [1]), "predicted: expected a label map"),
        ((LABELS, LABELS.astype(float), (1, 1, 1), [1]), "truth: expected a label map.*float64"),
        ((LABELS, LABELS[:3], (1, 1, 1), [1]), r"one shape, found \(4, 5, 6\) and \(3, 5, 6\)"),
        ((LABELS, LABELS, (1, 1), [1]), "spacing_mm: expected three positive lengths"),
        ((LABELS, LABELS, (1, 0, 1), [1]), "spacing_mm: expected three positive lengths"),
        ((LABELS, LABELS, (1, math.nan, 1), [1]), "spacing_mm: expected three positive lengths"),
        ((LABELS, LABELS, (1, 1, 1), [0, 1]), "0 is the background"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        metrics.score(*arguments)
