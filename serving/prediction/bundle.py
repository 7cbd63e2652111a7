"""The model directory: a SavedModel that explains itself; its writer and its reader.

FOLDER/<version>/ as TensorFlow Serving wants it, and inside assets/:

  recipe.json    how a scan becomes the network's input (segthor.recipe)
  organs.json    what the network's classes mean: names, label values, colours
  organ_table.json  every organ of the dataset, with all that its table says (segthor.organs)
  training.json  the run that made the network
  weights.json   the layers' names of the SavedModel's weights, in their order (may be missing)
  model.json     digests of the weights and of training.json, versions of the libraries
  example.npz    an input and the output it must give
  postprocess.json  what is done to each organ afterwards (from serving.tune; may be missing)

It loads with `tf.saved_model.load`, without Keras and without this package.
"""

import io
import json
import os
import tempfile
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from segthor import files, json_files
from segthor import model_directory as directory
from segthor.errors import InputError, message_line
from segthor.organs import BACKGROUND, Organs
from segthor.recipe import Recipe
from serving.prediction import engine as engines
from serving.prediction import example, postprocess
from serving.prediction.fitting import InFittingBatches

PROBABILITIES, PRESENCE = "probabilities", "presence"  # a signature and what it gives


@dataclass(frozen=True)
class Bundle:
    """A loaded model directory.

    organs: in the order of the network's classes, which start with background. table: the dataset's
    organs, of which the network may know some. digest: names the weights and what belongs to them.
    training: what the trainer recorded. signatures: name -> callable of tensors. rules: organ ->
    post-processing (`serving.tune` puts it there). other_engine: output -> callable of arrays, of
    what another engine than TensorFlow computes; engine: its name. fitting: output -> how many
    slices at once fit into memory.
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
        """uint8 [N, H, W, C], windowed, to float32 [N, H, W, K], which sum to 1 over K."""
        return self.run(PROBABILITIES, images)

    def presence(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, C], windowed, to float32 [N, K - 1]: whether a slice holds each organ."""
        return self.run(PRESENCE, images)

    def require(self, output: str) -> "Bundle":
        """Itself; raises InputError where the model does not give this output."""
        if output not in self.signatures:
            raise InputError(
                f"{self.folder}: expected a model that gives {output}, found "
                f"{', '.join(sorted(self.signatures))}; was it trained with another --task?"
            )
        return self

    def run(self, output: str, images: np.ndarray) -> np.ndarray:
        """One of its outputs for uint8 [N, H, W, C], by its engine."""
        if output in self.other_engine:
            return self.other_engine[output](images)
        network = self.fitting.setdefault(output, InFittingBatches())
        return network.run(lambda some: self.signatures[output](images=some)[output], images)


def label_values(names, organs: Organs) -> np.ndarray:
    """uint8 [K]: the label values of background and these organs, in this order."""
    return np.array([BACKGROUND, *organs.labels(names)], np.uint8)


def save(
    folder,
    network,
    variables,
    recipe: Recipe,
    names,
    training: dict,
    versions: dict,
    organs: Organs,
    weight_names: list[str] | None = None,
) -> str:
    """Writes the next FOLDER/<version>/ under a temporary name, then renames it.

    network: callable, float32 [N, H, W, C] of 0..255 to a dict of what it gives, float32:
      'probabilities' [N, H, W, K] that sum to 1, or 'presence' [N, K - 1], or both.
    variables: every tf.Variable that `network` reads. names: the organs of classes 1 to K - 1.
    organs: the dataset's table. weight_names: one for each of `variables`, by which a run that
      starts from the model finds them. Returns the folder of the version.
    """
    signatures = _signatures(network, recipe, label_values(names, organs))
    images = example.images(recipe)
    expected = {
        name: call(images=tf.constant(images))[name].numpy()
        for name, call in signatures.items()
        if name in (PROBABILITIES, PRESENCE)
    }
    weights = _arrays(variables)
    digest = directory.weights_digest(weights, recipe, names, organs, weight_names)
    assets = {
        directory.RECIPE: _json(recipe.to_json()),
        directory.ORGANS: _json(_organ_rows(names, organs)),
        directory.TABLE: _json(organs.to_json()),
        directory.TRAINING: _json(training),
        directory.MODEL: _json(
            {
                "format": directory.FORMAT,
                "digest": digest,
                "training": directory.bytes_digest(_json(training)),
                "versions": versions,
            }
        ),
        directory.EXAMPLE: _npz(images=images, **expected),
    }
    if weight_names is not None:
        assets[directory.WEIGHTS] = _json(weight_names)
    with tempfile.TemporaryDirectory() as source:
        servable = tf.Module(name="segthor")  # holds the variables, and no Keras object
        servable.weights, servable.assets = list(variables), []
        for name, content in assets.items():
            with open(os.path.join(source, name), "wb") as stream:
                stream.write(content)
            servable.assets.append(tf.saved_model.Asset(stream.name))
        try:
            return directory.publish(
                folder, lambda path: tf.saved_model.save(servable, path, signatures)
            )
        except tf.errors.OpError as error:  # what TensorFlow makes of a full or read-only disk
            reason = message_line(error)
            raise InputError(f"{folder}: the model cannot be written there ({reason})") from error


