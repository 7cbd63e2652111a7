"""Effort to mend: masks worked by hand, brute force, other libraries, and the laws it obeys."""

import csv
import itertools
import json
import math

import nibabel
import numpy as np
import pytest
import skimage.segmentation
from programs import run_entry
from scipy import ndimage

from segthor import effort, organs

SPACINGS_MM = [(2.5, 1.0, 1.0), (3.0, 0.9, 1.3), (1.0, 0.4, 0.7)]
TOLERANCES_MM = {1: 0.0, 2: 1.0, 3: 2.6, 4: 3.0}


def square(shape=(5, 20, 20), slices=slice(1, 4), rows=slice(5, 13), columns=slice(6, 14)):
    labels = np.zeros(shape, np.uint8)
    labels[slices, rows, columns] = 1
    return labels


def measure(predicted, truth, tolerance_mm, spacing_mm=(2.5, 1.0, 1.0)):
    found = effort.measure(predicted, truth, spacing_mm, {1: tolerance_mm})[1]
    return found.added_path_mm, found.slices_to_touch


def test_a_square_moved_by_a_pixel_adds_what_it_does_not_share():
    moved = np.roll(square(), 1, axis=2)
    # Of the 28 pixels of each contour 14 are shared: seven of the upper and of the lower edge.
    assert measure(moved, square(), 0) == (3 * 14, 3)
    assert measure(moved, square(), 0.999) == (3 * 14, 3)
    assert measure(moved, square(), 1) == (0, 0)
    # The pixel's side is the mean of both. A move along pixels of 1.2 mm is out of 1 mm, but for
    # two pixels of the right edge that lie 0.8 mm below and above a corner.
    assert measure(moved, square(), 1, (2.5, 0.8, 1.2)) == (3 * 12, 3)
    assert measure(np.roll(square(), 1, axis=1), square(), 1, (2.5, 0.8, 1.2)) == (0, 0)


def test_a_missed_slice_costs_its_whole_contour_and_an_invented_one_no_path():
    short = square(slices=slice(1, 3))
    assert measure(short, square(), 3) == (28, 1)
    assert measure(square(), short, 3) == (0, 1)
    assert measure(np.zeros_like(short), square(), 3) == (3 * 28, 3)
    assert measure(square(), np.zeros_like(short), 3) == (0, 3)
    assert measure(np.zeros_like(short), np.zeros_like(short), 3) == (0, 0)


def test_a_contour_next_door_in_another_slice_is_no_help():
    assert measure(square(slices=slice(1, 2)), square(slices=slice(2, 3)), 50) == (28, 2)


def test_a_lump_that_must_go_is_a_slice_and_no_path():
    lumpy = square()
    lumpy[2, 8:10, 14:19] = 1
    path_mm, slices = measure(lumpy, square(), 3)
    assert (path_mm, slices) == (0, 1)
    assert measure(square(), lumpy, 3) == (4, 1)  # the lump's last two columns are beyond 3 mm


def test_the_hole_of_a_ring_has_a_contour():
    ring = square()
    ring[:, 8:10, 9:11] = 0
    assert measure(square(), ring, 0.5)[0] == 3 * 8  # the eight pixels that touch the hole's edges


def random_maps(seed, density):
    """Two label maps of blobs that mostly agree, at the array's edges as well."""
    rng = np.random.default_rng(seed)
    shape = (4, 15, 17)
    field = ndimage.gaussian_filter(rng.normal(size=(5, *shape)), (0, 0.5, 2, 2))
    shifted = field + 0.4 * ndimage.gaussian_filter(rng.normal(size=field.shape), (0, 0, 1, 1))
    field[0] += density
    shifted[0] += density
    return field.argmax(0).astype(np.uint8), shifted.argmax(0).astype(np.uint8)


MAPS = [random_maps(seed, density) for seed in range(4) for density in (0.0, 0.15)]


def contour_by_hand(labels, label, z):
    """[(row, column)] of the contour's pixels in a slice, by the definition's words."""
    plane = labels[z] == label

    def outside(row, column):
        within = 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]
        return not (within and plane[row, column])

    return [
        (row, column)
        for row, column in zip(*np.nonzero(plane), strict=True)
        if any(outside(row + a, column + b) for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1)))
    ]


def brute_force(predicted, truth, spacing_mm, label, tolerance_mm):
    added, touched = 0, 0
    for z in range(len(truth)):
        drawn, true = (contour_by_hand(labels, label, z) for labels in (predicted, truth))

        def beyond(points, others):
            return sum(
                all(
                    math.hypot((r - a) * spacing_mm[1], (c - b) * spacing_mm[2]) > tolerance_mm
                    for a, b in others
                )
                for r, c in points
            )

        missing, superfluous = beyond(true, drawn), beyond(drawn, true)
        added += missing
        touched += bool(missing or superfluous)
    return added * (spacing_mm[1] + spacing_mm[2]) / 2, touched


