"""The folder of a run: its files, which process may write there, and how to restore the network."""

import contextlib
import dataclasses
import importlib.metadata
import logging
import platform
from dataclasses import dataclass

from segthor import csv_files, fields, files, folds, json_files, locks, outputs
from segthor.errors import InputError, message_line
from segthor.manifest import Dataset
from segthor.organs import Organs
from segthor.recipe import Recipe
from segthor.reference import Reference
from trainer.config import CLASSIFY, SEGMENT, Config  # noqa: F401 (serving names tasks by run.*)

RUN, LOG, SUMMARY = "run.json", "log.csv", "summary.json"
LAST, BEST = "checkpoints", "best"  # folders
_LIST = "checkpoint"  # file of each folder in which TensorFlow lists its checkpoints
_FOLDERS = {"best": BEST, "last": LAST}
PATIENTS, SURFACES = "best_patients.csv", "best_surfaces.csv"
CURVE, TENSORBOARD = "learning_curve.png", "tensorboard"
_KINDS = {RUN: outputs.json_with("config", "recipe")}
_PACKAGES = ("segthor", "tensorflow", "tf_keras", "segmentation-models", "numpy")


@dataclass(frozen=True)
class Data:
    """The dataset of a run.

    folder: Folder of the dataset.
    digest: `Dataset.digest`.
    """

    folder: str
    digest: str


