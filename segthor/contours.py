"""Polygons and masks of one plane: filling, nesting, outlines, keyholes. Numpy and contourpy.

A plane is [X, Y]; a point is (x, y) in pixels, pixel centres at whole numbers. A ring is float64
[N, 2], N >= 3, closed by itself: its first point is not repeated. A pixel is inside where its
centre is, even-odd. A centre exactly on an edge belongs to the side of smaller x, and on an edge
along x to the side of larger y, so rings that share an edge never share or leave out a pixel. (Of
the eight such rules this one is nearest to how plastimatch fills LUNG1-002's five organs.)
"""

from collections import Counter

import numpy as np
from contourpy import FillType, contour_generator

from segthor import nesting

FARTHEST_PX = 1 << 14  # beyond this, whole numbers of 64 bits no longer hold the products below
_UNITS = 1 << 16  # points are rounded to this part of a pixel, so that every comparison is exact
_MOST_CROSSINGS = 1 << 21  # at once, so that memory stays bounded
_CLEARANCE_PX = 0.02  # between an outline and a pixel's centre: far above a rounding to 0.001 mm
_LEAST_MARGIN = 1e-6


def fill(rings, shape: tuple[int, int]) -> np.ndarray:
    """bool [X, Y]: the pixels whose centres an odd number of the rings holds.

    Raises ValueError for points that are not finite or lie beyond FARTHEST_PX.
    """
    plane = np.zeros(shape, bool)
    box, winding = _wind(rings, shape)
    plane[box] = winding & 1
    return plane


def combine(rings, shape: tuple[int, int]) -> tuple[np.ndarray, Counter]:
    """One organ's rings on one plane as clinical systems read them, and what was met on the way.

    A ring inside another is a hole (and one inside a hole is an island); one that coincides with
    another is dropped; rings that cross are united. Returns bool [X, Y] and how many rings were
    'contour_nested', 'contour_duplicate', 'contour_crossing', crossed themselves:
    'contour_self_crossing', or held no pixel: 'contour_tiny'. Raises `nesting.TooManyRings`, and
    ValueError as `fill`.
    """
    plane, found, pieces = np.zeros(shape, bool), Counter(), []
    for ring in rings:
        box, winding = _wind([ring], shape)
        # A ring that does not cross itself goes about each pixel once, always in one direction.
        found["contour_self_crossing"] += bool(winding.size and np.ptp(winding) > 1)
        mask = (winding & 1).astype(bool)
        if mask.any():
            pieces.append(nesting.Piece(np.asarray(ring, np.float64), box, mask))
        else:
            found["contour_tiny"] += 1
    groups, depths = nesting.arrange(pieces, found)
    for depth, pieces in sorted(zip(depths, groups, strict=True), key=lambda pair: pair[0]):
        for piece in pieces:
            if depth % 2:
                plane[piece.box] &= ~piece.mask
            else:
                plane[piece.box] |= piece.mask
    return plane, found


def outline(inside: np.ndarray, margin: np.ndarray | None = None) -> list[list[np.ndarray]]:
    """The rings about a mask, which `fill` turns back into the mask pixel for pixel.

    inside: bool [X, Y], the decided mask. margin: float [X, Y] in [-1, 1], the organ's probability
    minus that of the best other class; the outline then runs where it is 0, between a pixel inside
    and one outside, else half-way. Where margin and mask disagree (post-processing), the mask wins.
    Returns one list per connected piece: its outer ring, then its holes.
    """
    held = [np.flatnonzero(inside.any(axis)) for axis in (1, 0)]
    if not len(held[0]):
        return []
    # The mask's box and one pixel around it, which beyond the plane is outside the mask.
    ends = [(int(px[0]), int(px[-1]) + 1) for px in held]
    box = tuple(slice(max(start - 1, 0), stop + 1) for start, stop in ends)
    sizes = zip(ends, inside.shape, strict=True)
    rim = [[int(start == 0), int(stop == size)] for (start, stop), size in sizes]
    field = signs = np.where(np.pad(inside[box], rim), 1.0, -1.0)
    if margin is not None:
        given = np.pad(margin[box].astype(np.float64), rim, constant_values=-1)
        size = np.minimum(given * signs, 1)
        field = signs * np.where(size < 0, 1, np.maximum(size, _LEAST_MARGIN))
    first = np.array([start - 1 for start, _ in ends], np.float64)
    generator = contour_generator(z=field.T, name="serial", fill_type=FillType.OuterOffset)
    pieces = zip(*generator.filled(0, np.inf), strict=True)
    return [
        [_between_centres(ring[:-1]) + first for ring in np.split(points, offsets[1:-1])]
        for points, offsets in pieces
    ]


def margins(probabilities: np.ndarray) -> np.ndarray:
    """Each class minus the best other one: [K, X, Y], K >= 2."""
    second, best = np.partition(probabilities, -2, axis=0)[-2:]
    return probabilities - np.where(probabilities == best, second, best)