def load(folder: str, engine: str = engines.TENSORFLOW) -> Bundle:
    """Loads FOLDER's highest version (or FOLDER itself, if it is one) and tries the example.

    engine: one of `engine.ENGINES`; TensorFlow computes what another one does not.

    Raises:
      InputError: no model there, one of another format, or one that does not give the stored
        output.
    """
    version = directory.newest(folder)
    digest = directory.digest(version)
    organs, weight_names = directory.table(version), directory.weight_names(version)
    recipe, names, training = _assets(version, organs)
    try:
        with directory.local(version) as path:
            loaded = tf.saved_model.load(path)
            others = engines.with_openvino(path) if engine == engines.OPENVINO else {}
    except InputError:
        raise
    except Exception as error:  # tensorflow raises many kinds for a file that is damaged
        reason = message_line(error)
        raise InputError(f"{version}: the SavedModel cannot be loaded ({reason})") from error
    weights = _arrays(getattr(loaded, "weights", ()))
    if digest != directory.weights_digest(weights, recipe, names, organs, weight_names):
        raise InputError(
            f"{version}: weights, recipe.json, organs.json, organ_table.json or weights.json are "
            "not those that were exported; export the model again"
        )
    bundle = Bundle(
        folder=version,
        recipe=recipe,
        organs=names,
        digest=digest,
        training=training,
        # The loaded object owns the variables; without it they would be freed.
        signatures={name: _kept(call, loaded) for name, call in loaded.signatures.items()},
        rules=postprocess.load(version, organs),
        table=organs,
        engine=engine,
        other_engine=others,
    )
    example.check(bundle)
    return bundle


def _assets(version: str, organs: Organs) -> tuple[Recipe, tuple[str, ...], dict]:
    """Recipe, organs and training record; raises InputError where they make no sense."""

    def asset(name):
        return json_files.read(directory.asset(version, name))

    try:
        recipe = Recipe.from_json(asset(directory.RECIPE))
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"{version}: recipe.json makes no sense ({error})") from error
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
    if not isinstance(training, dict) or not isinstance(training.get("config", {}), dict):
        raise InputError(f"{version}: training.json makes no sense; export the model again")
    stored = files.read_bytes(directory.asset(version, directory.TRAINING))
    if asset(directory.MODEL).get("training") != directory.bytes_digest(stored):
        raise InputError(  # it says what the training patients measure
            f"{version}: training.json is not of this very model; export the model again"
        )
    return recipe, names, training


def _signatures(network, recipe: Recipe, values: np.ndarray) -> dict:
    """The named signatures, as concrete functions. values: uint8 [K], the classes' labels."""
    size, channels = recipe.size_px, recipe.context
    scale = np.float32(255 / recipe.window_width_hu)

    def predict(images):
        # A batch of no slices fails in the CPU's batch normalisation, so one is added to it.
        count = tf.shape(images)[0]
        filler = tf.zeros([tf.cast(tf.equal(count, 0), tf.int32), size, size, channels])
        given = network(tf.concat([tf.cast(images, tf.float32), filler], 0))
        return {name: tf.identity(value[:count], name) for name, value in given.items()}

    def labels_from_hu(hu, level_hu):
        # segthor.recipe.window, step by step in the same precision.
        offset = 127.5 - tf.cast(level_hu, tf.float64) * 255 / recipe.window_width_hu
        scaled = hu * scale + tf.cast(offset, tf.float32)[:, None, None, None]
        images = tf.cast(tf.clip_by_value(scaled, 0.0, 255.0) + 0.5, tf.uint8)
        classes = tf.argmax(predict(images)[PROBABILITIES], -1, tf.int32)
        # GatherV2 has no GPU kernel for uint8.
        labels = tf.gather(tf.constant(values, tf.float32), classes)
        return {"labels": tf.cast(labels, tf.uint8)}

    def signature(function, **specs):
        specs = [tf.TensorSpec(*spec, name) for name, spec in specs.items()]
        return tf.function(function, input_signature=specs).get_concrete_function()

    slices = [None, size, size, channels]
    given = signature(predict, images=(slices, tf.uint8)).structured_outputs
    signatures = {
        name: signature(lambda images, n=name: {n: predict(images)[n]}, images=(slices, tf.uint8))
        for name in given
    }
    if PROBABILITIES in given:
        signatures["labels_from_hu"] = signature(
            labels_from_hu, hu=(slices, tf.float32), level_hu=([None], tf.float32)
        )
    first = PROBABILITIES if PROBABILITIES in given else PRESENCE
    signatures["serving_default"] = signatures[first]
    return signatures


def _kept(network, owner):
    return lambda **inputs: network(**inputs) if owner else None


def _organ_rows(names, organs: Organs) -> list[dict]:
    rows = [{"name": "background", "label": BACKGROUND, "rgb": [0, 0, 0]}]
    known = (organs[name] for name in names)
    return rows + [{"name": o.name, "label": o.label, "rgb": list(o.rgb)} for o in known]


def _arrays(variables):
    return (variable.numpy() for variable in variables)


def _json(value) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _npz(**arrays) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()