@dataclass(frozen=True)
class RunRecord:
    """The content of a run's `run.json`, and of a model's `training.json`.

    config: Configuration of the run.
    recipe: How scans are prepared.
    organs: Names of the network's classes after the background, in their order.
    organ_table: All organs of the dataset.
    data: The dataset.
    replicas: Number of devices.
    reference: Measures of the training patients; None: not known.
    versions: Library to its version.
    length: The `length.Length` that a run with --minutes measured.
    start: What `start.load_weights` returned for --start_from.
    summary: The content of summary.json; None before the run ends.
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
        known, found = self.organ_table.names, ", ".join(self.organs) or "none"
        if not self.organs or not all(name in known for name in self.organs):
            raise InputError(f"organs: expected some of {', '.join(known)}, found {found}")
        if self.config.organs != self.organs:
            expected = ", ".join(self.config.organs) or "none"
            raise InputError(f"organs: expected those of config, {expected}, found {found}")

    def to_json(self) -> dict:
        """Returns plain values, as the file holds them."""
        parts = {"config": self.config.to_json(), "organ_table": self.organ_table.to_json()}
        value = dataclasses.asdict(self) | parts
        later = ("length", "start", "summary")
        return {name: item for name, item in value.items() if name not in later or item is not None}


@contextlib.contextmanager
def claim(workdir: str, config: Config, source, replicas: int, chief: bool):
    """Locks the folder for this run while the block lasts; yields the `RunRecord` of the run.

    Only the chief holds the lock, since all hosts of a run share the folder. A folder without a
    checkpoint may be used by another run.

    Raises:
      InputError: The folder belongs to a run of another configuration, or is no run's folder, or
        another process trains there.
    """
    check_folder(workdir)
    with locks.lock_folder(workdir) if chief else contextlib.nullcontext():
        record = _make_record(config, source, replicas)
        check_folder(workdir)  # again: another process may have written before the lock was taken
        if chief and not files.is_url(workdir):  # URLs have no locks: another run may be at work
            files.remove_partial(workdir)
        if latest_checkpoint(files.join(workdir, LAST)):
            _check_same(workdir, read(workdir), record)
        elif chief:
            json_files.write(files.join(workdir, RUN), record.to_json())
        yield record


def check_folder(workdir: str, data: str | None = None) -> None:
    """Raises InputError if the folder is neither new nor a run, or overlaps with the dataset."""
    outputs.check_folder(workdir, {"data": data}, outputs.RUN, _KINDS, flag="workdir")
    names = files.listdir(workdir) if files.exists(workdir) else []
    # The chief may be writing run.json, or may have been killed meanwhile.
    others = [name for name in names if not name.startswith(files.TEMPORARY_PREFIX)]
    if others and not files.exists(files.join(workdir, RUN)):
        raise InputError(
            f"--workdir={workdir}: expected a new folder or a run, found other files; "
            "choose another folder"
        )


def read(workdir: str) -> RunRecord:
    """Reads run.json, and summary.json if the run has ended.

    Raises:
      InputError: The folder holds no run, or its run.json is invalid.
    """
    path = files.join(workdir, RUN)
    if not files.exists(path):
        raise InputError(f"{workdir}: expected a run of trainer.main, found no {RUN}")
    record = fields.from_json(RunRecord, json_files.read(path), path)
    summary = files.join(workdir, SUMMARY)
    if not files.exists(summary):
        return record
    ended = fields.from_json(dict, json_files.read(summary), summary)
    return dataclasses.replace(record, summary=ended)


def read_of_fold(runs: str, fold: int, data: str, dataset: Dataset) -> RunRecord:
    """Reads the run of a fold, which must have a best checkpoint; see `read`.

    runs, data: Folders of trainer.cross_validate and of the dataset.

    Raises:
      InputError: There is no such run, or it is of another fold or dataset, so that its network may
        have been trained on the patients of the fold.
    """
    folder = folds.run_folder(runs, fold)
    record = read_trained(folder)
    if record.config.fold != fold or record.data.digest != dataset.digest():
        raise InputError(
            f"--runs={runs}: {folder} is not a run of fold {fold} of {data} as it is now, so its "
            "network may have been trained on the patients; cross-validate again"
        )
    if record.config.task == CLASSIFY:
        raise InputError(f"--runs={runs}: expected a segmentation task, found classifiers")
    return record


def read_patients(workdir: str) -> list[dict[str, str]]:
    """Reads best_patients.csv: a row of Dice per validation patient, '' if not contoured.

    Raises:
      InputError: The file is missing or damaged.
    """
    path, organs = files.join(workdir, PATIENTS), read(workdir).organs
    columns = ("patient", *organs)
    rows = [row for _, row in csv_files.read_table(path, columns, columns)]
    try:
        scores = [float(row[name]) for row in rows for name in organs if row[name]]
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); expected the scores of this run") from error
    if not rows or not all(0 <= score <= 1 for score in scores):
        raise InputError(f"{path}: damaged; expected a Dice from 0 to 1 of every patient")
    return rows


def read_trained(workdir: str, which: str = "best") -> RunRecord:
    """Reads run.json; raises InputError if there is no such checkpoint; `which` as in `restore`."""
    record, folder = read(workdir), files.join(workdir, _FOLDERS[which])
    if not files.exists(files.join(folder, _LIST)):
        raise InputError(f"{folder}: expected a checkpoint, found none; train first")
    return record


def latest_checkpoint(folder: str) -> str | None:
    """Path of the newest checkpoint in a folder; None if there is none.

    Raises:
      InputError: TensorFlow's list of checkpoints is damaged.
    """
    import tensorflow as tf

    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # TensorFlow would print lines of its own
    try:
        state = tf.train.get_checkpoint_state(folder)
        latest = state and tf.train.latest_checkpoint(folder)
    except ValueError:  # an empty list, or no text
        state = latest = None
    finally:
        logger.setLevel(level)
    if state is None and files.exists(files.join(folder, _LIST)):
        raise InputError(f"{files.join(folder, _LIST)}: damaged; copy the run again")
    return latest


def restore(workdir: str, which: str = "best"):
    """Restores a run's network (tf.keras.Model, see `model.build`) and reads its `RunRecord`.

    The weights are the moving average if the run has one. The network computes in float32, whatever
    the precision of the training. Nothing is downloaded.

    which: 'best' by validation score, or 'last'.

    Raises:
      InputError: There is no run, no such checkpoint yet, or one of another network.
    """
    import tensorflow as tf  # slow import: the checks of this module come first

    from trainer import failures, model

    record, folder = read_trained(workdir, which), files.join(workdir, _FOLDERS[which])
    path = latest_checkpoint(folder)
    if path is None:
        raise InputError(f"{folder}: expected a checkpoint, found none; train first")
    plain = dataclasses.replace(record.config, precision="float32", xla=False)
    network = model.build(plain, record.recipe.size_px, record.recipe.context, load_published=False)
    key = "averaged" if which == "last" and record.config.ema else "model"
    reader = tf.train.Checkpoint(**{key: network})
    try:
        reader.restore(path).expect_partial().assert_existing_objects_matched()
    except (*failures.DAMAGED, AssertionError, ValueError) as error:
        raise InputError(
            f"{path}: damaged, or of another network than {RUN} describes ({message_line(error)})"
        ) from error
    return network, record


def weight_names(network) -> list[str]:
    """Names of `network.variables`, in their order; see `layers.weights_by_name`."""
    from trainer import layers

    return list(layers.weights_by_name(network))


def add_to_record(workdir: str, **facts) -> None:
    """Adds fields to run.json."""
    path = files.join(workdir, RUN)
    json_files.write(path, json_files.read(path) | facts)


def has_checkpoint(workdir: str) -> bool:
    """Whether the folder holds a checkpoint to continue from."""
    return files.exists(files.join(workdir, LAST, _LIST))


def _make_record(config: Config, source, replicas: int) -> RunRecord:
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
    """Raises InputError that lists the differences between the run in the folder and this one."""
    differences = []
    for part in ("config", "recipe", "data", "replicas"):
        old, new = (_flatten(part, record.to_json()[part]) for record in (there, here))
        old.pop("data.folder", None), new.pop("data.folder", None)  # a dataset may be moved
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
            f"{'; '.join(differences)}; choose another folder, or repeat that run's command"
        )


def _flatten(name: str, value) -> dict:
    """Nested dicts as one dict, with keys such as 'config.augment.noise'."""
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key in value for k, v in _flatten(f"{name}.{key}", value[key]).items()}
