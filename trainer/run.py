"""The run's folder: the names of its files, who may write there, how its network comes back."""

import contextlib
import dataclasses
import importlib.metadata
import platform

from segthor import files, json_files, locks
from segthor.errors import InputError, message_line
from segthor.organs import SEGTHOR, Organs
from segthor.recipe import Recipe
from trainer.config import CLASSIFY, SEGMENT, Config  # noqa: F401 (serving names tasks by run.*)

RUN, LOG, SUMMARY = "run.json", "log.csv", "summary.json"
LAST, BEST = "checkpoints", "best"  # folders
_FOLDERS = {"best": BEST, "last": LAST}
PATIENTS, SURFACES = "best_patients.csv", "best_surfaces.csv"
CURVE, TENSORBOARD = "learning_curve.png", "tensorboard"
_PACKAGES = ("segthor", "tensorflow", "tf_keras", "segmentation-models", "numpy")


@contextlib.contextmanager
def claim(workdir: str, config: Config, source, replicas: int, chief: bool):
    """Makes the folder this run's while the block lasts; yields run.json's content, which it wrote.

    The chief alone keeps other runs out; the other hosts of its run share the folder with it. A run
    that never came to its first checkpoint is no run yet and may be another one now.

    Raises:
      InputError: the folder belongs to another run (the message shows the difference) or to
        something else, or another process trains there.
    """
    import tensorflow as tf

    check_folder(workdir)
    with locks.alone(workdir) if chief else contextlib.nullcontext():
        record = _record(config, source, replicas)
        check_folder(workdir)  # again, now that nobody else writes there
        if chief and not files.is_url(workdir):  # else nothing keeps another run out
            files.remove_partial(workdir)
        if tf.train.latest_checkpoint(files.join(workdir, LAST)):
            _check_same(workdir, read(workdir), record)
        elif chief:
            json_files.write(files.join(workdir, RUN), record)
        yield record


def check_folder(workdir: str) -> None:
    """Raises InputError where the folder is neither new nor a run's."""
    if files.exists(workdir) and not files.is_dir(workdir):
        raise InputError(f"--workdir={workdir}: expected a folder, found a file")
    found = files.listdir(workdir) if files.exists(workdir) else []
    # The chief may be writing run.json just now, or have been killed while it did.
    others = [name for name in found if not name.startswith(files.TEMPORARY_PREFIX)]
    if others and not files.exists(files.join(workdir, RUN)):
        raise InputError(
            f"--workdir={workdir}: expected a new folder or a run, found other files; "
            "name another folder"
        )


def read(workdir: str) -> dict:
    """run.json, and under 'summary' the summary of a run that ended.

    Raises:
      InputError: no run there, or a run.json that makes no sense.
    """
    path = files.join(workdir, RUN)
    if not files.exists(path):
        raise InputError(f"{workdir}: expected a run of trainer.main, found no {RUN}")
    record = json_files.read(path)
    missing = {"config", "recipe", "organs"} - set(record if isinstance(record, dict) else ())
    if missing:
        raise InputError(f"{path}: expected a run, found no {', '.join(sorted(missing))}")
    try:
        Recipe.from_json(record["recipe"])
        _check_organs(record, Config.from_json(record["config"]))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    summary = files.join(workdir, SUMMARY)
    return record | ({"summary": json_files.read(summary)} if files.exists(summary) else {})


def table(record: dict) -> Organs:
    """The table of the organs that a run's dataset holds, those that it did not learn as well."""
    stored = record.get("organ_table")
    return SEGTHOR if stored is None else Organs.from_json(stored, "organ_table")


def _check_organs(record: dict, config: Config) -> None:
    organs, names = table(record), record["organs"]
    if not isinstance(names, list) or not names or not all(name in organs.names for name in names):
        raise InputError(f"organs: expected some of {', '.join(organs.names)}, found {names}")
    if config.organs != tuple(names):
        found = ", ".join(config.organs) or "none"
        raise InputError(f"organs: {', '.join(names)}, but the network's are {found}")


def check_trained(workdir: str, which: str) -> None:
    """Raises InputError where there is no run, or none with such a checkpoint; see `restore`."""
    read(workdir)
    folder = files.join(workdir, _FOLDERS[which])
    if not files.exists(files.join(folder, "checkpoint")):  # TensorFlow's list of them
        raise InputError(f"{folder}: expected a checkpoint, found none; train first")


def restore(workdir: str, which: str = "best"):
    """A run's trained network, tf.keras.Model (see `model.build`), and `read`.

    Nothing is fetched from the web.

    which: 'best' by validation score, or 'last'. Where the run kept a moving average of the
    weights, these are it. The network computes in float32, whatever it was trained in.

    Raises:
      InputError: no run there, no such checkpoint yet, or one that is not of this network.
    """
    import tensorflow as tf  # here, so that what the checks of this module refuse is told before

    from trainer import model
    from trainer.failures import DAMAGED

    check_trained(workdir, which)
    record, folder = read(workdir), files.join(workdir, _FOLDERS[which])
    path = tf.train.latest_checkpoint(folder)
    if path is None:
        raise InputError(f"{folder}: expected a checkpoint, found none; train first")
    config, recipe = Config.from_json(record["config"]), Recipe.from_json(record["recipe"])
    plain = dataclasses.replace(config, precision="float32", xla=False)
    network = model.build(plain, recipe.size_px, recipe.context, fetch=False)
    key = "averaged" if which == "last" and config.ema else "model"
    reader = tf.train.Checkpoint(**{key: network})
    try:
        reader.restore(path).expect_partial().assert_existing_objects_matched()
    except (*DAMAGED, AssertionError, ValueError) as error:
        raise InputError(
            f"{path}: damaged, or not of the network that {RUN} describes ({message_line(error)})"
        ) from error
    return network, record


def weight_names(network) -> list[str]:
    """The name of each of `network.variables`: see `layers.by_name`."""
    from trainer import layers

    return list(layers.by_name(network))


def note(workdir: str, **facts) -> None:
    """Adds what became known after `claim` to run.json."""
    path = files.join(workdir, RUN)
    json_files.write(path, json_files.read(path) | facts)


def begun(workdir: str) -> bool:
    """Whether the folder holds a checkpoint to continue from."""
    return files.exists(files.join(workdir, LAST, "checkpoint"))  # TensorFlow's list of them


def _record(config: Config, source, replicas: int) -> dict:
    return {
        "config": config.to_json(),
        "recipe": source.dataset.recipe.to_json(),
        "organs": list(config.organs),
        "organ_table": source.organs.to_json(),
        "data": {"folder": source.folder, "digest": source.digest()},
        "replicas": replicas,
        "reference": source.reference(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES}
        | {"python": platform.python_version()},
    }


def _check_same(workdir: str, there: dict, here: dict) -> None:
    differences = []
    for part in ("config", "recipe", "data", "replicas"):
        old, new = (_flat(part, record.get(part)) for record in (there, here))
        old.pop("data.folder", None), new.pop("data.folder", None)  # it may move
        differences += [
            f"{key.removeprefix('config.')} is {old.get(key)} there and {new.get(key)} here"
            for key in {**old, **new}
            if old.get(key) != new.get(key)
        ]
    if table(there).numbers != table(here).numbers:
        differences.append("the dataset's table numbers organs otherwise")
    if differences:
        raise InputError(
            f"--workdir={workdir} holds a run of another configuration: "
            f"{'; '.join(differences)}; name another folder, or repeat that run's command"
        )


def _flat(name: str, value) -> dict:
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key in value for k, v in _flat(f"{name}.{key}", value[key]).items()}
