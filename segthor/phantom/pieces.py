"""Organs cut into pieces: phantoms with as many organs as one likes, for benchmarks and tests.

Heart and lungs are cut like a cake, so that the boxes around pieces overlap; the others, which are
tubes, across.
"""

import colorsys
import itertools

import numpy as np

from segthor.errors import InputError
from segthor.organs import MOST_LABEL, Organ, Organs

_CUT_LIKE_A_CAKE = ("heart", "lung_left", "lung_right")


def piece_table(organs: Organs, count: int) -> Organs:
    """`count` pieces, labels 1 to `count`: heart_1, heart_2, ... in the order of `organs`.

    The first organs get one piece more than the last where they cannot all have as many. Pieces
    have no plausible ranges and no place: nothing is known of the pieces of real organs.

    Raises:
      InputError: fewer pieces than organs, or more than label maps hold.
    """
    if not len(organs) <= count <= MOST_LABEL:
        raise InputError(f"{count} pieces; expected {len(organs)} (one an organ) to {MOST_LABEL}")
    names = [f"{name}_{i}" for name, n in _counts(organs, count) for i in range(1, n + 1)]
    return Organs(tuple(Organ(name, i + 1, _rgb(i / count)) for i, name in enumerate(names)))


def cut(labels: np.ndarray, affine: np.ndarray, organs: Organs, count: int) -> np.ndarray:
    """A label map uint8 [X, Y, Z] of `organs` as one of `piece_table(organs, count)`.

    The pieces of an organ hold equally many voxels, or one more; an organ with fewer voxels than
    pieces lacks the last ones. affine: [4, 4], voxel index to RAS+ mm.
    """
    pieces = np.zeros_like(labels)
    counts = _counts(organs, count)
    first_labels = itertools.accumulate((n for _, n in counts), initial=1)
    for (name, parts), first in zip(counts, first_labels, strict=False):
        where = np.nonzero(labels == organs[name].label)
        x, y, z = affine[:3, :3] @ np.stack(where)
        cake = name in _CUT_LIKE_A_CAKE
        place = np.arctan2(y - y.mean(), x - x.mean()) if cake and len(x) else z
        order = np.argsort(place, kind="stable")
        piece = np.empty(len(order), np.uint8)
        piece[order] = np.arange(len(order)) * parts // max(len(order), parts)
        pieces[where] = first + piece
    return pieces


def _counts(organs, count):
    """(name, number of pieces) of each organ."""
    each, more = divmod(count, len(organs))
    return [(name, each + (i < more)) for i, name in enumerate(organs.names)]


def _rgb(hue):
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.7, 1.0))
