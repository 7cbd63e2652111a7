"""Polygons and masks: fill, nesting, outlines and keyholes beside exact and independent answers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import grid_points_in_poly

from segthor import contours


def brute_fill(rings, shape):
    """Even-odd for each pixel by itself, in fractions: centres on an edge lie at its smaller x."""
    inside = np.zeros(shape, bool)
    for x, y in np.ndindex(*shape):
        crossings = 0
        for ring in rings:
            points = [tuple(map(Fraction, point)) for point in np.asarray(ring).tolist()]
            for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
                if (y0 <= y) != (y1 <= y):
                    crossings += x0 + (y - y0) * (x1 - x0) / (y1 - y0) < x
        inside[x, y] = crossings % 2
    return inside


def blobs(seed, shape=(33, 27)):
    """A mask with pieces, holes and islands, some at the border, and the field it came from."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), rng.choice([0, 0.7, 1.5, 3]))
    field /= abs(field).max()
    return field > 0.2 * rng.normal(), field


def rectangle(x0, y0, x1, y1):
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float)


def disc(x, y, radius, points=60):
    angles = np.arange(points) * 2 * np.pi / points
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1)


half_pixels = st.integers(-4, 28).map(lambda n: n / 2)
points = st.lists(st.tuples(half_pixels, half_pixels), min_size=1, max_size=9)


@given(st.lists(points, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_a_pixel_is_inside_where_its_centre_is_even_where_edges_run_through_centres(rings):
    shape = (11, 12)
    np.testing.assert_array_equal(contours.fill(rings, shape), brute_fill(rings, shape))


@pytest.mark.parametrize("seed", range(5))
def test_filling_agrees_with_scikit_image_where_no_centre_lies_on_an_edge(seed):
    rng = np.random.default_rng(seed)
    ring = rng.uniform(-5, 45, (60, 2))
    mask = contours.fill([ring], (40, 37))
    np.testing.assert_array_equal(mask, grid_points_in_poly((40, 37), ring))
    assert 200 < mask.sum() < 1300


def test_rings_that_share_edges_share_no_pixel_and_leave_none_out():
    rng = np.random.default_rng(1)
    corners = {(i, j): (4 * i, 4 * j) for i in range(6) for j in range(6)}
    for i, j in np.ndindex(4, 4):  # inner corners anywhere near, often on centres
        corners[i + 1, j + 1] = tuple(4 * np.array([i + 1, j + 1]) + rng.integers(-1, 2, 2))
    total = np.zeros((25, 25), int)
    for i, j in np.ndindex(5, 5):
        ring = [corners[i + a, j + b] for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))]
        total += contours.fill([ring], (25, 25))
    assert (total[1:21, :20] == 1).all() and total.sum() == 400


def test_errors_of_affine_arithmetic_do_not_decide_about_a_centre():
    ring = rectangle(2, 3, 8, 9)
    exact = contours.fill([ring], (12, 12))
    rng = np.random.default_rng(0)
    for _ in range(20):
        moved = ring + rng.uniform(-1e-9, 1e-9, ring.shape)
        np.testing.assert_array_equal(contours.fill([moved], (12, 12)), exact)


def test_many_crossings_are_counted_in_portions(monkeypatch):
    rng = np.random.default_rng(2)
    ring = rng.uniform(0, 30, (200, 2))
    whole = contours.fill([ring], (30, 30))
    monkeypatch.setattr(contours, "_MOST_CROSSINGS", 64)
    np.testing.assert_array_equal(contours.fill([ring], (30, 30)), whole)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e5, -1e5])
def test_points_that_cannot_be_placed_are_refused(bad):
    with pytest.raises(ValueError, match="expected finite points"):
        contours.fill([[(0, 0), (bad, 0), (3, 3)]], (5, 5))


def test_rings_outside_the_plane_fill_nothing_and_rings_about_it_fill_it():
    assert not contours.fill([rectangle(20, 20, 30, 30), rectangle(-9, -9, -2, -3)], (10, 10)).any()
    assert contours.fill([rectangle(-9, -9, 50, 50)], (10, 10)).all()
    assert contours.fill([], (3, 4)).shape == (3, 4)


