"""The dataset as the trainer uses it, checked before anything waits for TensorFlow."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from segthor import files, reference
from segthor.errors import InputError
from segthor.manifest import FILE_NAME, TRAIN, VALIDATION, Dataset, Shard
from segthor.organs import Organs


@dataclass(frozen=True)
class Source:
    """A dataset as the trainer uses it."""

    folder: str
    dataset: Dataset
    train: tuple[Shard, ...]
    validation: tuple[Shard, ...]
    chosen: tuple[str, ...] | None = None  # training patients, where not all of the shards' are

    @property
    def train_slices(self) -> int:
        """Training slices, of the chosen patients alone."""
        if self.chosen is None:
            return self.count(self.train)
        return sum(row.slices for row in self.dataset.patients if row.patient in self.chosen)

    @property
    def size_px(self) -> int:
        """H and W of a slice."""
        return self.dataset.recipe.size_px

    @property
    def context(self) -> int:
        """C: neighbouring slices as channels."""
        return self.dataset.recipe.context

    @property
    def organs(self) -> Organs:
        """The dataset's table of organs."""
        return self.dataset.organs

    @property
    def patients(self) -> tuple[str, ...]:
        """The validation patients, sorted."""
        return tuple(sorted(p for shard in self.validation for p in shard.patients))

    def reference(self) -> reference.Reference | None:
        """What the training patients measure; None where the dataset does not say."""
        trained = {patient for shard in self.train for patient in shard.patients}
        return reference.compute_reference(p for p in self.dataset.patients if p.patient in trained)

    def count(self, shards) -> int:
        """Slices in these shards."""
        return sum(shard.records for shard in shards)


def open_source(folder: str, fold: int | None, patients: int = 0, draw: int = 0) -> Source:
    """Reads the manifest and checks every shard against it.

    patients: how many of the training patients to train on, all where 0; draw: which. The fewer
    are always part of the more of the same draw.

    Raises:
      InputError: no dataset, a fold that it lacks, a shard that is missing or of another size, or
        no patients to train or to validate on.
    """
    dataset = Dataset.load(folder)
    if fold is not None and not 0 <= fold < dataset.folds:
        raise InputError(f"--fold: expected 0 to {dataset.folds - 1} for {folder}, found {fold}")
    source = Source(
        folder, dataset, dataset.shards_of(TRAIN, fold), dataset.shards_of(VALIDATION, fold)
    )
    if patients:
        source = _subset(source, patients, draw)
    for split, shards in ((TRAIN, source.train), (VALIDATION, source.validation)):
        if source.count(shards) == 0:
            raise InputError(f"{files.join(folder, FILE_NAME)}: no {split} slices; build again")
    slices = {patient.patient: patient.slices for patient in dataset.patients}
    for shard in (*source.train, *source.validation):
        _check_shard(files.join(folder, shard.file), shard, slices)
    return source


def _subset(source: Source, count: int, draw: int) -> Source:
    known = sorted(patients_of(source.train))
    if count > len(known):
        raise InputError(
            f"--train_patients: expected at most the {len(known)} training patients of "
            f"{source.folder}, found {count}"
        )
    order = np.random.default_rng(draw).permutation(len(known))
    chosen = tuple(sorted(known[place] for place in order[:count]))
    shards = tuple(shard for shard in source.train if set(shard.patients) & set(chosen))
    return dataclasses.replace(source, train=shards, chosen=chosen)


def require_contours(source: Source, names) -> list[str]:
    """Those of the organs that no validation patient has: they are trained and have no score.

    Raises:
      InputError: one that nobody contoured in training, or none to be scored; the message ends
        with the --organs that would work.
    """
    train = _contoured(source, source.chosen or patients_of(source.train))
    held_out = _contoured(source, source.patients)
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
    """The patients whose slices are in these shards."""
    return {patient for shard in shards for patient in shard.patients}


def _contoured(source: Source, patients) -> set[str]:
    """The organs that somebody contoured in at least one of these patients."""
    patients = set(patients)
    return {o for row in source.dataset.patients if row.patient in patients for o in row.organs}


def steps_per_epoch(source: Source, global_batch: int) -> int:
    """Whole batches in an epoch; raises InputError where there is not one."""
    steps = source.train_slices // global_batch
    if not steps:
        raise InputError(
            f"--batch_size: a batch of {global_batch} slices over all devices, but {source.folder} "
            f"holds only {source.train_slices} training slices"
        )
    return steps


def _check_shard(path: str, shard: Shard, slices: dict[str, int]) -> None:
    found = files.size(path) if files.exists(path) else "no such file"
    if found != shard.bytes:
        raise InputError(
            f"{path}: expected {shard.bytes} bytes as the manifest says, found {found}; "
            "build the dataset again"
        )
    expected = sum(slices[patient] for patient in shard.patients)
    if shard.records != expected:
        raise InputError(
            f"{path}: expected {expected} slices, as its patients have, found {shard.records}; "
            "build the dataset again"
        )
