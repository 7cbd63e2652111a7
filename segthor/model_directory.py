"""The files of a model directory, FOLDER/<version>/assets/<file>. No tensorflow.

`serving` writes and reads it; the trainer may start from its weights.
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

from segthor import fields, files, json_files, locks
from segthor.errors import InputError
from segthor.organs import SEGTHOR, Organs
from segthor.recipe import Recipe

MODEL, RECIPE, ORGANS, TRAINING = "model.json", "recipe.json", "organs.json", "training.json"
TABLE, EXAMPLE, RULES = "organ_table.json", "example.npz", "postprocess.json"
REVIEW, REVIEW_PLOT, WEIGHTS = "review.json", "review.png", "weights.json"
FORMAT = 1


def newest(folder: str) -> str:
    """The highest version in `folder`, or `folder` if it is one; InputError where there is none."""
    if files.exists(files.join(folder, "saved_model.pb")):
        return folder.rstrip("/")
    numbers = versions(folder) if files.is_dir(folder) else []
    if not numbers:
        raise InputError(
            f"{folder}: expected a model directory with a version (1, 2, ...), found none; "
            "make one with python -m serving.export --workdir=... --output=..."
        )
    return files.join(folder, str(max(numbers)))


def versions(folder: str) -> list[int]:
    """The complete versions in a folder; a version that is being uploaded has no saved_model.pb."""
    names = _numbers_in(folder)
    return [int(n) for n in names if files.exists(files.join(folder, n, "saved_model.pb"))]


def _numbers_in(folder: str) -> list[str]:
    return [name for name in files.listdir(folder) if name.isascii() and name.isdecimal()]


def asset(version: str, name: str) -> str:
    """The path of an asset."""
    return files.join(version, "assets", name)


def digest(version: str) -> str:
    """The digest in model.json (see `weights_digest`); InputError for another format."""
    model = json_files.read(asset(version, MODEL))
    given = model.get("format") if isinstance(model, dict) else "something else"
    if given != FORMAT or not isinstance(model.get("digest"), str):
        raise InputError(
            f"{version}: expected a model of format {FORMAT} with its digest, found {given}; "
            "export it again with python -m serving.export"
        )
    return model["digest"]


def bytes_digest(content: bytes) -> str:
    """Digest of a file of the model, 16 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:16]


def weights_digest(
    weights, recipe: Recipe, names, organs: Organs, weight_names: list[str] | None = None
) -> str:
    """Digest of a model's weights, recipe, organs, table of organs and names of weights.

    SegTHOR's table and missing names add nothing, so that models from before other tables and names
    were possible keep their digest.
    """
    more = [] if organs == SEGTHOR else [organs.digest()]
    more += [] if weight_names is None else [weight_names]
    digest = hashlib.sha256(json.dumps([recipe.digest(), list(names), *more]).encode())
    for array in weights:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def weight_names(version: str) -> list[str] | None:
    """The names of the SavedModel's weights, in their order; None where the model has none.

    Raises:
      InputError: The file is damaged.
    """
    path = asset(version, WEIGHTS)
    if not files.exists(path):
        return None
    try:
        return list(fields.from_json(tuple[str, ...], json_files.read(path), path))
    except InputError as error:
        raise InputError(f"{error}; export the model again") from error


def table(version: str) -> Organs:
    """The table of organs of the model's dataset; InputError where it is missing or damaged."""
    path = asset(version, TABLE)
    try:
        return fields.from_json(Organs, json_files.read(path), path)
    except InputError as error:
        raise InputError(f"{error}; export the model again") from error


def publish(folder: str, write) -> str:
    """Calls `write(path)` to write a SavedModel, and makes it the next version; returns its path.

    No reader sees an incomplete version: it is renamed when complete or, for a URL, uploaded with
    saved_model.pb last.
    """
    if files.is_url(folder):
        with tempfile.TemporaryDirectory() as above:
            source = os.path.join(above, "model")
            write(source)
            version = _next(folder)
            _upload(source, version)
            return version
    with locks.lock_folder(folder):
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
    """Yields the path of the version, or for a URL that of a local copy, removed at the end."""
    if not files.is_url(version):
        yield version
        return
    with tempfile.TemporaryDirectory() as folder:
        system, inner = fsspec.core.url_to_fs(version)
        system.get(inner.rstrip("/") + "/", folder, recursive=True)
        yield folder


def _next(folder: str) -> str:
    # Counts incomplete versions of interrupted uploads, too.
    return files.join(folder, str(max(map(int, _numbers_in(folder)), default=0) + 1))


def _upload(source: str, version: str) -> None:
    system, inner = fsspec.core.url_to_fs(version)
    paths = [os.path.join(above, name) for above, _, names in os.walk(source) for name in names]
    for path in sorted(paths, key=lambda path: path.endswith("saved_model.pb")):
        target = f"{inner}/{os.path.relpath(path, source)}"
        system.makedirs(target.rpartition("/")[0], exist_ok=True)
        system.put_file(path, target)
