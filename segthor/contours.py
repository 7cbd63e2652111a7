"""Polygons and masks of one plane: filling, nesting, outlines, keyholes. Numpy and contourpy.

A plane is [X, Y]; a point is (x, y) in pixels, pixel centres at whole numbers. A ring is float64
[N, 2], N >= 3, closed by itself: its first point is not repeated. A pixel is inside where its
centre is, even-odd. A centre exactly on an edge belongs to the side of smaller x, and on an edge
along x to the side of larger y, so rings that share an edge never share or leave out a pixel. (Of
the eight such rules this one is nearest to how plastimatch fills LUNG1-002's five organs.)
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from contourpy import FillType, contour_generator

FARTHEST_PX = 1 << 14  # beyond this, whole numbers of 64 bits no longer hold the products below
_UNITS = 1 << 16  # points are rounded to this part of a pixel, so that every comparison is exact
_MOST_CROSSINGS = 1 << 21  # at once, so that memory stays bounded
_SAME_PX = 0.1  # rings nearer than this coincide: planning systems round to 0.01 or 0.1 mm
_CLEARANCE_PX = 0.02  # between an outline and a pixel's centre: far above a rounding to 0.001 mm
_LEAST_MARGIN = 1e-6


def fill(rings, shape: tuple[int, int]) -> np.ndarray:
    """bool [X, Y]: the pixels whose centres an odd number of the rings holds.

    Raises ValueError for points that are not finite or lie beyond FARTHEST_PX.
    """
    plane = np.zeros(shape, bool)
    box, mask = _fill_box(rings, shape)
    plane[box] = mask
    return plane


def combine(rings, shape: tuple[int, int]) -> tuple[np.ndarray, Counter]:
    """One organ's rings on one plane as clinical systems read them, and what was met on the way.

    A ring inside another is a hole (and one inside a hole is an island); one that coincides with
    another is dropped; rings that cross are united. Returns bool [X, Y] and how many rings were
    'contour_nested', 'contour_duplicate', 'contour_crossing' or held no pixel: 'contour_tiny'.
    Raises ValueError as `fill`.
    """
    plane, found, pieces = np.zeros(shape, bool), Counter(), []
    for ring in rings:
        box, mask = _fill_box([ring], shape)
        if mask.any():
            pieces.append(_Piece(np.asarray(ring, np.float64), box, mask))
        else:
            found["contour_tiny"] += 1
    groups, depths = _arrange(pieces, found)
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


def _fill_box(rings, shape):
    """(box, bool mask [x, y] of the box): even-odd of all rings, within the plane."""
    edges = [_edges(ring) for ring in rings if len(ring)]
    if not edges:
        return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), bool)
    low, high = (np.concatenate(ends) for ends in zip(*edges, strict=True))
    both = np.concatenate([low, high])
    starts = np.clip(both.min(0) // _UNITS, 0, shape)
    stops = np.clip(-(-both.max(0) // _UNITS) + 1, starts, shape)
    box = tuple(slice(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True))
    width, height = (int(n) for n in stops - starts)
    if not width or not height:
        return box, np.zeros((width, height), bool)
    # Each row of pixels that an edge crosses, its lower end included, changes side there.
    first = np.clip(-(-low[:, 1] // _UNITS), starts[1], stops[1])
    counts = np.clip(-(-high[:, 1] // _UNITS), starts[1], stops[1]) - first
    used = np.flatnonzero(counts > 0)
    toggles = np.zeros(height * (width + 1), np.uint8)
    for part in np.array_split(used, 1 + int(counts.sum()) // _MOST_CROSSINGS):
        edge = np.repeat(part, counts[part])
        row = np.arange(len(edge)) - np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
        row += first[edge]
        (x0, y0), (dx, dy) = low[edge].T, (high - low)[edge].T
        column = (x0 * dy + (row * _UNITS - y0) * dx) // (dy * _UNITS) + 1
        place = (row - starts[1]) * (width + 1) + np.clip(column - starts[0], 0, width)
        toggles ^= (np.bincount(place, minlength=len(toggles)) & 1).astype(np.uint8)
    toggles = toggles.reshape(height, width + 1)[:, :width]
    return box, np.bitwise_xor.accumulate(toggles, axis=1).astype(bool).T


def _edges(ring):
    """Both ends of every edge, int64 [N, 2] each in parts of a pixel, the one of smaller y first.

    So an edge and its way back have the same crossings, and cancel.
    """
    points = np.asarray(ring, np.float64)
    if not (np.abs(points) < FARTHEST_PX).all():
        raise ValueError(f"ring: expected finite points within {FARTHEST_PX} pixels")
    start = np.rint(points * _UNITS).astype(np.int64)
    end = np.roll(start, -1, axis=0)
    upward = (start[:, 1] <= end[:, 1])[:, None]
    return np.where(upward, start, end), np.where(upward, end, start)


@dataclass(frozen=True, eq=False)
class _Piece:
    """One filled ring: bool mask [x, y] within `box`."""

    ring: np.ndarray
    box: tuple[slice, slice]
    mask: np.ndarray

    def within(self, box) -> np.ndarray:
        """The mask as seen from another box inside its own."""
        return self.mask[
            tuple(
                slice(part.start - own.start, part.stop - own.start)
                for part, own in zip(box, self.box, strict=True)
            )
        ]


def _arrange(pieces: list[_Piece], found: Counter):
    """(groups of crossing pieces, how many groups hold each); counts what was met in `found`."""
    lone, owner, holds = set(range(len(pieces))), list(range(len(pieces))), []
    crossing = set()
    for i, j in _touching(pieces):
        if i not in lone or j not in lone:
            continue
        relation = _relation(pieces[i], pieces[j])
        if relation == "same":
            lone.discard(j)
            found["contour_duplicate"] += 1
        elif relation == "crossing":
            crossing |= {i, j}
            old, new = owner[j], owner[i]
            owner = [new if one == old else one for one in owner]
        elif relation:
            holds.append((i, j) if relation == "first" else (j, i))
    holds = {(owner[a], owner[b]) for a, b in holds if a in lone and b in lone}
    names = sorted({owner[i] for i in lone})
    groups = [[pieces[i] for i in sorted(lone) if owner[i] == name] for name in names]
    depths = [sum((other, name) in holds for other in names if other != name) for name in names]
    nested = sum(len(group) for group, depth in zip(groups, depths, strict=True) if depth)
    found += Counter(contour_crossing=len(crossing & lone), contour_nested=nested)
    return groups, depths


def _touching(pieces):
    """Pairs (i, j), i < j, whose boxes share pixels."""
    boxes = np.array([[(p.start, p.stop) for p in piece.box] for piece in pieces], int)
    for i in range(len(pieces) - 1):
        rest = boxes[i + 1 :]
        shared = (rest[..., 0] < boxes[i, :, 1]) & (boxes[i, :, 0] < rest[..., 1])
        for j in np.flatnonzero(shared.all(1)):
            yield i, int(j) + i + 1


def _relation(a: _Piece, b: _Piece) -> str | None:
    """'same', 'first' where a holds b, 'second' where b holds a, 'crossing', or None: apart."""
    shared = tuple(
        slice(max(p.start, q.start), min(p.stop, q.stop)) for p, q in zip(a.box, b.box, strict=True)
    )
    common = np.count_nonzero(a.within(shared) & b.within(shared))
    if not common:
        return None
    if _is_along(a.ring, b.ring) and _is_along(b.ring, a.ring):
        return "same"
    if common == np.count_nonzero(b.mask) and _is_in(b.ring, a.ring):
        return "first"
    if common == np.count_nonzero(a.mask) and _is_in(a.ring, b.ring):
        return "second"
    return "crossing"


def _is_in(points: np.ndarray, ring: np.ndarray) -> bool:
    """Whether every point lies inside the ring, or so near it that it may touch."""
    for some in _portions(points, ring):
        x, y = some.T[..., None]
        (x0, y0), (x1, y1) = ring.T, np.roll(ring, -1, axis=0).T
        with np.errstate(divide="ignore", invalid="ignore"):
            crossed = ((y0 <= y) != (y1 <= y)) & (x0 + (y - y0) * (x1 - x0) / (y1 - y0) < x)
        outside = some[np.count_nonzero(crossed, axis=1) % 2 == 0]
        if len(outside) and not _is_along(outside, ring):
            return False
    return True


def _is_along(points: np.ndarray, ring: np.ndarray) -> bool:
    """Whether every point lies on the ring, or nearer than rings can be told apart."""
    dx, dy = (np.roll(ring, -1, axis=0) - ring).T
    length = np.maximum(dx * dx + dy * dy, 1e-12)
    for some in _portions(points, ring):
        x, y = some.T[..., None] - ring.T[:, None]
        share = np.clip((x * dx + y * dy) / length, 0, 1)
        distance = (x - share * dx) ** 2 + (y - share * dy) ** 2
        if distance.min(1).max() > _SAME_PX**2:
            return False
    return True


def _portions(points, ring):
    """The points in portions that together with the ring fit into memory."""
    return np.array_split(points, 1 + len(points) * len(ring) // _MOST_CROSSINGS)


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
