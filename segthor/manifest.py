"""`dataset.json`: what a dataset holds and what made it. Readers trust it alone."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field

from segthor import fields, files, ignored, json_files
from segthor.errors import InputError
from segthor.findings import REJECT, Finding
from segthor.organs import Organs
from segthor.recipe import Recipe

FILE_NAME = "dataset.json"
FORMAT = 3
DEFAULT_DATASET = "data/dataset"  # what the data job writes and the trainer reads unless told
TRAIN, VALIDATION = "train", "validation"
UNLABELLED = "unlabelled"  # no split of a dataset, but of the data job's plans


@dataclass(frozen=True)
class Shard:
    """One TFRecord file. file: relative to the dataset's folder; bytes and sha256 of the file."""

    file: str
    split: str
    fold: int
    records: int
    bytes: int
    sha256: str
    patients: tuple[str, ...]


@dataclass(frozen=True)
class Audit:
    """What the audit says of one patient. organs: name to the fields of `figures.OrganFigures`."""

    findings: tuple[Finding, ...] = ()
    organs: dict[str, dict] = field(default_factory=dict)


@dataclass(frozen=True)
class Built:
    """One patient that was built. Its shard is the one that lists it.

    fingerprint: SHA-256 over the bytes of CT and contours. organs: those that were contoured.
    placement: see `segthor.geometry`. grey_shares: see `segthor.reference`. acquisition: of DICOM,
    what the images say of the scanner and the patient's position.
    """

    patient: str
    ct: str
    labels: str
    fingerprint: str
    split: str
    fold: int
    slices: int
    organs: tuple[str, ...]
    level_hu: float
    placement: dict
    audit: Audit
    grey_shares: tuple[float, ...] = ()
    acquisition: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rejected:
    """One patient that was not built, and why."""

    patient: str
    ct: str
    labels: str
    findings: tuple[Finding, ...]

    @property
    def reason(self) -> str:
        """The first finding that rejects, for people; warnings may stand before it."""
        return next(one.message for one in self.findings if one.severity == REJECT)


@dataclass(frozen=True)
class Unlabelled:
    """One patient without contours: audited, kept for prediction, never sharded.

    level_hu: the patient's window level; None where it comes from organs and no masks were given.
    """

    patient: str
    ct: str
    level_hu: float | None = None
    audit: Audit = Audit()


@dataclass(frozen=True)
class Dataset:
    """The whole manifest; lists are sorted by name. organs: what the label values stand for."""

    recipe: Recipe
    folds: int
    shards: tuple[Shard, ...]
    patients: tuple[Built, ...]
    rejected: tuple[Rejected, ...] = ()
    unlabelled: tuple[Unlabelled, ...] = ()
    statistics: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    label_values: tuple[tuple[str, int], ...] = ()
    organs: Organs = field(kw_only=True)

    def shards_of(self, split: str, fold: int | None = None) -> tuple[Shard, ...]:
        """The shards of 'train' or 'validation'.

        fold: None takes the split as built; a number takes this fold for validation and all
        others for training, for cross-validation.
        """
        if fold is None:
            return tuple(shard for shard in self.shards if shard.split == split)
        return tuple(s for s in self.shards if (s.fold == fold) == (split == VALIDATION))

    @property
    def has_ignored(self) -> bool:
        """Whether voxels that are not annotated may have the label `ignored.LABEL`."""
        return ignored.value_in(self.label_values) is not None

    @property
    def known_labels(self) -> list[int]:
        """The values that the records' labels may have: background, organs, ignored voxels."""
        return [0, *self.organs.labels(self.organs.names), *[ignored.LABEL] * self.has_ignored]

    def shard_of(self, patient: str) -> Shard:
        """The shard that holds the patient of this name."""
        return next(shard for shard in self.shards if patient in shard.patients)

    def digest(self) -> str:
        """A short name of the data: equal where shards and recipe are."""
        value = [[s.file, s.sha256] for s in self.shards], self.recipe.digest()
        return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]

    def save(self, folder: str) -> None:
        """Writes FOLDER/dataset.json atomically."""
        json_files.write(files.join(folder, FILE_NAME), {"format": FORMAT, **vars(self)})

    @classmethod
    def load(cls, folder: str) -> "Dataset":
        """Reads FOLDER/dataset.json.

        Raises:
          InputError: it is missing, of another format, or does not agree with itself.
        """
        path = files.join(folder, FILE_NAME)
        if not files.exists(path):
            raise InputError(
                f"{folder}: expected a dataset, found no {FILE_NAME}; "
                f"make one with python -m beam_jobs.build --output={folder}"
            )
        return cls.from_json(json_files.read(path), path)

    @classmethod
    def from_json(cls, value, path: str) -> "Dataset":
        """What stands in the manifest at `path`; raises InputError as `load` does."""
        if not isinstance(value, dict) or value.pop("format", None) != FORMAT:
            raise InputError(
                f"{path}: expected format {FORMAT}, found another; build the dataset again"
            )
        try:
            dataset = fields.from_json(cls, value, path)
        except InputError as error:
            raise InputError(f"{error}; build the dataset again") from error
        for problem in _contradictions(dataset):
            raise InputError(f"{path}: {problem}; build the dataset again")
        return dataset


