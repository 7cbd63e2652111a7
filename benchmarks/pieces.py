"""Cuts the organs of phantoms into pieces: label maps with any number of organs.

Heart and lungs are cut like a cake, so that the bounding boxes of pieces overlap. The other organs
are tubes, and are cut across.
"""

import colorsys
import itertools

import numpy as np

from segthor.errors import InputError
from segthor.organs import MOST_LABEL, Organ, Organs

_CUT_LIKE_A_CAKE = ("heart", "lung_left", "lung_right")


def piece_table(organs: Organs, count: int) -> Organs:
    """A table of `count` pieces: heart_1, heart_2, ... in the order of `organs`, labels from 1.

    If the division leaves a remainder, the first organs get one piece more. Pieces have neither
    plausible ranges nor relations.

    Raises:
      InputError: Fewer pieces than organs, or more than label maps can hold.
    """
    if not len(organs) <= count <= MOST_LABEL:
        raise InputError(f"{count} pieces; expected {len(organs)} (one an organ) to {MOST_LABEL}")
    names = [f"{name}_{i}" for name, n in _counts(organs, count) for i in range(1, n + 1)]
    colours = [colorsys.hsv_to_rgb(i / count, 0.7, 1.0) for i in range(count)]
    rgb = [tuple(round(255 * part) for part in colour) for colour in colours]
    return Organs(tuple(Organ(name, i + 1, rgb[i]) for i, name in enumerate(names)))


def cut(labels: np.ndarray, affine: np.ndarray, organs: Organs, count: int) -> np.ndarray:
    """Converts a label map uint8 [X, Y, Z] of `organs` to one of `piece_table(organs, count)`.

    The numbers of voxels of an organ's pieces differ by at most one; an organ with fewer voxels
    than pieces lacks the last ones. affine: [4, 4], voxel index to RAS+ mm.
    """
    pieces = np.zeros_like(labels)
    counts = _counts(organs, count)
    first_labels = itertools.accumulate((n for _, n in counts), initial=1)
    for (name, parts), first in zip(counts, first_labels, strict=False):
        where = np.nonzero(labels == organs[name].label)
        x, y, z = affine[:3, :3] @ np.stack(where)
        is_cake = name in _CUT_LIKE_A_CAKE
        position = np.arctan2(y - y.mean(), x - x.mean()) if is_cake and len(x) else z
        order = np.argsort(position, kind="stable")
        piece = np.empty(len(order), np.uint8)
        piece[order] = np.arange(len(order)) * parts // max(len(order), parts)
        pieces[where] = first + piece
    return pieces


def _counts(organs, count):
    """(organ's name, number of its pieces)."""
    each, more = divmod(count, len(organs))
    return [(name, each + (i < more)) for i, name in enumerate(organs.names)]
