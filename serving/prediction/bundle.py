"""Writes and reads a model directory: a SavedModel with all that is needed to use it.

FOLDER/<version>/ as TensorFlow Serving expects it, and in assets/:

  recipe.json    how a scan becomes the network's input (segthor.recipe)
  organs.json    what the network's classes mean: names, label values, colours
  organ_table.json  every organ of the dataset, with all that its table says (segthor.organs)
  training.json  the run that made the network
  weights.json   the layers' names of the SavedModel's weights, in their order (may be missing)
  model.json     digests of the weights and of training.json, versions of the libraries
  example.npz    an input and the output it must give
  postprocess.json  what is done to each organ afterwards (from serving.tune; may be missing)
  model_card.md, model_card.json  what the model is, for people (serving.card; may be missing)

It loads with `tf.saved_model.load`, without Keras and without this package.
"""

import json
import os
import tempfile
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from segthor import fields, files, json_files
from segthor import model_directory as directory
from segthor.errors import InputError, message_line
from segthor.organs import BACKGROUND, Organs
from segthor.recipe import Recipe
from serving.prediction import engine as engines
from serving.prediction import example, postprocess, signatures
from serving.prediction.fitting import AdaptiveBatches
from serving.prediction.signatures import PRESENCE, PROBABILITIES