def keyhole(rings: list[np.ndarray]) -> np.ndarray:
    """An outer ring and its holes as one ring, joined by bridges of no width.

    A bridge runs along x, there and back over the same two points, between rows of pixel centres;
    so it holds no pixel, by any rule.
    """
    outer, *holes = rings
    waiting = [outer, *holes]
    while len(waiting) > 1:
        hole = waiting.pop()
        y = _bridge_y(hole)
        own, x = _crossings(hole, y)
        last = int(np.argmax(x))
        start = np.array([x[last], y])
        hits = []
        for number, ring in enumerate(waiting):
            edges, reached = _crossings(ring, y)
            hits += [
                (float(at), number, int(e))
                for e, at in zip(edges, reached, strict=True)
                if at > start[0]
            ]
        at, number, edge = min(hits)
        turned = np.roll(hole, -(own[last] + 1), axis=0)
        end = np.array([at, y])
        ring = waiting[number]
        bridge = [ring[: edge + 1], [end, start], turned, [start, end], ring[edge + 1 :]]
        waiting[number] = np.concatenate(bridge)
    return waiting[0]


def _wind(rings, shape):
    """(box, int16 [x, y] of the box): how often the rings go about each pixel, within the plane.

    Directions count with their sign; a pixel is inside where the number is odd.
    """
    edges = [_edges(ring) for ring in rings if len(ring)]
    if not edges:
        return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.int16)
    low, high, direction = (np.concatenate(parts) for parts in zip(*edges, strict=True))
    both = np.concatenate([low, high])
    starts = np.clip(both.min(0) // _UNITS, 0, shape)
    stops = np.clip(-(-both.max(0) // _UNITS) + 1, starts, shape)
    box = tuple(slice(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True))
    width, height = (int(n) for n in stops - starts)
    if not width or not height:
        return box, np.zeros((width, height), np.int16)
    # In each row of pixels that an edge crosses, its lower end included, the number changes there.
    first = np.clip(-(-low[:, 1] // _UNITS), starts[1], stops[1])
    counts = np.clip(-(-high[:, 1] // _UNITS), starts[1], stops[1]) - first
    used = np.flatnonzero(counts > 0)
    changes = np.zeros(height * (width + 1), np.int16)
    for part in np.array_split(used, 1 + int(counts.sum()) // _MOST_CROSSINGS):
        edge = np.repeat(part, counts[part])
        row = np.arange(len(edge)) - np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
        row += first[edge]
        (x0, y0), (dx, dy) = low[edge].T, (high - low)[edge].T
        column = (x0 * dy + (row * _UNITS - y0) * dx) // (dy * _UNITS) + 1
        place = (row - starts[1]) * (width + 1) + np.clip(column - starts[0], 0, width)
        sums = np.bincount(place, direction[edge], minlength=len(changes))
        changes += sums.astype(np.int64).astype(np.int16)  # wraps around: odd stays odd
    changes = changes.reshape(height, width + 1)[:, :width]
    return box, np.cumsum(changes, axis=1, dtype=np.int16).T


def _edges(ring):
    """Ends of every edge, int64 [N, 2] in parts of a pixel, the one of smaller y first; directions.

    So an edge and its way back have the same crossings, and cancel. Directions: 1 upward, else -1.
    """
    points = np.asarray(ring, np.float64)
    if not (np.abs(points) < FARTHEST_PX).all():
        raise ValueError(f"ring: expected finite points within {FARTHEST_PX} pixels")
    start = np.rint(points * _UNITS).astype(np.int64)
    end = np.roll(start, -1, axis=0)
    upward = (start[:, 1] <= end[:, 1])[:, None]
    ends = np.where(upward, start, end), np.where(upward, end, start)
    return *ends, np.where(upward[:, 0], 1.0, -1.0)


def _between_centres(ring: np.ndarray) -> np.ndarray:
    """An outline's points kept clear of the pixel centres between which they lie.

    Each lies on a line between two neighbouring centres, so one coordinate is a whole number.
    """
    centre = np.rint(ring)
    off = np.abs(ring - centre)
    moves = off == off.max(1, keepdims=True)
    low = np.floor(ring)
    return np.where(moves, low + np.clip(ring - low, _CLEARANCE_PX, 1 - _CLEARANCE_PX), centre)


def _bridge_y(ring: np.ndarray) -> float:
    """Where a bridge may start: in the middle of the edge that is farthest from pixel centres."""
    ends = np.roll(ring[:, 1], -1)
    middle = (ring[:, 1] + ends) / 2
    distance = np.where(ring[:, 1] == ends, 1, np.abs(middle % 1 - 0.5))
    return float(middle[np.argmin(distance)])


def _crossings(ring: np.ndarray, y: float) -> tuple[np.ndarray, np.ndarray]:
    """The edges that cross the line at y, by the number of their first point, and where."""
    ends = np.roll(ring, -1, axis=0)
    edges = np.flatnonzero((ring[:, 1] <= y) != (ends[:, 1] <= y))
    (x0, y0), (x1, y1) = ring[edges].T, ends[edges].T
    return edges, x0 + (y - y0) * (x1 - x0) / (y1 - y0)
