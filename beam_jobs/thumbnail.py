"""A small picture of a patient with findings, for the page about the audit."""

import base64
import io

import numpy as np
from PIL import Image

from beam_jobs.examine import Examined
from segthor import drawing
from segthor.metrics import without
from segthor.organs import Organs

_SIDE_PX = 160


def encode_png(examined: Examined, organs: Organs) -> str:
    """PNG in base64: an axial and a coronal slice, with contours where they have the CT's shape.

    '' where the CT could not be read.
    """
    if examined.scans is None:
        return ""
    ct = examined.scans.ct
    hu, (z_mm, y_mm, x_mm), planes = ct.zyx, ct.spacing_mm, ct.grid.planes
    contours = examined.scans.contours
    labels = None
    if contours and contours.zyx.shape == hu.shape:
        labels = without(contours.left_out, contours.zyx)
    z, y = _choose_slices(labels, hu.shape)
    axial = _draw_tile(hu[z], None if labels is None else labels[z], (y_mm, x_mm), organs)
    rows, z_mm = (planes.to_even, planes.even_step_mm) if planes else (np.arange(len(hu)), z_mm)
    coronal = None if labels is None else labels[rows[::-1], y]
    coronal = _draw_tile(hu[rows[::-1], y], coronal, (z_mm, x_mm), organs)
    stream = io.BytesIO()
    Image.fromarray(np.concatenate([axial, coronal], axis=1)).save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def _choose_slices(labels, shape) -> tuple[int, int]:
    """(z, y) of the axial and the coronal slice with most labelled pixels, else of the middle."""
    if labels is None or not labels.any():
        return shape[0] // 2, shape[1] // 2
    z = int((labels != 0).sum((1, 2)).argmax())
    return z, int((labels[z] != 0).sum(1).argmax())


def _draw_tile(hu: np.ndarray, labels: np.ndarray | None, spacing_mm, organs: Organs) -> np.ndarray:
    """uint8 [_SIDE_PX, _SIDE_PX, 3]: the slice at equal scale along both axes, centred on black."""
    grey = drawing.mediastinum(np.nan_to_num(np.asarray(hu, np.float32)))
    extent_mm = np.multiply(hu.shape, spacing_mm)
    height, width = np.maximum(1, np.rint(_SIDE_PX * extent_mm / extent_mm.max()).astype(int))
    size = (int(width), int(height))
    small = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR))
    if labels is not None:
        labels = Image.fromarray(np.ascontiguousarray(labels))
        labels = np.asarray(labels.resize(size, Image.Resampling.NEAREST))
    tile = np.zeros((_SIDE_PX, _SIDE_PX, 3), np.uint8)
    top, left = (_SIDE_PX - height) // 2, (_SIDE_PX - width) // 2
    drawn = drawing.overlay(small, predicted=labels, organs=organs)
    tile[top : top + height, left : left + width] = drawn
    return tile
