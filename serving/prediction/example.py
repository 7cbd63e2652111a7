"""The example stored with a model: an input, and the output that it must give on every machine."""

import io

import numpy as np
import tensorflow as tf

from segthor import files
from segthor import model_directory as directory
from segthor.errors import InputError, message_line
from segthor.recipe import Recipe

# Another processor sums in another order, and a GPU may round factors to 10 bits (TF32), so that
# probabilities differ in the third decimal. A wrong weight or scale changes them far more.
EXAMPLE_TOLERANCE = 0.02


def make(recipe: Recipe, signatures: dict, names) -> bytes:
    """Makes the content of example.npz: images, and what these signatures give for them."""
    given = images(recipe)
    outputs = {
        name: call(images=tf.constant(given))[name].numpy()
        for name, call in signatures.items()
        if name in names
    }
    stream = io.BytesIO()
    np.savez_compressed(stream, images=given, **outputs)
    return stream.getvalue()


def images(recipe: Recipe) -> np.ndarray:
    """Makes noisy discs within a body-like ellipse, uint8 [2, H, W, C]; all grey levels occur."""
    size = recipe.size_px
    y, x = np.mgrid[:size, :size] / size - 0.5
    noise = np.random.default_rng(0).normal(0, 12, (2, size, size, recipe.context))
    plane = np.where(np.hypot(x / 0.45, y / 0.3) < 1, 120.0, 0.0)
    plane[np.hypot(x - 0.08, y + 0.02) < 0.12] = 190
    plane[np.hypot(x, y - 0.12) < 0.04] = 160
    plane[np.hypot(x + 0.02, y - 0.05) < 0.035] = 0
    plane += np.linspace(0, 40, size)
    return np.clip(plane[None, :, :, None] + noise, 0, 255).astype(np.uint8)


def check(bundle) -> None:
    """Raises InputError if a loaded `Bundle` does not give the stored output of its example."""
    path = directory.asset(bundle.folder, directory.EXAMPLE)
    stored = files.read_bytes(path)
    try:
        with np.load(io.BytesIO(stored)) as example:
            expected = dict(example)
        given = expected.pop("images")
        differences = [bundle.run(name, given) - value for name, value in expected.items()]
        worst = max(float(np.abs(difference).max()) for difference in differences)
    except Exception as error:  # for a damaged zip or another shape, numpy and engines raise many
        reason = message_line(error)
        raise InputError(f"{path}: the stored example cannot be run ({reason})") from error
    if not worst <= EXAMPLE_TOLERANCE:  # also for NaN
        raise InputError(
            f"{bundle.folder}: expected the stored output of the stored example within "
            f"{EXAMPLE_TOLERANCE}, found a difference of {worst:.3f}; the model is damaged, export "
            "it again"
        )
