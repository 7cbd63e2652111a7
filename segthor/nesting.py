"""Finds which rings of one organ on a plane contain others, coincide or cross.

A ring is float64 [N, 2] in pixels, as in `segthor.contours`.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from segthor.boxes import relative

_MOST_COMPARED = 1 << 30  # pixels and pairs of points to compare on one plane; takes some seconds
_PAIR = 1 << 15  # least cost of comparing two rings, in the same unit
_SAME_PX = 0.1  # rings nearer than this coincide: planning systems round to 0.01 or 0.1 mm
_MOST_AT_ONCE = 1 << 21  # pairs of points to compare at once, to bound memory


class TooManyRings(Exception):
    """More rings overlap on one plane than can be compared in a few seconds."""


@dataclass(frozen=True, eq=False)
class Piece:
    """One filled ring.

    ring: Its points.
    box: Its bounding box.
    mask: bool [x, y] of the box.
    """

    ring: np.ndarray
    box: tuple[slice, slice]
    mask: np.ndarray

    def within(self, box) -> np.ndarray:
        """The mask of another box inside its own box."""
        return self.mask[relative(box, self.box)]


def arrange(pieces: list[Piece], counts: Counter):
    """Groups pieces that cross, and finds how deep the groups are nested.

    counts: Code to number of rings; adds 'contour_duplicate', 'contour_crossing' and
      'contour_nested'.

    Returns:
      The groups of pieces without duplicates, and for each the number of groups that contain it.
    """
    unique, relations = _compare(pieces)
    crossing, contains, owner = set(), [], list(range(len(pieces)))
    for i, j, relation in relations:
        if relation == "crossing":
            crossing |= {i, j}
            old, new = owner[j], owner[i]
            owner = [new if one == old else one for one in owner]
        else:
            contains.append((i, j) if relation == "first" else (j, i))
    contains = {(owner[a], owner[b]) for a, b in contains if a in unique and b in unique}
    names = sorted({owner[i] for i in unique})
    groups = [[pieces[i] for i in sorted(unique) if owner[i] == name] for name in names]
    depths = [sum((other, name) in contains for other in names if other != name) for name in names]
    nested = sum(len(group) for group, depth in zip(groups, depths, strict=True) if depth)
    counts += Counter(
        contour_duplicate=len(pieces) - len(unique),
        contour_crossing=len(crossing & unique),
        contour_nested=nested,
    )
    return groups, depths


def _compare(pieces) -> tuple[set[int], list[tuple[int, int, str]]]:
    """The numbers of the pieces without duplicates, and (i, j, relation) of pieces that overlap."""
    unique, relations, cost = set(range(len(pieces))), [], 0
    for i, j in _touching(pieces):
        if i not in unique or j not in unique:
            continue
        cost += _cost(pieces[i], pieces[j])
        if cost > _MOST_COMPARED:
            raise TooManyRings
        relation = _relation(pieces[i], pieces[j])
        if relation == "same":
            unique.discard(j)
        elif relation:
            relations.append((i, j, relation))
    return unique, relations


def _cost(a: Piece, b: Piece) -> int:
    """The cost of comparing two pieces: pixels and pairs of points."""
    return min(a.mask.size, b.mask.size) + len(a.ring) * len(b.ring) + _PAIR


def _touching(pieces):
    """Pairs (i, j), i < j, whose boxes share pixels."""
    boxes = np.array([[(p.start, p.stop) for p in piece.box] for piece in pieces], int)
    for i in range(len(pieces) - 1):
        rest = boxes[i + 1 :]
        shared = (rest[..., 0] < boxes[i, :, 1]) & (boxes[i, :, 0] < rest[..., 1])
        for j in np.flatnonzero(shared.all(1)):
            yield i, int(j) + i + 1


def _relation(a: Piece, b: Piece) -> str | None:
    """'same', 'first' if a contains b, 'second' if b contains a, 'crossing', or None if apart."""
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
    """Whether every point lies inside the ring or on it, see `_is_along`."""
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
    """Whether every point lies on the ring, within _SAME_PX."""
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
    """The points in parts, each of which fits into memory when compared with the whole ring."""
    return np.array_split(points, 1 + len(points) * len(ring) // _MOST_AT_ONCE)
