"""A small picture of a patient whose audit found something."""

import base64
import io

import numpy as np
from PIL import Image

from beam_jobs.examine import Examined
from segthor import drawing
from segthor.geometry import canonical
from segthor.organs import SEGTHOR, Organs

_SIDE_PX = 160


def png_base64(examined: Examined, organs: Organs = SEGTHOR) -> str:
    """An axial and a coronal slice side by side, contours drawn where they fit; '' without CT."""
    if examined.scans is None:
        return ""
    grid = examined.scans.ct.grid
    contours = examined.scans.contours and examined.scans.contours.stored
    fitting = contours.array if contours and contours.grid.shape == grid.shape else None
    spacing, zyx, labels = canonical(grid.affine, examined.scans.ct.array, fitting)
    z, y = _places(labels, zyx.shape)
    axial = _tile(zyx[z], None if labels is None else labels[z], spacing[1:], organs)
    coronal = _tile(zyx[::-1, y], None if labels is None else labels[::-1, y], spacing[::2], organs)
    stream = io.BytesIO()
    Image.fromarray(np.concatenate([axial, coronal], axis=1)).save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def _places(labels, shape) -> tuple[int, int]:
    """The axial and the coronal slice that hold most labelled pixels; else the middle ones."""
    if labels is None or not labels.any():
        return shape[0] // 2, shape[1] // 2
    z = int((labels != 0).sum((1, 2)).argmax())
    return z, int((labels[z] != 0).sum(1).argmax())


def _tile(hu: np.ndarray, labels: np.ndarray | None, spacing_mm, organs: Organs) -> np.ndarray:
    """uint8 [side, side, 3]: the slice at equal scale along both axes, centred on black."""
    grey = drawing.mediastinum(np.nan_to_num(np.asarray(hu, np.float32)))
    extent_mm = np.multiply(hu.shape, spacing_mm)
    height, width = np.maximum(1, np.rint(_SIDE_PX * extent_mm / extent_mm.max()).astype(int))
    size = (int(width), int(height))
    small = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR))
    truth = None
    if labels is not None:
        known = np.where(np.isin(labels, organs.labels(organs.names)), labels, 0).astype(np.uint8)
        truth = np.asarray(Image.fromarray(known).resize(size, Image.Resampling.NEAREST))
    tile = np.zeros((_SIDE_PX, _SIDE_PX, 3), np.uint8)
    top, left = (_SIDE_PX - height) // 2, (_SIDE_PX - width) // 2
    tile[top : top + height, left : left + width] = drawing.overlay(
        small, predicted=truth, organs=organs
    )
    return tile
