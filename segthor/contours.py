"""Polygons and masks of one plane: filling, nesting, outlines, keyholes. Numpy and contourpy.

A plane is [X, Y]; a point is (x, y) in pixels, with pixel centres at integers. A ring is a closed
polygon, float64 [N, 2] with N >= 3; its first point is not repeated. A pixel is inside a ring if
its centre is, by the even-odd rule. A centre exactly on an edge belongs to the side of smaller x,
and on an edge along x to the side of larger y, so that no pixel belongs to both or neither of two
rings that share an edge. (Of the eight such rules this one is closest to plastimatch on the five
organs of LUNG1-002.)
"""

from collections import Counter

import numpy as np
from contourpy import FillType, contour_generator

from segthor import nesting
from segthor.boxes import support

FARTHEST_PX = 1 << 14  # with larger coordinates the products in `_wind` would overflow 64 bits
_UNITS = 1 << 16  # points are rounded to 1 / _UNITS pixel, so that comparisons are exact
_MOST_CROSSINGS = 1 << 21  # processed at once, to bound memory
_CLEARANCE_PX = 0.02  # between outline and pixel centres; files round points to 0.001 mm
_LEAST_MARGIN = 1e-6


def fill(rings, shape: tuple[int, int]) -> np.ndarray:
    """Fills rings by the even-odd rule; bool [X, Y].

    Raises:
      ValueError: A point is not finite or lies beyond FARTHEST_PX.
    """
    plane = np.zeros(shape, bool)
    box, winding = _wind(rings, shape)
    plane[box] = winding & 1
    return plane


def combine(rings, shape: tuple[int, int]) -> tuple[np.ndarray, Counter]:
    """Combines the rings of one organ on one plane, as clinical systems do.

    A ring inside another is a hole, and one inside a hole is an island. Of rings that coincide one
    is used. Rings that cross are united.

    Returns:
      The mask, bool [X, Y], and the number of rings by code: 'contour_nested', 'contour_duplicate',
      'contour_crossing', 'contour_self_crossing' and, for rings without a pixel, 'contour_tiny'.

    Raises:
      nesting.TooManyRings: Too many rings overlap.
      ValueError: As `fill`.
    """
    counts, pieces = Counter(), []
    for ring in rings:
        box, winding = _wind([ring], shape)
        # All winding numbers of a ring that does not cross itself are 0 or 1, or 0 or -1.
        counts["contour_self_crossing"] += bool(winding.size and np.ptp(winding) > 1)
        mask = (winding & 1).astype(bool)
        if mask.any():
            pieces.append(nesting.Piece(np.asarray(ring, np.float64), box, mask))
        else:
            counts["contour_tiny"] += 1
    return _paint(*nesting.arrange(pieces, counts), shape), counts


def _paint(groups, depths, shape) -> np.ndarray:
    """bool [X, Y]: the groups of pieces; those in an odd number of others are holes."""
    plane = np.zeros(shape, bool)
    # From the outside in: each hole is cut before the island inside it is added.
    for depth, pieces in sorted(zip(depths, groups, strict=True), key=lambda pair: pair[0]):
        for piece in pieces:
            if depth % 2:
                plane[piece.box] &= ~piece.mask
            else:
                plane[piece.box] |= piece.mask
    return plane