def by_libraries(predicted, truth, spacing_mm, label, tolerance_mm):
    """Contours from scikit-image, distances from scipy, slice by slice."""
    added, touched = 0, 0
    for planes in zip(predicted == label, truth == label, strict=True):
        drawn, true = (
            skimage.segmentation.find_boundaries(np.pad(plane, 1), connectivity=1, mode="inner")
            for plane in planes
        )
        far = [
            ndimage.distance_transform_edt(~mask, sampling=spacing_mm[1:])
            if mask.any()
            else np.full(mask.shape, np.inf)
            for mask in (drawn, true)
        ]
        missing, superfluous = true & (far[0] > tolerance_mm), drawn & (far[1] > tolerance_mm)
        added += missing.sum()
        touched += missing.any() or superfluous.any()
    return added * np.mean(spacing_mm[1:]), touched


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
@pytest.mark.parametrize("reference", [brute_force, by_libraries])
def test_it_equals_brute_force_and_other_libraries(spacing_mm, reference):
    seen = set()
    for predicted, truth in MAPS:
        found = effort.measure(predicted, truth, spacing_mm, TOLERANCES_MM)
        for label, tolerance_mm in TOLERANCES_MM.items():
            slack = tolerance_mm + 1e-9  # as 3 * 0.9 is a hair above 2.7
            expected = reference(predicted, truth, spacing_mm, label, slack)
            ours = found[label].added_path_mm, found[label].slices_to_touch
            assert ours == pytest.approx(expected), (label, tolerance_mm)
            seen.add(expected)
    assert len(seen) > 20  # not the same answer over and over


def test_room_around_other_labels_and_memory_layout_change_nothing():
    predicted, truth = MAPS[0]
    alone = {
        label: effort.measure(predicted, truth, SPACINGS_MM[1], {label: tolerance_mm})[label]
        for label, tolerance_mm in TOLERANCES_MM.items()
    }
    assert effort.measure(predicted, truth, SPACINGS_MM[1], TOLERANCES_MM) == alone
    padded = [np.pad(labels, 9) for labels in (predicted, truth)]
    assert effort.measure(*padded, SPACINGS_MM[1], TOLERANCES_MM) == alone
    for flips in itertools.product([1, -1], repeat=3):
        steps = tuple(slice(None, None, step) for step in flips)
        turned = [
            np.asfortranarray(labels)[steps].astype(np.int16) for labels in (predicted, truth)
        ]
        assert effort.measure(*turned, SPACINGS_MM[1], TOLERANCES_MM) == alone


def test_more_tolerance_never_means_more_work():
    predicted, truth = MAPS[1]
    rows = [
        effort.measure(predicted, truth, SPACINGS_MM[0], dict.fromkeys(TOLERANCES_MM, tolerance_mm))
        for tolerance_mm in (0, 1, 1.5, 2, 4, 20)
    ]
    for label in TOLERANCES_MM:
        paths = [row[label].added_path_mm for row in rows]
        slices = [row[label].slices_to_touch for row in rows]
        assert paths == sorted(paths, reverse=True) and slices == sorted(slices, reverse=True)
    assert rows[0][1].added_path_mm > rows[2][1].added_path_mm


def test_inputs_are_left_as_they_are():
    predicted, truth = (labels.copy() for labels in MAPS[2])
    effort.measure(predicted, truth, SPACINGS_MM[0], TOLERANCES_MM)
    assert (predicted == MAPS[2][0]).all() and (truth == MAPS[2][1]).all()


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_the_scores_hold_it_at_each_organs_tolerance_whatever_the_files_axes(tmp_path, axes):
    truth = square().transpose(2, 1, 0)
    truth[1:4, 1:4, 1] = 2
    predicted = np.roll(truth, 1, 0)
    affine = np.diag([-1.0, -1.0, 2.5, 1.0])[:, [*axes, 3]]
    for folder, labels in (("labels", truth), ("predictions", predicted)):
        (tmp_path / folder).mkdir()
        image = nibabel.Nifti1Image(labels.transpose(axes), affine)
        nibabel.save(image, tmp_path / folder / "A.nii.gz")
    table = organs.Organs((
        organs.Organ("square", 1, (9, 9, 9), tolerance_mm=0.5), organs.Organ("b", 2, (8, 8, 8))
    ))  # fmt: skip
    head = json.dumps({"organs": table.to_json()})
    (tmp_path / "predictions" / "predictions.json").write_text(head)
    flags = {name: tmp_path / name for name in ("labels", "predictions")}
    done = run_entry("serving.evaluate", **flags, output=tmp_path / "out")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "out" / "scores.csv") as stream:
        header, *rows = csv.reader(stream)
    assert header[-3:] == ["difference_cm3", "added_path_mm", "slices_to_touch"]
    assert [row[1:2] + row[-2:] for row in rows] == [["square", "42.0", "3"], ["b", "0.0", "0"]]
    assert "added path mm" in done.stdout
