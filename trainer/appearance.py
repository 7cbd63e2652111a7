"""Augmentation of grey values, float32 [N, H, W, C] of 0 to 255, for each example separately.

The order is that in which an image is made: resolution, noise, window, display, filters, missing
parts.
"""

import numpy as np
import tensorflow as tf

WHITE = 255.0
# numpy: a tensor made on import would initialise the devices before they are configured.
_SMOOTH = np.float32([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
_DIAGONAL = np.float32([[-1, -1, 0], [-1, 0, 1], [0, 1, 1]])
_SELF = np.float32([[0, 0, 0], [0, 1, 0], [0, 0, 0]])


def change(images, choices, noise, strengths):
    """Applies all changes whose strength is not 0.

    choices: Name to uniform numbers in [0, 1), [N].
    noise: Standard normal numbers [N, H, W, C]; None if the strength of noise is 0.
    strengths: `trainer.strengths.Strengths`.
    """
    s = strengths
    damage = {
        name: sometimes(choices[name], s.probability)
        for name in ("blur", "low_resolution", "sharpen", "emboss", "noise", "cutout")
    }
    if s.blur_px or s.low_resolution:
        pixel = 1 + damage["low_resolution"] * s.low_resolution
        images = degrade(images, damage["blur"] * s.blur_px, pixel)
    if s.noise:
        images += noise * _per_example(damage["noise"] * s.noise * WHITE)
    if s.window_level or s.window_width:
        level = both_ways(choices["window_level"]) * s.window_level
        images = rewindow(images, level, factor(choices["window_width"], s.window_width))
    if s.gamma:
        images = bend(images, factor(choices["gamma"], s.gamma))
    if s.contrast or s.brightness:
        added = both_ways(choices["brightness"]) * s.brightness * WHITE
        images = stretch(images, factor(choices["contrast"], s.contrast), added)
    if s.sharpen or s.emboss:
        images = emphasise(images, damage["sharpen"] * s.sharpen, damage["emboss"] * s.emboss)
    if s.cutout:
        sides = damage["cutout"] * s.cutout, choices["cutout_aspect"] * s.cutout
        images = cut_out(images, sides, (choices["cutout_row"], choices["cutout_column"]))
    return tf.clip_by_value(images, 0.0, WHITE)


def both_ways(number):
    """Maps numbers in [0, 1) to [-1, 1)."""
    return 2 * number - 1


def factor(number, strength):
    """Maps numbers in [0, 1) to factors between 1 / (1 + strength) and 1 + strength."""
    return tf.pow(1.0 + strength, both_ways(number))


def sometimes(number, probability):
    """Maps numbers in [0, 1) to 0, or with the given probability to uniform numbers in [0, 1)."""
    return tf.where(number < probability, number / max(probability, 1e-9), 0.0)


def degrade(images, blur_px, pixel):
    """Blurs with a Gaussian and lowers the resolution.

    blur_px: [N], standard deviation in pixels.
    pixel: [N], factor of the pixel size, at least 1.
    """
    # Both are separable: one matrix per example and axis. The kernels are renormalised at the
    # border, so that uniform grey stays uniform.
    down, across = (
        _coarse_matrix(side, pixel) @ _blur_matrix(side, blur_px) for side in images.shape[1:3]
    )
    return tf.einsum("nij,njwc,nkw->nikc", down, images, across)


def rewindow(images, level, width):
    """Moves the window by `level` [N] of its width and widens it by the factor `width` [N].

    Values that the stored window clipped stay clipped.
    """
    centred = images / WHITE - 0.5
    return tf.clip_by_value(
        ((centred - _per_example(level)) / _per_example(width) + 0.5) * WHITE, 0.0, WHITE
    )


def bend(images, exponent):
    """Gamma correction with `exponent` [N]; black and white stay."""
    return tf.pow(tf.clip_by_value(images / WHITE, 0.0, 1.0), _per_example(exponent)) * WHITE


def stretch(images, contrast, added):
    """Multiplies the contrast about each example's mean by [N], then adds grey levels [N]."""
    mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
    return (images - mean) * _per_example(contrast) + mean + _per_example(added)


def emphasise(images, sharpen, emboss):
    """Adds an unsharp mask (3x3 binomial) and the gradient to the lower right, by amounts [N]."""
    sharpen, emboss = (amount[:, None, None] for amount in (sharpen, emboss))
    kernels = _SELF + sharpen * (_SELF - _SMOOTH) + emboss * _DIAGONAL
    batch = tf.shape(images)[0]
    height, width, channels = images.shape[1:]
    # One depthwise convolution filters all examples, whose channels become its channels.
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    wide = tf.reshape(tf.transpose(padded, [1, 2, 0, 3]), [1, height + 2, width + 2, -1])
    # All channels of an example have the same kernel.
    kernels = tf.transpose(kernels, [1, 2, 0])[..., None] * np.ones(channels, np.float32)
    kernels = tf.reshape(kernels, [3, 3, -1, 1])
    filtered = tf.nn.depthwise_conv2d(wide, kernels, [1, 1, 1, 1], "VALID")
    return tf.transpose(tf.reshape(filtered, [height, width, batch, channels]), [2, 0, 1, 3])


def cut_out(images, sides, centres):
    """Fills a rectangle with the example's mean grey.

    The labels stay, so that the network learns to infer organs from their surroundings.

    sides, centres: Pairs of [N] for rows and columns, as shares of the image.
    """
    mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
    inside = []
    for axis, size in enumerate(images.shape[1:3]):
        position = (np.arange(size, dtype=np.float32) + 0.5) / size
        inside.append(tf.abs(position - centres[axis][:, None]) < sides[axis][:, None] / 2)
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return tf.where(hole[..., None], mean, images)


def _per_example(values):
    return values[:, None, None, None]


def _blur_matrix(side, sigma_px):
    """Gaussian kernels as matrices [N, side, side]; rows sum to 1, identity where sigma is 0."""
    position = np.arange(side, dtype=np.float32)
    distance = (position[:, None] - position) / tf.maximum(sigma_px, 1e-3)[:, None, None]
    weights = tf.exp(-(distance**2) / 2)
    return weights / tf.reduce_sum(weights, axis=-1, keepdims=True)


def _coarse_matrix(side, pixel):
    """Matrices [N, side, side] that average cells of `pixel` pixels and interpolate between them.

    The border may cut off the last cell. Identity where `pixel` is 1.
    """
    position = np.arange(side, dtype=np.float32)
    pixel = pixel[:, None, None]
    first, last = position[:, None] * pixel, (position[:, None] + 1) * pixel
    covered = tf.maximum(tf.minimum(last, position + 1) - tf.maximum(first, position), 0.0)
    means = covered / tf.maximum(tf.reduce_sum(covered, axis=-1, keepdims=True), 1e-6)
    cells = tf.math.ceil(side / pixel - 1e-4)
    centre = tf.clip_by_value((position[:, None] + 0.5) / pixel - 0.5, 0.0, cells - 1)
    return tf.maximum(1 - tf.abs(centre - position), 0.0) @ means