@dataclass(frozen=True)
class Bundle:
    """A loaded model directory.

    folder: Folder of the version.
    recipe: How scans are prepared.
    organs: Names of the network's classes after the background, in their order.
    digest: Digest of the weights and of what belongs to them.
    training: Content of training.json.
    signatures: Name to a callable of tensors.
    rules: Organ to its post-processing, which `serving.tune` stores.
    table: All organs of the dataset.
    engine: Name of the inference engine.
    other_engine: Output to a callable of arrays, for outputs that TensorFlow does not compute.
    fitting: Output to its `AdaptiveBatches`.
    """

    folder: str
    recipe: Recipe
    organs: tuple[str, ...]
    digest: str
    training: dict
    signatures: dict
    rules: dict
    table: Organs
    engine: str = engines.TENSORFLOW
    other_engine: dict = field(default_factory=dict)
    fitting: dict = field(default_factory=dict)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Class probabilities float32 [N, H, W, K] of windowed images uint8 [N, H, W, C]."""
        return self.run(PROBABILITIES, images)

    def presence(self, images: np.ndarray) -> np.ndarray:
        """Probabilities float32 [N, K - 1] that windowed slices uint8 [N, H, W, C] hold organs."""
        return self.run(PRESENCE, images)

    def require(self, output: str) -> "Bundle":
        """Returns itself; raises InputError if the model does not have this output."""
        if output not in self.signatures:
            raise InputError(
                f"{self.folder}: expected a model that gives {output}, found "
                f"{', '.join(sorted(self.signatures))}; was it trained with another --task?"
            )
        return self

    def run(self, output: str, images: np.ndarray) -> np.ndarray:
        """Computes an output for images uint8 [N, H, W, C]."""
        if output in self.other_engine:
            return self.other_engine[output](images)
        network = self.fitting.setdefault(output, AdaptiveBatches())
        return network.run(lambda some: self.signatures[output](images=some)[output], images)


def label_values(names, organs: Organs) -> np.ndarray:
    """Label values of background and these organs, uint8 [K], in this order."""
    return np.array([BACKGROUND, *organs.labels(names)], np.uint8)


@dataclass(frozen=True)
class Contents:
    """What a model directory holds beside its network.

    recipe: How scans are prepared.
    names: Names of the network's classes 1 to K - 1.
    organs: The dataset's table.
    training: Content of training.json.
    versions: Library to its version.
    weight_names: Names of the variables, for runs that start from the model; None: not known.
    """

    recipe: Recipe
    names: tuple[str, ...]
    organs: Organs
    training: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    weight_names: list[str] | None = None

    def digest(self, variables) -> str:
        """Digest of the weights and of what belongs to them."""
        arrays = (variable.numpy() for variable in variables)
        names, organs = self.names, self.organs
        return directory.weights_digest(arrays, self.recipe, names, organs, self.weight_names)

    def assets(self, digest: str) -> dict[str, bytes]:
        """Name to content of the files in assets/, but for example.npz."""
        training = _json(self.training)
        model = {
            "format": directory.FORMAT,
            "digest": digest,
            "training": directory.bytes_digest(training),
            "versions": self.versions,
        }
        assets = {
            directory.RECIPE: _json(self.recipe.to_json()),
            directory.ORGANS: _json(_organ_rows(self.names, self.organs)),
            directory.TABLE: _json(self.organs.to_json()),
            directory.TRAINING: training,
            directory.MODEL: _json(model),
        }
        if self.weight_names is not None:
            assets[directory.WEIGHTS] = _json(self.weight_names)
        return assets


def save(folder: str, network, variables, contents: Contents) -> str:
    """Writes the next FOLDER/<version>/ under a temporary name, then renames it; returns its path.

    network: Callable from float32 [N, H, W, C] of 0..255 to a dict of its outputs, float32:
      'probabilities' [N, H, W, K] that sum to 1, or 'presence' [N, K - 1], or both.
    variables: All tf.Variables that `network` reads.
    """
    recipe = contents.recipe
    made = signatures.make(network, recipe, label_values(contents.names, contents.organs))
    assets = contents.assets(contents.digest(variables))
    assets[directory.EXAMPLE] = example.make(recipe, made, (PROBABILITIES, PRESENCE))
    with tempfile.TemporaryDirectory() as source:
        servable = tf.Module(name="segthor")  # holds the variables; a Keras object would need Keras
        servable.weights, servable.assets = list(variables), []
        for name, content in assets.items():
            with open(os.path.join(source, name), "wb") as stream:
                stream.write(content)
            servable.assets.append(tf.saved_model.Asset(stream.name))
        try:
            return directory.publish(folder, lambda path: tf.saved_model.save(servable, path, made))
        except tf.errors.OpError as error:  # a full or read-only disk
            reason = message_line(error)
            raise InputError(f"{folder}: the model cannot be written there ({reason})") from error


def load(folder: str, engine: str = engines.TENSORFLOW) -> Bundle:
    """Loads the highest version in a folder, or the folder if it is one, and runs its example.

    engine: One of `engine.ENGINES`; TensorFlow computes what another engine does not.

    Raises:
      InputError: There is no model, or one of another format, or it is damaged.
    """
    version = directory.newest(folder)
    digest, contents = directory.digest(version), _read_contents(version)
    loaded, others = _load_network(version, engine)
    if digest != contents.digest(getattr(loaded, "weights", ())):
        raise InputError(
            f"{version}: weights, recipe.json, organs.json, organ_table.json or weights.json are "
            "not those that were exported; export the model again"
        )
    bundle = Bundle(
        folder=version,
        recipe=contents.recipe,
        organs=contents.names,
        digest=digest,
        training=contents.training,
        signatures={name: _bind_owner(call, loaded) for name, call in loaded.signatures.items()},
        rules=postprocess.load(version, contents.organs),
        table=contents.organs,
        engine=engine,
        other_engine=others,
    )
    example.check(bundle)
    return bundle


def _load_network(version: str, engine: str):
    """Loads the SavedModel; returns it, and what another engine computes, by output."""
    try:
        with directory.local(version) as path:
            loaded = tf.saved_model.load(path)
            return loaded, engines.with_openvino(path) if engine == engines.OPENVINO else {}
    except InputError:
        raise
    except Exception as error:  # TensorFlow raises many classes for a damaged file
        reason = message_line(error)
        raise InputError(f"{version}: the SavedModel cannot be loaded ({reason})") from error


def _read_contents(version: str) -> Contents:
    """Reads the files in assets/, without versions; raises InputError if one is invalid."""
    organs = directory.table(version)

    def asset(name):
        return json_files.read(directory.asset(version, name))

    try:
        recipe = fields.from_json(Recipe, asset(directory.RECIPE), "recipe")
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"{version}: recipe.json is invalid ({error})") from error
    rows, training = asset(directory.ORGANS), asset(directory.TRAINING)
    try:
        names = tuple(row["name"] for row in rows if row["label"])
        known = bool(names) and rows == _organ_rows(names, organs)
    except (TypeError, KeyError):
        known = False
    if not known:
        raise InputError(
            f"{version}: organs.json does not list organs as the table numbers them "
            f"({', '.join(organs.names)}); export the model again"
        )
    _check_training(version, training)
    weight_names = directory.weight_names(version)
    return Contents(recipe, names, organs, training, weight_names=weight_names)


def _check_training(version: str, training) -> None:
    """Raises InputError if training.json is invalid or of another model."""
    if not isinstance(training, dict) or not isinstance(training.get("config", {}), dict):
        raise InputError(f"{version}: training.json is invalid; export the model again")
    # It holds the measures of the training patients, so one of another model misleads reviews.
    digest = directory.bytes_digest(files.read_bytes(directory.asset(version, directory.TRAINING)))
    model = json_files.read(directory.asset(version, directory.MODEL))
    if model.get("training") != digest:
        raise InputError(
            f"{version}: training.json is not of this very model; export the model again"
        )


def _bind_owner(function, owner):
    """Wraps a signature so that it keeps the loaded object alive, which owns its variables."""
    return lambda **inputs: function(**inputs) if owner else None


def _organ_rows(names, organs: Organs) -> list[dict]:
    """The content of organs.json: a row per class."""
    rows = [{"name": "background", "label": BACKGROUND, "rgb": [0, 0, 0]}]
    known = (organs[name] for name in names)
    return rows + [{"name": o.name, "label": o.label, "rgb": list(o.rgb)} for o in known]


def _json(value) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
