"""The dataset as the trainer uses it, checked before the slow import of TensorFlow."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from segthor import files, reference
from segthor.errors import InputError
from segthor.manifest import FILE_NAME, TRAIN, VALIDATION, Dataset, Shard
from segthor.organs import Organs
from trainer.config import Config


@dataclass(frozen=True)
class Source:
    """A dataset as the trainer uses it.

    folder: Folder of the dataset.
    dataset: The manifest.
    train: Training shards.
    validation: Validation shards.
    chosen: Names of the patients to train on; None: all patients of the training shards.
    """

    folder: str
    dataset: Dataset
    train: tuple[Shard, ...]
    validation: tuple[Shard, ...]
    chosen: tuple[str, ...] | None = None

    @property
    def train_patients(self) -> int:
        """Number of training patients."""
        return len(self.chosen or patients_of(self.train))

    @property
    def train_slices(self) -> int:
        """Number of training slices."""
        if self.chosen is None:
            return self.count(self.train)
        return sum(row.slices for row in self.dataset.patients if row.patient in self.chosen)

    @property
    def size_px(self) -> int:
        """Height and width of a slice."""
        return self.dataset.recipe.size_px

    @property
    def context(self) -> int:
        """Number of channels: neighbouring slices."""
        return self.dataset.recipe.context

    @property
    def organs(self) -> Organs:
        """The dataset's table of organs."""
        return self.dataset.organs

    @property
    def patients(self) -> tuple[str, ...]:
        """Names of the validation patients, sorted."""
        return tuple(sorted(p for shard in self.validation for p in shard.patients))

    def reference(self) -> reference.Reference | None:
        """Measures of the training patients; None if the manifest has none."""
        trained = patients_of(self.train)
        return reference.compute_reference(p for p in self.dataset.patients if p.patient in trained)

    def count(self, shards) -> int:
        """Number of slices in these shards."""
        return sum(shard.records for shard in shards)


def open_source(folder: str, fold: int | None, patients: int = 0, draw: int = 0) -> Source:
    """Reads the manifest and checks every shard against it.

    fold: Fold to validate on; None: the split as built, which may hold out no patient.
    patients: Number of training patients to train on; 0: all.
    draw: Seed of their choice; within a draw a smaller set is part of every larger one.

    Raises:
      InputError: There is no dataset, or it lacks the fold; a shard is missing or has another size;
        there are no slices to train on; or the fold has none.
    """
    dataset = Dataset.load(folder)
    if fold is not None and not 0 <= fold < dataset.folds:
        raise InputError(f"--fold: expected 0 to {dataset.folds - 1} for {folder}, found {fold}")
    source = Source(
        folder, dataset, dataset.shards_of(TRAIN, fold), dataset.shards_of(VALIDATION, fold)
    )
    if patients:
        source = _subset(source, patients, draw)
    if source.count(source.train) == 0:
        manifest = files.join(folder, FILE_NAME)
        raise InputError(f"{manifest}: expected train slices, found none; build again")
    if fold is not None and not source.validation:
        raise InputError(f"--fold={fold}: expected patients in this fold of {folder}, found none")
    slices = {patient.patient: patient.slices for patient in dataset.patients}
    for shard in (*source.train, *source.validation):
        _check_shard(files.join(folder, shard.file), shard, slices)
    return source


def require_validation(source: Source, what: str) -> None:
    """Raises InputError if no patient is held out. what: The option that needs one."""
    if not source.validation:
        raise InputError(
            f"{what}: expected a dataset that holds out patients, found none in {source.folder}; "
            "build it with another --split or --validation_fraction"
        )


def open_run(folder: str, config: Config) -> tuple[Source, Config, list[str]]:
    """Opens the dataset of a run and checks that the run can be trained on it.

    Returns the dataset, the configuration for its table of organs, and the organs that are trained
    without a score.

    Raises:
      InputError: As `open_source`, `Config.of_table` and `require_contours`; there are too few
        slices for a batch; or an option needs scores and no patient is held out.
    """
    source = open_source(folder, config.held_out_fold, config.train_patients, config.draw)
    need_scores = {
        "--surface_distances": config.surface_distances,
        "--early_stop": config.early_stop,
        "--schedule=plateau": config.schedule == "plateau",
    }
    for option in (name for name, used in need_scores.items() if used):
        require_validation(source, option)
    config = config.of_table(source.organs).of_patients(source.train_patients)
    unscored = require_contours(source, config.organs)
    steps_per_epoch(source, config.batch_size)
    return source, config, unscored


def _subset(source: Source, count: int, draw: int) -> Source:
    """Restricts the training patients to `count` of them."""
    known = sorted(patients_of(source.train))
    if count > len(known):
        raise InputError(
            f"--train_patients: expected at most the {len(known)} training patients of "
            f"{source.folder}, found {count}"
        )
    order = np.random.default_rng(draw).permutation(len(known))
    chosen = tuple(sorted(known[number] for number in order[:count]))
    shards = tuple(shard for shard in source.train if set(shard.patients) & set(chosen))
    return dataclasses.replace(source, train=shards, chosen=chosen)


def require_contours(source: Source, names) -> list[str]:
    """Returns those of the organs that no validation patient has, which are trained unscored.

    Raises:
      InputError: An organ is contoured in no training patient, or patients are held out and none of
        them has an organ; the message ends with the --organs that would work.
    """
    train = _contoured_organs(source, source.chosen or patients_of(source.train))
    # Where no patient is held out, no organ can lack contours in one.
    held_out = _contoured_organs(source, source.patients) if source.validation else train
    missing = [name for name in names if name not in train]
    unscored = [name for name in names if name not in held_out]
    if not missing and len(unscored) < len(names):
        return unscored
    split, lacking = (TRAIN, missing) if missing else (VALIDATION, names)
    choices = [[n for n in wanted if n in train] for wanted in (names, source.organs.names)]
    works = next((choice for choice in choices if held_out & set(choice)), None)
    raise InputError(
        f"--organs: no {split} patient of {source.folder} has contours of {', '.join(lacking)}; "
        + (f"--organs={','.join(works)} would work" if works else "build it with another --split")
    )


def patients_of(shards) -> set[str]:
    """Names of the patients whose slices are in these shards."""
    return {patient for shard in shards for patient in shard.patients}


def _contoured_organs(source: Source, patients) -> set[str]:
    """Organs that are contoured in at least one of these patients."""
    patients = set(patients)
    return {o for row in source.dataset.patients if row.patient in patients for o in row.organs}


def steps_per_epoch(source: Source, global_batch: int) -> int:
    """Number of whole batches in an epoch; raises InputError if it is 0."""
    steps = source.train_slices // global_batch
    if not steps:
        raise InputError(
            f"--batch_size: expected at most the {source.train_slices} training slices of "
            f"{source.folder}, found {global_batch} over all devices"
        )
    return steps


def _check_shard(path: str, shard: Shard, slices: dict[str, int]) -> None:
    """Compares the size of a shard, and its number of slices, with the manifest."""
    size = files.size(path) if files.exists(path) else "no such file"
    if size != shard.bytes:
        raise InputError(
            f"{path}: expected {shard.bytes} bytes as the manifest says, found {size}; "
            "build the dataset again"
        )
    expected = sum(slices[patient] for patient in shard.patients)
    if shard.records != expected:
        raise InputError(
            f"{path}: expected {expected} slices, as its patients have, found {shard.records}; "
            "build the dataset again"
        )
