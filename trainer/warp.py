"""Geometric augmentation: one deformation per example, applied to image and labels together.

Pixel p of the result is read at this position of the source, where c is the centre of the image:
    source(p) = c + rotation(flip(p - c)) / scale + shift + elastic(p)
Rows run from front to back, columns from the patient's right to the left.
"""

import numpy as np
import tensorflow as tf

from trainer.strengths import ELASTIC_GRID_PX


def control_shape(height: int, width: int) -> tuple[int, int, int]:
    """Shape of one example's elastic displacements: [rows and columns, gh, gw]."""
    return (2, _spline_weights(height).shape[1], _spline_weights(width).shape[1])


def positions(height, width, *, flips, rotation, scale, shift, control=None):
    """Computes the source position of each pixel: rows and columns, float32 [N, H, W], in pixels.

    flips: Two [N] of -1.0 or 1.0, for rows and columns.
    rotation: [N], radians; positive turns the image clockwise.
    scale: [N]; above 1 enlarges.
    shift: Two [N], pixels, for rows and columns; positive moves the image up and to the left.
    control: [N, 2, gh, gw], displacements of the control points in pixels, or None.
    """
    cy, cx = (height - 1) / 2, (width - 1) / 2
    dy = (np.arange(height, dtype=np.float32) - cy)[:, None] * flips[0][:, None, None]
    dx = (np.arange(width, dtype=np.float32) - cx)[None, :] * flips[1][:, None, None]
    cos, sin = ((f(rotation) / scale)[:, None, None] for f in (tf.cos, tf.sin))
    rows = cy + cos * dy - sin * dx + shift[0][:, None, None]
    columns = cx + sin * dy + cos * dx + shift[1][:, None, None]
    if control is None:
        return rows, columns
    down, across = (tf.constant(_spline_weights(side)) for side in (height, width))
    elastic = tf.einsum("hi,nkij,wj->knhw", down, control, across)
    return rows + elastic[0], columns + elastic[1]


def resample(images, labels, rows, columns):
    """Resamples images and labels at the given positions; 0 (air, background) outside.

    images: [N, H, W, C] of any dtype; interpolated linearly, returned as float32.
    labels: uint8 [N, H, W]; each pixel takes the label with the largest linear weight.
    rows, columns: float32 [N, H, W], pixels.
    """
    # On rotated and scaled ellipses of the organs' sizes, the label of largest weight loses a fifth
    # less Dice than the nearest label (esophagus: 0.967 against 0.959 of the exact shape), for
    # about 1 % of a training step on a CPU.
    height, width = labels.shape[1:]
    rows = tf.clip_by_value(rows, -1.0, float(height))
    columns = tf.clip_by_value(columns, -1.0, float(width))
    top, left = tf.floor(rows), tf.floor(columns)
    down, across = rows - top, columns - left
    # One pixel of padding before and two after, so that all four neighbours exist.
    stride = width + 3
    # int32 sums would run on the host. float32 is exact to 2^24, enough for offsets within a slice
    # but not within a batch.
    first = (top + 1) * stride + left + 1
    corners = [tf.cast(first + offset, tf.int32) for offset in (0, 1, stride, stride + 1)]
    words = _pack(images, labels)
    pixels = [_unpack(tf.gather(words, at, batch_dims=1), images) for at in corners]
    image_corners, label_corners = zip(*pixels, strict=True)
    weights = [(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across]
    return _blend(image_corners, down, across), _vote(label_corners, weights)


def _pack(images, labels):
    """Packs image and label of each pixel into words, int32 [N, (H + 3) (W + 3), words].

    Each slice is padded with 0. One gather then serves images and labels, in a dtype that has a
    GPU kernel, unlike uint8.
    """
    height, width = labels.shape[1:]
    parts = [
        tf.reshape(tf.bitcast(values, tf.uint8), [-1, height, width, size])
        for values, size in ((images, _bytes(images)), (labels, 1))
    ]
    size = _bytes(images) + 1
    words = -(-size // 4)
    margin = [[0, 0], [1, 2], [1, 2], [0, 4 * words - size]]
    padded = tf.pad(tf.concat(parts, -1), margin)
    flat = tf.reshape(padded, [-1, (height + 3) * (width + 3), words, 4])
    return tf.bitcast(flat, tf.int32)


def _unpack(words, images):
    """Inverse of `_pack`: words [N, H, W, words] to float32 [N, H, W, C] and uint8 [N, H, W]."""
    height, width, channels = words.shape[1], words.shape[2], images.shape[3]
    pixels = tf.reshape(tf.bitcast(words, tf.uint8), [-1, height, width, 4 * words.shape[3]])
    image = pixels[..., : _bytes(images)]
    if images.dtype != tf.uint8:
        image = tf.reshape(image, [-1, height, width, channels, images.dtype.size])
        image = tf.bitcast(image, images.dtype)
    return tf.cast(image, tf.float32), pixels[..., _bytes(images)]


def _bytes(images) -> int:
    """Number of bytes of one pixel of the image."""
    return images.shape[3] * images.dtype.size


def _blend(corners, down, across):
    """Bilinear interpolation of four corners, float32 [N, H, W, C] each."""
    down, across = down[..., None], across[..., None]
    a, b, c, d = corners
    upper, lower = a + (b - a) * across, c + (d - c) * across
    return upper + (lower - upper) * down


def _vote(corners, weights):
    """Selects the label with the largest sum of weights over the four corners."""

    def votes(label):
        same = (tf.where(c == label, w, 0.0) for c, w in zip(corners, weights, strict=True))
        return tf.add_n(list(same))

    best, most = corners[0], votes(corners[0])
    for corner in corners[1:]:
        weight = votes(corner)
        best, most = tf.where(weight > most, corner, best), tf.maximum(weight, most)
    return best


def _spline_weights(side: int) -> np.ndarray:
    """Weight of each control point at each pixel, float32 [side, g]; rows sum to 1."""
    position = np.arange(side) / ELASTIC_GRID_PX
    cell = position.astype(int)
    t = position - cell
    # The four pieces of the uniform cubic B-spline.
    pieces = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    weights = np.zeros((side, cell[-1] + 4), np.float32)
    for offset, piece in enumerate(pieces):
        weights[np.arange(side), cell + offset] = piece / 6
    return weights
