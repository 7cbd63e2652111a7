"""Where things lie in a model directory: FOLDER/<version>/assets/<file>. No tensorflow.

The package that writes it and the trainer, which may begin with its weights, agree here.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import uuid

import fsspec
import numpy as np

from segthor import files, json_files, locks
from segthor.errors import InputError
from segthor.organs import SEGTHOR, Organs
from segthor.recipe import Recipe

MODEL, RECIPE, ORGANS, TRAINING = "model.json", "recipe.json", "organs.json", "training.json"
TABLE, EXAMPLE, RULES = "organ_table.json", "example.npz", "postprocess.json"
REVIEW, REVIEW_PLOT, WEIGHTS = "review.json", "review.png", "weights.json"
FORMAT = 1


def newest(folder: str) -> str:
    """FOLDER's highest version, or FOLDER itself if it is one; InputError where there is none."""
    if files.exists(files.join(folder, "saved_model.pb")):
        return folder.rstrip("/")
    found = versions(folder) if files.is_dir(folder) else []
    if not found:
        raise InputError(
            f"{folder}: expected a model directory with a version (1, 2, ...), found none; "
            "make one with python -m serving.export --workdir=... --output=..."
        )
    return files.join(folder, str(max(found)))


def versions(folder: str) -> list[int]:
    """The whole versions in an existing folder; one that is being uploaded has no model yet."""
    found = [name for name in files.listdir(folder) if _is_number(name)]
    return [int(n) for n in found if files.exists(files.join(folder, n, "saved_model.pb"))]


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()  # "²" is a digit, and no number


def asset(version: str, name: str) -> str:
    """The path of an asset."""
    return files.join(version, "assets", name)


def digest(version: str) -> str:
    """What names the weights; InputError where the model is of another format."""
    model = json_files.read(asset(version, MODEL))
    found = model.get("format") if isinstance(model, dict) else "something else"
    if found != FORMAT or not isinstance(model.get("digest"), str):
        raise InputError(
            f"{version}: expected a model of format {FORMAT} with its digest, found {found}; "
            "export it again with python -m serving.export"
        )
    return model["digest"]


def bytes_digest(content: bytes) -> str:
    """Names a file of the model by its content."""
    return hashlib.sha256(content).hexdigest()[:16]


def weights_digest(
    weights, recipe: Recipe, names, organs: Organs, weight_names: list[str] | None = None
) -> str:
    """What `digest` must be: of arrays, recipe, the network's organs, their table, weights' names.

    What SegTHOR's table and weights without names would add is left out, so that models from before
    there was another table, or names, keep their digest.
    """
    more = [] if organs == SEGTHOR else [organs.digest()]
    more += [] if weight_names is None else [weight_names]
    found = hashlib.sha256(json.dumps([recipe.digest(), list(names), *more]).encode())
    for array in weights:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def weight_names(version: str) -> list[str] | None:
    """The names of the SavedModel's weights, in their order; None where it was exported without.

    Raises:
      InputError: they make no sense.
    """
    path = asset(version, WEIGHTS)
    if not files.exists(path):
        return None
    found = json_files.read(path)
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise InputError(f"{path}: expected a list of names; export the model again")
    return found


def table(version: str) -> Organs:
    """The table of the organs that the model's dataset held; SegTHOR's for models from before it.

    Raises:
      InputError: it makes no sense.
    """
    path = asset(version, TABLE)
    if not files.exists(path):
        return SEGTHOR
    try:
        return Organs.from_json(json_files.read(path), path)
    except InputError as error:
        raise InputError(f"{error}; export the model again") from error


def publish(folder: str, write) -> str:
    """Has `write(path)` write a SavedModel, makes it the next version and returns that.

    A version is there whole or not at all: renamed into place or, where that is no single step,
    copied with saved_model.pb last.
    """
    if files.is_url(folder):
        with tempfile.TemporaryDirectory() as above:
            source = os.path.join(above, "model")
            write(source)
            version = _next(folder)
            _upload(source, version)
            return version
    with locks.alone(folder):
        files.remove_partial(folder)  # of exports that were killed
        temporary = os.path.join(folder, f"{files.TEMPORARY_PREFIX}{uuid.uuid4().hex}")
        try:
            write(temporary)
            version = _next(folder)
            os.rename(temporary, version)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return version


@contextlib.contextmanager
def local(version: str):
    """The version's path, or that of a copy which lives as long as the block."""
    if not files.is_url(version):
        yield version
        return
    with tempfile.TemporaryDirectory() as folder:
        system, inner = fsspec.core.url_to_fs(version)
        system.get(inner.rstrip("/") + "/", folder, recursive=True)
        yield folder


def _next(folder: str) -> str:
    # A version that an interrupted upload left half is passed over, too.
    taken = [int(name) for name in files.listdir(folder) if _is_number(name)]
    return files.join(folder, str(max(taken, default=0) + 1))


def _upload(source: str, version: str) -> None:
    system, inner = fsspec.core.url_to_fs(version)
    paths = [os.path.join(above, name) for above, _, names in os.walk(source) for name in names]
    for path in sorted(paths, key=lambda path: path.endswith("saved_model.pb")):
        target = f"{inner}/{os.path.relpath(path, source)}"
        system.makedirs(target.rpartition("/")[0], exist_ok=True)
        system.put_file(path, target)
