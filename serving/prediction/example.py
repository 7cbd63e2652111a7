"""The example stored with a model: an input, and the output that it must give wherever it runs."""

import io

import numpy as np

from segthor import files
from segthor import model_directory as directory
from segthor.errors import InputError, message_line
from segthor.recipe import Recipe

# Another processor adds in another order and a GPU may round factors to 10 bits: probabilities
# then differ in the third decimal. A wrong weight or a wrong scale moves them far more.
EXAMPLE_TOLERANCE = 0.02


def images(recipe: Recipe) -> np.ndarray:
    """uint8 [2, H, W, C]: a body-like disc with discs inside, noisy; every grey level occurs."""
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
    """Raises InputError where a loaded `Bundle`, by its engine, does not give the stored output."""
    path = directory.asset(bundle.folder, directory.EXAMPLE)
    stored = files.read_bytes(path)
    try:
        with np.load(io.BytesIO(stored)) as example:
            expected = dict(example)
        given = expected.pop("images")
        differences = [bundle.run(name, given) - value for name, value in expected.items()]
        worst = max(float(np.abs(difference).max()) for difference in differences)
    except Exception as error:  # a damaged zip, another shape: numpy and engines raise many kinds
        reason = message_line(error)
        raise InputError(f"{path}: the stored example cannot be tried ({reason})") from error
    if not worst <= EXAMPLE_TOLERANCE:
        raise InputError(
            f"{bundle.folder}: the stored example should give the stored output, but differs by "
            f"{worst:.3f} (at most {EXAMPLE_TOLERANCE}); the model is damaged, export it again"
        )