def outline(inside: np.ndarray, margin: np.ndarray | None = None) -> list[list[np.ndarray]]:
    """The outline of a mask as rings; `fill` gives back exactly the mask.

    Returns a list of rings for each connected component: its outer ring, then its holes.

    inside: The mask, bool [X, Y].
    margin: float [X, Y] in [-1, 1], the organ's probability minus that of the best other class.
      The outline crosses from an inner to an outer pixel where the margin, interpolated, is 0;
      without a margin, or where its sign contradicts the mask, half-way between them.
    """
    ends = [(part.start, part.stop) for part in (support(inside.T), support(inside))]
    if not ends[0][1]:
        return []
    # The mask's bounding box and one pixel about it; pixels outside the plane are not in the mask.
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
    """Joins an outer ring and its holes to one ring, by bridges of no width.

    A bridge runs along x, forth and back over the same two points. It lies between rows of pixel
    centres, so it contains no pixel by any rule of filling.
    """
    outer, *holes = rings
    waiting = [outer, *holes]
    while len(waiting) > 1:
        hole = waiting.pop()
        y = _bridge_y(hole)
        own, x = _crossings(hole, y)
        last = int(np.argmax(x))
        start = np.array([x[last], y])
        # The bridge ends at the first edge to the right, of the outer ring or of another hole.
        hits = []
        for number, ring in enumerate(waiting):
            edges, crossed_x = _crossings(ring, y)
            hits += [
                (float(end_x), number, int(edge))
                for edge, end_x in zip(edges, crossed_x, strict=True)
                if end_x > start[0]
            ]
        end_x, number, edge = min(hits)
        rolled = np.roll(hole, -(own[last] + 1), axis=0)
        end = np.array([end_x, y])
        ring = waiting[number]
        parts = [ring[: edge + 1], [end, start], rolled, [start, end], ring[edge + 1 :]]
        waiting[number] = np.concatenate(parts)
    return waiting[0]


def _wind(rings, shape):
    """(bounding box, winding numbers int16 [x, y] of its pixels), within the plane.

    A pixel is inside where its winding number is odd.
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
    changes = _count_crossings(low, high, direction, starts, stops)
    return box, np.cumsum(changes[:, :width], axis=1, dtype=np.int16).T


def _count_crossings(low, high, direction, starts, stops) -> np.ndarray:
    """int16 [rows, columns + 1]: change of the winding number at each pixel of a box, along rows.

    An edge changes it by its direction in each row that it crosses; its lower end is included.
    """
    width, height = (int(n) for n in stops - starts)
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
        index = (row - starts[1]) * (width + 1) + np.clip(column - starts[0], 0, width)
        sums = np.bincount(index, direction[edge], minlength=len(changes))
        changes += sums.astype(np.int64).astype(np.int16)  # may wrap around; parity is unchanged
    return changes.reshape(height, width + 1)


def _edges(ring):
    """(low ends, high ends, directions) of all edges of a ring.

    Ends are int64 [N, 2] in units of 1 / _UNITS pixel, sorted by y, so that an edge and the same
    edge backwards have equal crossings and cancel. Directions are 1 towards larger y, else -1.
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
    """Moves the points of an outline to at least _CLEARANCE_PX from any pixel centre.

    Each point lies between two neighbouring pixel centres, so one of its coordinates is an integer.
    """
    centre = np.rint(ring)
    offset = np.abs(ring - centre)
    is_between = offset == offset.max(1, keepdims=True)
    low = np.floor(ring)
    clear = low + np.clip(ring - low, _CLEARANCE_PX, 1 - _CLEARANCE_PX)
    return np.where(is_between, clear, centre)


def _bridge_y(ring: np.ndarray) -> float:
    """y where a bridge starts: the middle of the edge that is farthest from pixel centres."""
    ends = np.roll(ring[:, 1], -1)
    middle = (ring[:, 1] + ends) / 2
    distance = np.where(ring[:, 1] == ends, 1, np.abs(middle % 1 - 0.5))
    return float(middle[np.argmin(distance)])


def _crossings(ring: np.ndarray, y: float) -> tuple[np.ndarray, np.ndarray]:
    """Edges that cross the line at y, as indices of their first points, and x of the crossings."""
    ends = np.roll(ring, -1, axis=0)
    edges = np.flatnonzero((ring[:, 1] <= y) != (ends[:, 1] <= y))
    (x0, y0), (x1, y1) = ring[edges].T, ends[edges].T
    return edges, x0 + (y - y0) * (x1 - x0) / (y1 - y0)
