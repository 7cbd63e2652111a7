"""The run's folder: the names of its files, who may write there, how its network comes back."""

import contextlib
import dataclasses
import importlib.metadata
import platform
from dataclasses import dataclass

from segthor import fields, files, json_files, locks, outputs
from segthor.errors import InputError, message_line
from segthor.organs import Organs
from segthor.recipe import Recipe
from segthor.reference import Reference
from trainer.config import CLASSIFY, SEGMENT, Config  # noqa: F401 (serving names tasks by run.*)

RUN, LOG, SUMMARY = "run.json", "log.csv", "summary.json"
LAST, BEST = "checkpoints", "best"  # folders
_FOLDERS = {"best": BEST, "last": LAST}
PATIENTS, SURFACES = "best_patients.csv", "best_surfaces.csv"
CURVE, TENSORBOARD = "learning_curve.png", "tensorboard"
_KINDS = {RUN: outputs.json_with("config", "recipe")}
_PACKAGES = ("segthor", "tensorflow", "tf_keras", "segmentation-models", "numpy")


@dataclass(frozen=True)
class Data:
    """The dataset of a run: its folder, and the digest of its content."""

    folder: str
    digest: str


@dataclass(frozen=True)
class RunRecord:
    """What `run.json` says of a run, and `training.json` of the run that a model was made from.

    config: The run's choices.
    recipe: How scans are prepared.
    organs: The organs of the network's classes after the background, in their order.
    organ_table: All organs of the dataset.
    data: The dataset.
    replicas: Number of devices.
    reference: What the training patients measure; None: not known.
    versions: Library to its version.
    length: The measured `length.Length` of a run of --minutes.
    start: What was taken from the run or model that --start_from names; see `start.begin`.
    summary: The summary of a run that ended.
    """

    config: Config
    recipe: Recipe
    organs: tuple[str, ...]
    organ_table: Organs
    data: Data
    replicas: int
    reference: Reference | None
    versions: dict
    length: dict | None = None
    start: dict | None = None
    summary: dict | None = None

    def __post_init__(self):
        known = self.organ_table.names
        if not self.organs or not all(name in known for name in self.organs):
            found = ", ".join(self.organs) or "none"
            raise InputError(f"organs: expected some of {', '.join(known)}, found {found}")
        if self.config.organs != self.organs:
            found = ", ".join(self.config.organs) or "none"
            raise InputError(f"organs: {', '.join(self.organs)}, but the network's are {found}")

    def to_json(self) -> dict:
        """Plain values, as the file holds them."""
        parts = {"config": self.config.to_json(), "organ_table": self.organ_table.to_json()}
        value = dataclasses.asdict(self) | parts
        later = ("length", "start", "summary")
        return {name: item for name, item in value.items() if name not in later or item is not None}


@contextlib.contextmanager
def claim(workdir: str, config: Config, source, replicas: int, chief: bool):
    """Makes the folder this run's while the block lasts; yields the `RunRecord` that it wrote.

    The chief alone keeps other runs out; the other hosts of its run share the folder with it. A run
    that never came to its first checkpoint is no run yet and may be another one now.

    Raises:
      InputError: the folder belongs to another run (the message shows the difference) or to
        something else, or another process trains there.
    """

    check_folder(workdir)
    with locks.lock_folder(workdir) if chief else contextlib.nullcontext():
        record = _record(config, source, replicas)
        check_folder(workdir)  # again, now that nobody else writes there
        if chief and not files.is_url(workdir):  # else nothing keeps another run out
            files.remove_partial(workdir)
        if latest_checkpoint(files.join(workdir, LAST)):
            _check_same(workdir, read(workdir), record)
        elif chief:
            json_files.write(files.join(workdir, RUN), record.to_json())
        yield record


def check_folder(workdir: str, data: str | None = None) -> None:
    """Raises InputError where the folder is neither new nor a run's, or lies in the data's."""
    outputs.check_folder(workdir, {"data": data}, outputs.RUN, _KINDS, flag="workdir")
    found = files.listdir(workdir) if files.exists(workdir) else []
    # The chief may be writing run.json just now, or have been killed while it did.
    others = [name for name in found if not name.startswith(files.TEMPORARY_PREFIX)]
    if others and not files.exists(files.join(workdir, RUN)):
        raise InputError(
            f"--workdir={workdir}: expected a new folder or a run, found other files; "
            "name another folder"
        )


def read(workdir: str) -> RunRecord:
    """run.json, and the summary of a run that ended.

    Raises:
      InputError: no run there, or a run.json that makes no sense.
    """
    path = files.join(workdir, RUN)
    if not files.exists(path):
        raise InputError(f"{workdir}: expected a run of trainer.main, found no {RUN}")
    record = fields.from_json(RunRecord, json_files.read(path), path)
    summary = files.join(workdir, SUMMARY)
    ended = json_files.read(summary) if files.exists(summary) else None
    return dataclasses.replace(record, summary=ended)


def check_trained(workdir: str, which: str) -> None:
    """Raises InputError where there is no run, or none with such a checkpoint; see `restore`."""
    read(workdir)
    folder = files.join(workdir, _FOLDERS[which])
    if not files.exists(files.join(folder, "checkpoint")):  # TensorFlow's list of them
        raise InputError(f"{folder}: expected a checkpoint, found none; train first")


def latest_checkpoint(folder: str) -> str | None:
    """The newest checkpoint in a folder; InputError where TensorFlow's list of them is damaged."""
    import tensorflow as tf

    path = files.join(folder, "checkpoint")  # TensorFlow's list of them
    try:
        listed = tf.train.get_checkpoint_state(folder)
    except ValueError as error:  # an empty list
        raise InputError(f"{path}: damaged; copy the run again") from error
    if listed is None and files.exists(path):
        raise InputError(f"{path}: damaged; copy the run again")
    return tf.train.latest_checkpoint(folder)


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
    path = latest_checkpoint(folder)
    if path is None:
        raise InputError(f"{folder}: expected a checkpoint, found none; train first")
    plain = dataclasses.replace(record.config, precision="float32", xla=False)
    network = model.build(plain, record.recipe.size_px, record.recipe.context, fetch=False)
    key = "averaged" if which == "last" and record.config.ema else "model"
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


def _record(config: Config, source, replicas: int) -> RunRecord:
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return RunRecord(
        config=config,
        recipe=source.dataset.recipe,
        organs=config.organs,
        organ_table=source.organs,
        data=Data(source.folder, source.dataset.digest()),
        replicas=replicas,
        reference=source.reference(),
        versions=versions | {"python": platform.python_version()},
    )


def _check_same(workdir: str, there: RunRecord, here: RunRecord) -> None:
    differences = []
    for part in ("config", "recipe", "data", "replicas"):
        old, new = (_flat(part, record.to_json()[part]) for record in (there, here))
        old.pop("data.folder", None), new.pop("data.folder", None)  # it may move
        differences += [
            f"{key.removeprefix('config.')} is {old.get(key)} there and {new.get(key)} here"
            for key in {**old, **new}
            if old.get(key) != new.get(key)
        ]
    if there.organ_table.numbers != here.organ_table.numbers:
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
