"""Grey values of augmentation: float32 [N, H, W, C] between 0 and 255, each example by itself.

In the order of an image's making: resolution, noise, window, display, filters, missing parts.
`choices` are numbers in [0, 1), [N] each, by name; `strengths` is `trainer.strengths.Strengths`.
"""

import numpy as np
import tensorflow as tf

WHITE = 255.0
# No tensors: one made on import would start the devices before a program has arranged them.
_SMOOTH = np.float32([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
_DIAGONAL = np.float32([[-1, -1, 0], [-1, 0, 1], [0, 1, 1]])
_SELF = np.float32([[0, 0, 0], [0, 1, 0], [0, 0, 0]])


def change(images, choices, noise, strengths):
    """All of it; noise: standard normal [N, H, W, C], or None where its strength is 0."""
    s = strengths
    damage = {
        name: sometimes(choices[name], s.probability)
        for name in ("blur", "low_resolution", "sharpen", "emboss", "noise", "cutout")
    }
    if s.blur_px or s.low_resolution:
        images = degrade(
            images, damage["blur"] * s.blur_px, 1 + damage["low_resolution"] * s.low_resolution
        )
    if s.noise:
        images += noise * _each(damage["noise"] * s.noise * WHITE)
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
        centres = choices["cutout_row"], choices["cutout_column"]
        images = cut_out(images, sides, centres)
    return tf.clip_by_value(images, 0.0, WHITE)


def both_ways(number):
    """A number in [0, 1) to one in [-1, 1)."""
    return 2 * number - 1


def factor(number, strength):
    """A number in [0, 1) to a factor between 1 / (1 + strength) and 1 + strength."""
    return tf.pow(1.0 + strength, both_ways(number))


def sometimes(number, probability):
    """A number in [0, 1): 0 but for the share `probability`, which spreads over [0, 1)."""
    return tf.where(number < probability, number / max(probability, 1e-9), 0.0)


def degrade(images, blur_px, pixel):
    """Gaussian blur (standard deviation [N], pixels), then pixels `pixel` [N] times as large.

    Both act on rows and columns separately, so that each example has one matrix per axis. At the
    border the kernel is cut off and weighted up: what is uniform stays so.
    """
    down, across = (
        _coarse_matrix(side, pixel) @ _blur_matrix(side, blur_px) for side in images.shape[1:3]
    )
    return tf.einsum("nij,njwc,nkw->nikc", down, images, across)


def rewindow(images, level, width):
    """The window moved by `level` [N] of its width and widened by the factor `width` [N].

    What the stored window cut off stays cut off.
    """
    centred = images / WHITE - 0.5
    return tf.clip_by_value(((centred - _each(level)) / _each(width) + 0.5) * WHITE, 0.0, WHITE)


def bend(images, exponent):
    """Gamma: black and white stay, the greys between are raised to `exponent` [N]."""
    return tf.pow(tf.clip_by_value(images / WHITE, 0.0, 1.0), _each(exponent)) * WHITE


def stretch(images, contrast, added):
    """Contrast [N] about each example's mean, then `added` [N] grey levels."""
    mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
    return (images - mean) * _each(contrast) + mean + _each(added)


def emphasise(images, sharpen, emboss):
    """Unsharp mask of the 3x3 binomial and the gradient to the lower right, by amounts [N]."""
    sharpen, emboss = (amount[:, None, None] for amount in (sharpen, emboss))
    kernels = _SELF + sharpen * (_SELF - _SMOOTH) + emboss * _DIAGONAL
    batch = tf.shape(images)[0]
    height, width, channels = images.shape[1:]
    # One depthwise convolution whose channels are all examples' channels.
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    wide = tf.reshape(tf.transpose(padded, [1, 2, 0, 3]), [1, height + 2, width + 2, -1])
    # Every channel of an example has the example's kernel.
    kernels = tf.transpose(kernels, [1, 2, 0])[..., None] * np.ones(channels, np.float32)
    kernels = tf.reshape(kernels, [3, 3, -1, 1])
    filtered = tf.nn.depthwise_conv2d(wide, kernels, [1, 1, 1, 1], "VALID")
    return tf.transpose(tf.reshape(filtered, [height, width, batch, channels]), [2, 0, 1, 3])


def cut_out(images, sides, centres):
    """A rectangle of the example's mean grey; sides and centres: pairs of [N], shares of the image.

    The labels stay: what is under it must be told from what is around it.
    """
    mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
    inside = []
    for axis, size in enumerate(images.shape[1:3]):
        place = (np.arange(size, dtype=np.float32) + 0.5) / size
        inside.append(tf.abs(place - centres[axis][:, None]) < sides[axis][:, None] / 2)
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return tf.where(hole[..., None], mean, images)


def _each(values):
    return values[:, None, None, None]


def _blur_matrix(side, sigma_px):
    """[N, side, side], rows sum to 1; the identity where sigma is 0."""
    place = np.arange(side, dtype=np.float32)
    distance = (place[:, None] - place) / tf.maximum(sigma_px, 1e-3)[:, None, None]
    weights = tf.exp(-(distance**2) / 2)
    return weights / tf.reduce_sum(weights, axis=-1, keepdims=True)


def _coarse_matrix(side, pixel):
    """[N, side, side]: means over cells `pixel` wide, then linear between the cells' centres.

    The last cell may be cut short by the border. The identity where `pixel` is 1.
    """
    place = np.arange(side, dtype=np.float32)
    pixel = pixel[:, None, None]
    first, last = place[:, None] * pixel, (place[:, None] + 1) * pixel
    covered = tf.minimum(last, place + 1) - tf.maximum(first, place)
    covered = tf.maximum(covered, 0.0)
    means = covered / tf.maximum(tf.reduce_sum(covered, axis=-1, keepdims=True), 1e-6)
    cells = tf.math.ceil(side / pixel - 1e-4)
    at = tf.clip_by_value((place[:, None] + 0.5) / pixel - 0.5, 0.0, cells - 1)
    return tf.maximum(1 - tf.abs(at - place), 0.0) @ means
