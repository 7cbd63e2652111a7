"""Geometry of augmentation: one map per example, one resampling of image and labels together.

The map says for each pixel of the result where in the source it comes from. With c the centre of
the image, at pixel p:
    source(p) = c + rotation(flip(p - c)) / scale + shift + elastic(p)
Rows run from front to back and columns from the patient's right to the left.
"""

import numpy as np
import tensorflow as tf

from trainer.strengths import ELASTIC_GRID_PX


def control_shape(height: int, width: int) -> tuple[int, int, int]:
    """[2, gh, gw] of the control points of one example's elastic map (rows, columns)."""
    return (2, _spline_weights(height).shape[1], _spline_weights(width).shape[1])


def positions(height, width, *, flips, rotation, scale, shift, control=None):
    """Where each pixel of the result comes from: rows and columns, float32 [N, H, W], in pixels.

    flips: -1.0 or 1.0, a pair of [N], for rows and columns. rotation: radians [N]; positive turns
    the picture clockwise. scale: [N], above 1 enlarges. shift: pixels, a pair of [N]; positive
    moves the picture up and to the left. control: displacements of the control points in pixels,
    [N, 2, gh, gw], or None.
    """
    cy, cx = (height - 1) / 2, (width - 1) / 2
    dy = (tf.range(height, dtype=tf.float32) - cy)[:, None] * flips[0][:, None, None]
    dx = (tf.range(width, dtype=tf.float32) - cx)[None, :] * flips[1][:, None, None]
    cos, sin = ((f(rotation) / scale)[:, None, None] for f in (tf.cos, tf.sin))
    rows = cy + cos * dy - sin * dx + shift[0][:, None, None]
    columns = cx + sin * dy + cos * dx + shift[1][:, None, None]
    if control is None:
        return rows, columns
    down, across = (tf.constant(_spline_weights(side)) for side in (height, width))
    elastic = tf.einsum("hi,nkij,wj->knhw", down, control, across)
    return rows + elastic[0], columns + elastic[1]


def resample(images, labels, rows, columns):
    """The image and its labels at the given positions; outside is 0, air and background.

    images: [N, H, W, C], interpolated linearly, returned as float32. labels: uint8 [N, H, W]; each
    pixel takes the label that has the largest linear weight. On ellipses of the organs' sizes,
    turned and scaled, that loses a fifth less Dice than the nearest label (esophagus 0.967 against
    0.959 of the exact shape) for about 1 % of a training step on a CPU.
    """
    batch, height, width = tf.shape(labels)[0], labels.shape[1], labels.shape[2]
    rows = tf.clip_by_value(rows, -1.0, float(height))
    columns = tf.clip_by_value(columns, -1.0, float(width))
    top, left = tf.floor(rows), tf.floor(columns)
    down, across = rows - top, columns - left
    # One pixel of air before and two after, so that all four neighbours exist.
    stride = width + 3
    first = tf.range(batch)[:, None, None] * ((height + 3) * stride)
    first += (tf.cast(top, tf.int32) + 1) * stride + tf.cast(left, tf.int32) + 1
    corners = [first, first + 1, first + stride, first + stride + 1]
    margin = [[0, 0], [1, 2], [1, 2]]
    flat_labels = tf.reshape(tf.pad(labels, margin), [-1])
    flat_images = tf.reshape(tf.pad(images, [*margin, [0, 0]]), [-1, images.shape[3]])
    weights = [(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across]
    return (
        _blend([tf.gather(flat_images, at) for at in corners], down, across),
        _vote([tf.gather(flat_labels, at) for at in corners], weights),
    )


def _blend(corners, down, across):
    down, across = down[..., None], across[..., None]
    a, b, c, d = (tf.cast(corner, tf.float32) for corner in corners)
    upper, lower = a + (b - a) * across, c + (d - c) * across
    return upper + (lower - upper) * down


def _vote(corners, weights):
    """The label that gathers most weight from the four corners."""

    def votes(label):
        same = (tf.where(c == label, w, 0.0) for c, w in zip(corners, weights, strict=True))
        return tf.add_n(list(same))

    best, most = corners[0], votes(corners[0])
    for corner in corners[1:]:
        found = votes(corner)
        best, most = tf.where(found > most, corner, best), tf.maximum(found, most)
    return best


def _spline_weights(side: int) -> np.ndarray:
    """[side, g] float32: what each control point adds to each pixel; rows sum to 1."""
    place = np.arange(side) / ELASTIC_GRID_PX
    cell = place.astype(int)
    t = place - cell
    # The four pieces of the uniform cubic B-spline.
    pieces = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    weights = np.zeros((side, cell[-1] + 4), np.float32)
    for offset, piece in enumerate(pieces):
        weights[np.arange(side), cell + offset] = piece / 6
    return weights