def _contradictions(dataset: Dataset):
    """Yields what in a manifest cannot be so, whatever lies in the folder."""
    if dataset.folds < 1:
        yield "folds: expected 1 or more, found 0"
    for shard in dataset.shards:
        if not _is_inside(shard.file):
            yield f"shard {shard.file!r}: expected a path inside the dataset's folder"
    for name, count in Counter(shard.file for shard in dataset.shards).items():
        if count > 1:
            yield f"shard {name!r} is listed {count} times"
    every = (*dataset.patients, *dataset.rejected, *dataset.unlabelled)
    for name, count in Counter(row.patient for row in every).items():
        if count > 1:
            yield f"patient {name!r} is listed {count} times"
    for one in dataset.rejected:
        if all(finding.severity != REJECT for finding in one.findings):
            yield f"patient {one.patient!r} is rejected for no reason"
    yield from _unknown_organs(dataset)
    yield from _misplaced(dataset)


def _unknown_organs(dataset: Dataset):
    """Yields where patients, label values or recipe name an organ that the table lacks."""
    for name, _ in dataset.label_values:
        if name not in (*dataset.organs.names, ignored.NAME):
            yield f"label_values name {name!r}, which the table lacks"
    try:
        ignored.check(dataset.label_values, dataset.organs, "label_values")
    except InputError as error:
        yield str(error)
    for one in dataset.patients:
        for name in sorted({*one.organs, *one.audit.organs} - set(dataset.organs.names)):
            yield f"patient {one.patient!r} has the organ {name!r}, which the table lacks"
    try:
        dataset.recipe.require_organs(dataset.organs)
    except InputError as error:
        yield str(error)


def _misplaced(dataset: Dataset):
    """Yields patients that are not in exactly one shard, of their own split and fold."""
    rows = {row.patient: row for row in dataset.patients}
    for shard in dataset.shards:
        if shard.split not in (TRAIN, VALIDATION) or shard.fold >= dataset.folds:
            yield f"shard {shard.file!r}: there is no split {shard.split!r} with fold {shard.fold}"
        for name in shard.patients:
            row = rows.pop(name, None)
            if row is None:
                yield f"shard {shard.file!r} lists {name!r}, which has no row of its own"
            elif (row.split, row.fold) != (shard.split, shard.fold):
                yield f"patient {name!r} and its shard {shard.file!r} differ in split or fold"
    for name in rows:
        yield f"patient {name!r} is in no shard"


def _is_inside(path: str) -> bool:
    """Whether a relative path leads to a place below where it starts."""
    parts = path.split("/")
    return not (files.is_url(path) or "\\" in path or {"", ".", ".."} & set(parts))
