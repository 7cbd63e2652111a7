"""A small picture of a patient whose audit found something."""

import base64
import io

import numpy as np
from PIL import Image

from beam_jobs.examine import Examined
from segthor import drawing
from segthor.metrics import without
from segthor.organs import Organs

_SIDE_PX = 160


def png_base64(examined: Examined, organs: Organs) -> str:
    """An axial and a coronal slice side by side, contours drawn where they fit; '' without CT."""
    if examined.scans is None:
        return ""
    hu, (z_mm, y_mm, x_mm) = examined.scans.ct.zyx, examined.scans.ct.spacing_mm
    contours = examined.scans.contours
    labels = None
    if contours and contours.zyx.shape == hu.shape:
        labels = without(contours.left_out, contours.zyx)
    z, y = _places(labels, hu.shape)
    axial = _tile(hu[z], None if labels is None else labels[z], (y_mm, x_mm), organs)
    coronal = None if labels is None else labels[::-1, y]
    coronal = _tile(hu[::-1, y], coronal, (z_mm, x_mm), organs)
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
        shown = Image.fromarray(np.ascontiguousarray(labels))
        truth = np.asarray(shown.resize(size, Image.Resampling.NEAREST))
    tile = np.zeros((_SIDE_PX, _SIDE_PX, 3), np.uint8)
    top, left = (_SIDE_PX - height) // 2, (_SIDE_PX - width) // 2
    tile[top : top + height, left : left + width] = drawing.overlay(
        small, predicted=truth, organs=organs
    )
    return tile
