"""The dataset as the trainer uses it, checked before anything waits for TensorFlow."""

from dataclasses import dataclass

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

    def reference(self) -> dict | None:
        """What the training patients measure; None where the dataset does not say."""
        trained = {patient for shard in self.train for patient in shard.patients}
        found = reference.of_dataset(p for p in self.dataset.patients if p.patient in trained)
        return found and found.to_json()

    def count(self, shards) -> int:
        """Slices in these shards."""
        return sum(shard.records for shard in shards)

    def digest(self) -> str:
        """The dataset's."""
        return self.dataset.digest()


def open_source(folder: str, fold: int | None) -> Source:
    """Reads the manifest and checks every shard against it.

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
    for split, shards in ((TRAIN, source.train), (VALIDATION, source.validation)):
        if source.count(shards) == 0:
            raise InputError(f"{files.join(folder, FILE_NAME)}: no {split} slices; build again")
    slices = {patient.patient: patient.slices for patient in dataset.patients}
    for shard in (*source.train, *source.validation):
        _check_shard(files.join(folder, shard.file), shard, slices)
    return source


def require_contours(source: Source, names) -> list[str]:
    """Those of the organs that no validation patient has: they are trained and have no score.

    Raises:
      InputError: one that nobody contoured in training, or none to be scored; the message ends
        with the --organs that would work.
    """
    train, held_out = (_contoured(source, shards) for shards in (source.train, source.validation))
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


def _contoured(source: Source, shards) -> set[str]:
    """The organs that somebody contoured in at least one patient of these shards."""
    patients = {patient for shard in shards for patient in shard.patients}
    return {o for row in source.dataset.patients if row.patient in patients for o in row.organs}


def steps_per_epoch(source: Source, global_batch: int) -> int:
    """Whole batches in an epoch; raises InputError where there is not one."""
    steps = source.count(source.train) // global_batch
    if not steps:
        raise InputError(
            f"--batch_size: a batch of {global_batch} slices over all devices, but {source.folder} "
            f"holds only {source.count(source.train)} training slices"
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