@pytest.mark.parametrize("seed", range(40))
def test_an_outline_filled_again_is_the_mask(seed):
    mask, field = blobs(seed)
    rng = np.random.default_rng(seed)
    unrelated = rng.uniform(-1, 1, mask.shape)
    coarse = np.rint(field * 3) / 3  # ties, many exactly 0
    for margin in (None, field, unrelated, coarse, np.zeros(mask.shape), 1e-12 * field):
        pieces = contours.outline(mask, margin)
        whole = [ring for piece in pieces for ring in piece]
        bridged = [contours.keyhole(piece) for piece in pieces]
        written = [np.round(ring * 0.4 + 0.1234, 3) for ring in bridged]  # 0.4 mm pixels
        read = [(ring - 0.1234) / 0.4 for ring in written]
        for rings in (whole, bridged, read):
            np.testing.assert_array_equal(contours.fill(rings, mask.shape), mask)
        np.testing.assert_array_equal(contours.combine(bridged, mask.shape)[0], mask)
        np.testing.assert_array_equal(contours.combine(whole, mask.shape)[0], mask)
        steps = np.concatenate([ring - np.roll(ring, 1, 0) for ring in whole] or [np.ones((1, 2))])
        assert (abs(steps).max(1) > 0.005).all(), "a point is repeated"


def test_pieces_are_outer_rings_with_their_own_holes():
    mask = np.zeros((30, 30), bool)
    mask[2:20, 2:20] = True
    mask[4:10, 4:10] = mask[12:18, 4:18] = False
    mask[6:8, 6:8] = mask[24, 24] = True
    pieces = contours.outline(mask)
    assert sorted(len(piece) for piece in pieces) == [1, 1, 3]
    for outer, *holes in pieces:
        full = contours.fill([outer], mask.shape)
        assert all((full & contours.fill([hole], mask.shape)).any() for hole in holes)


def test_masks_that_are_empty_or_full():
    assert contours.outline(np.zeros((4, 5), bool)) == []
    ((ring,),) = contours.outline(np.ones((4, 5), bool))
    assert (ring.min(0) == -0.5).all() and (ring.max(0) == (3.5, 4.5)).all()


def edge_error_px(ring, x, y, radius):
    error = np.hypot(*(ring - (x, y)).T) - radius
    return np.sqrt((error**2).mean())


def test_an_outline_by_probabilities_is_nearer_the_edge_than_one_of_the_mask():
    """The share of each pixel that a disc covers, as a perfect network would say."""
    n, fine = 40, 20
    place = (np.arange(n * fine) + 0.5) / fine - 0.5
    by_margin, by_mask = [], []
    for radius in (6.3, 9.7, 14.2):
        x, y = 19.3, 20.1
        covered = (place[:, None] - x) ** 2 + (place - y) ** 2 <= radius**2
        share = covered.reshape(n, fine, n, fine).mean((1, 3))
        margin = contours.margins(np.stack([1 - share, share]))[1]
        ((smooth,),) = contours.outline(share > 0.5, margin)
        ((stepped,),) = contours.outline(share > 0.5)
        by_margin.append(edge_error_px(smooth, x, y, radius))
        by_mask.append(edge_error_px(stepped, x, y, radius))
    assert max(by_margin) <= 0.06
    assert 0.15 < min(by_mask) and max(by_mask) < 0.3


def test_the_margin_is_to_the_best_other_class():
    probabilities = np.array([0.1, 0.6, 0.3])[:, None, None]
    found = [contours.margins(probabilities)[k].item() for k in range(3)]
    np.testing.assert_allclose(found, [-0.5, 0.3, -0.3])


def test_post_processing_wins_over_probabilities():
    margin = np.full((12, 12), -0.9)
    margin[2:5, 2:5] = margin[7:10, 2:10] = 0.8
    mask = margin > 0
    mask[2:5, 2:5], mask[8, 5] = False, False  # a piece removed, a hole made
    (piece,) = contours.outline(mask, margin)
    np.testing.assert_array_equal(contours.fill(piece, mask.shape), mask)
    hole = min(piece, key=len)
    assert 0.4 < abs(hole - (8, 5)).max() < 0.6, "half-way where the margin cannot tell"


def test_bridges_run_between_rows_of_centres_there_and_back():
    mask = np.zeros((40, 20), bool)
    mask[1:39, 1:19] = True
    for x in range(4, 37, 4):
        mask[x : x + 2, 5:9] = mask[x, 12] = False
    (piece,) = contours.outline(mask)
    ring = contours.keyhole(piece)
    assert len(ring) == sum(map(len, piece)) + 4 * (len(piece) - 1)
    ends = np.roll(ring, -1, axis=0)
    edges = {(tuple(a), tuple(b)) for a, b in zip(ring.tolist(), ends.tolist(), strict=True)}
    bridges = [(a, b) for a, b in edges if (b, a) in edges]
    assert len(bridges) == 2 * (len(piece) - 1)
    assert all(a[1] == b[1] and 0.2 < a[1] % 1 < 0.8 for a, b in bridges)


def counts(found):
    return {code.removeprefix("contour_"): n for code, n in found.items() if n}


OUTER, HOLE = rectangle(2.5, 2.5, 30.5, 30.5), rectangle(6.5, 6.5, 20.5, 20.5)
ISLAND = rectangle(9.5, 9.5, 15.5, 15.5)


@pytest.mark.parametrize(
    "rings, area, met",
    [
        ([OUTER], 28**2, {}),
        ([OUTER, HOLE], 28**2 - 14**2, {"nested": 1}),
        ([OUTER, HOLE, ISLAND], 28**2 - 14**2 + 6**2, {"nested": 2}),
        ([OUTER, OUTER], 28**2, {"duplicate": 1}),
        ([OUTER, np.roll(OUTER, 1, 0)[::-1], OUTER + 0.01], 28**2, {"duplicate": 2}),
        ([HOLE, OUTER, HOLE], 28**2 - 14**2, {"nested": 1, "duplicate": 1}),
        ([HOLE, HOLE + 5], 2 * 14**2 - 9**2, {"crossing": 2}),
        ([OUTER, HOLE, HOLE + 5], 28**2 - 2 * 14**2 + 9**2, {"nested": 2, "crossing": 2}),
        ([HOLE, HOLE + (14, 0)], 2 * 14**2, {}),  # they share an edge
        ([OUTER, rectangle(2.5, 9.5, 9.5, 15.5)], 28**2 - 7 * 6, {"nested": 1}),  # at its edge
        ([OUTER, rectangle(5.1, 5.1, 5.9, 5.9)], 28**2, {"tiny": 1}),
        ([OUTER, OUTER[:2], OUTER[:1]], 28**2, {"tiny": 2}),
        # It crosses although each pixel that it holds is also the other's.
        ([HOLE, rectangle(18.5, 8.5, 20.9, 9.5)], 14**2, {"crossing": 2}),
        ([], 0, {}),
    ],
)
def test_rings_of_one_organ_are_read_as_clinical_systems_do(rings, area, met):
    for order in (1, -1):
        mask, found = contours.combine(rings[::order], (40, 40))
        assert (int(mask.sum()), counts(found)) == (area, met)


def test_a_thin_wall_is_no_duplicate():
    wall = [disc(20, 20, 9), disc(20, 20, 8.5)]
    mask, found = contours.combine(wall, (40, 40))
    assert counts(found) == {"nested": 1}
    np.testing.assert_array_equal(mask, contours.fill(wall, (40, 40)))


@pytest.mark.parametrize("seed", range(10))
def test_nested_and_separate_rings_fill_even_odd_in_any_order(seed):
    mask, field = blobs(seed, (60, 50))
    rings = [ring for piece in contours.outline(mask, field) for ring in piece]
    rng = np.random.default_rng(seed)
    for _ in range(3):
        rng.shuffle(rings)
        np.testing.assert_array_equal(contours.combine(rings, mask.shape)[0], mask)


coordinates = st.one_of(st.floats(-3, 15), half_pixels)
rough = st.lists(st.tuples(coordinates, coordinates), min_size=0, max_size=12)


@given(st.lists(rough, max_size=6))
@settings(max_examples=150, deadline=None)
def test_any_rings_at_all_end_in_a_mask_within_their_union(rings):
    rings = [np.array(ring, float).reshape(-1, 2) for ring in rings]
    mask, found = contours.combine(rings, (12, 13))
    union = np.zeros((12, 13), bool)
    for ring in rings:
        union |= contours.fill([ring], (12, 13))
    assert not (mask & ~union).any()
    assert sum(found.values()) <= 3 * len(rings)
