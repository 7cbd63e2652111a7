"""The manifest, `dataset.json`: all that a dataset holds. Readers take nothing from elsewhere."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field

from segthor import fields, figure_checks, files, ignored, json_files
from segthor.errors import InputError
from segthor.figures import OrganFigures
from segthor.findings import REJECT, Finding
from segthor.geometry import Placement
from segthor.organs import Organs
from segthor.recipe import Recipe

FILE_NAME = "dataset.json"
FORMAT = 3
DEFAULT_DATASET = "data/dataset"  # default of --output of the data job and --data of the trainer
TRAIN, VALIDATION = "train", "validation"
UNLABELLED = "unlabelled"  # split in the data job's plans only, for patients without contours


@dataclass(frozen=True)
class Shard:
    """One TFRecord file.

    file: Path relative to the dataset's folder.
    split: 'train' or 'validation'.
    fold: Fold of cross-validation, from 0.
    records: Number of records.
    bytes: Size of the file.
    sha256: SHA-256 of the file.
    patients: Names of its patients.
    """

    file: str
    split: str
    fold: int
    records: int
    bytes: int
    sha256: str
    patients: tuple[str, ...]


@dataclass(frozen=True)
class Audit:
    """The audit's result for one patient.

    findings: The findings.
    organs: Organ's name to its figures.
    """

    findings: tuple[Finding, ...] = ()
    organs: dict[str, OrganFigures] = field(default_factory=dict)


@dataclass(frozen=True)
class Built:
    """One patient that was built. Its shard is the one that lists it.

    patient: The patient's name.
    ct: Path of the scan.
    labels: Path of the contours.
    fingerprint: SHA-256 over the bytes of CT and contours.
    split: 'train' or 'validation'.
    fold: Fold of cross-validation.
    slices: Number of slices, each of which is one record.
    organs: Names of the contoured organs.
    level_hu: Window level in HU.
    placement: Where the slices lie in the scan.
    audit: Findings and figures.
    grey_shares: See `reference.grey_shares`.
    acquisition: For DICOM, what the headers say about the scanner and the patient's position.
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
    placement: Placement
    audit: Audit
    grey_shares: tuple[float, ...] = ()
    acquisition: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rejected:
    """One patient that was not built. findings: Those that reject it, and others."""

    patient: str
    ct: str
    labels: str
    findings: tuple[Finding, ...]

    @property
    def reason(self) -> str:
        """Message of the first finding that rejects."""
        return next(one.message for one in self.findings if one.severity == REJECT)


@dataclass(frozen=True)
class Unlabelled:
    """One patient without contours: audited, and listed for prediction.

    level_hu: The patient's window level; None where it comes from organs and there are no masks.
    """

    patient: str
    ct: str
    level_hu: float | None = None
    audit: Audit = Audit()


@dataclass(frozen=True)
class Statistics:
    """The statistics of a dataset.

    slices: Organ, or 'all', to number of slices.
    hu_percentiles: Organ to percentile ('5', '50', '95') to HU.
    spacing_in_plane_mm: 'min', 'median' and 'max' over the patients.
    spacing_between_slices_mm: As spacing_in_plane_mm.
    """

    slices: dict[str, int] = field(default_factory=dict)
    hu_percentiles: dict[str, dict[str, float]] = field(default_factory=dict)
    spacing_in_plane_mm: dict[str, float] = field(default_factory=dict)
    spacing_between_slices_mm: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        for organ, percentiles in self.hu_percentiles.items():
            if not {"5", "50", "95"} <= percentiles.keys():
                raise InputError(f"hu_percentiles of {organ}: expected 5, 50 and 95 %")


@dataclass(frozen=True)
class Dataset:
    """The manifest. All lists are sorted by name.

    recipe: How the scans were prepared.
    folds: Number of folds for cross-validation.
    shards: The shards.
    patients: Patients with contours.
    rejected: Patients that were not built.
    unlabelled: Patients without contours.
    statistics: Slices, HU and spacings over the patients; see `beam_jobs.counts.summary`.
    versions: Package to version.
    label_values: (organ, value in the contours' files), where they differ from the table.
    organs: The table of organs.
    """

    recipe: Recipe
    folds: int
    shards: tuple[Shard, ...]
    patients: tuple[Built, ...]
    rejected: tuple[Rejected, ...] = ()
    unlabelled: tuple[Unlabelled, ...] = ()
    statistics: Statistics = Statistics()
    versions: dict = field(default_factory=dict)
    label_values: tuple[tuple[str, int], ...] = ()
    organs: Organs = field(kw_only=True)

    def shards_of(self, split: str, fold: int | None = None) -> tuple[Shard, ...]:
        """The shards of 'train' or 'validation'.

        fold: None for the split of the data job; a number for cross-validation, where this fold is
          for validation and all others are for training.
        """
        if fold is None:
            return tuple(shard for shard in self.shards if shard.split == split)
        return tuple(s for s in self.shards if (s.fold == fold) == (split == VALIDATION))

    @property
    def has_ignored(self) -> bool:
        """Whether voxels may have the label `ignored.LABEL`."""
        return ignored.value_in(self.label_values) is not None

    @property
    def known_labels(self) -> list[int]:
        """All values that labels may have: background, organs, ignored voxels."""
        return [0, *self.organs.labels(self.organs.names), *[ignored.LABEL] * self.has_ignored]

    def shard_of(self, patient: str) -> Shard:
        """The shard that holds this patient."""
        return next(shard for shard in self.shards if patient in shard.patients)

    def digest(self) -> str:
        """Digest of recipe and shards, 16 hexadecimal digits; changes when a record changes."""
        value = [[s.file, s.sha256] for s in self.shards], self.recipe.digest()
        return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]

    def save(self, folder: str) -> None:
        """Writes FOLDER/dataset.json atomically."""
        json_files.write(files.join(folder, FILE_NAME), {"format": FORMAT, **vars(self)})

    @classmethod
    def load(cls, folder: str) -> "Dataset":
        """Reads FOLDER/dataset.json.

        Raises:
          InputError: It is missing, of another format, or contradicts itself.
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
        """Makes a manifest of its JSON value; raises InputError as `load` does.

        path: Path of the manifest, for messages.
        """
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
    """Yields a line for each contradiction in a manifest; opens no other file."""
    if dataset.folds < 1:
        yield "folds: expected 1 or more, found 0"
    for shard in dataset.shards:
        if not _is_inside(shard.file):
            yield f"shard {shard.file!r}: expected a path inside the dataset's folder"
    rows = (*dataset.patients, *dataset.rejected, *dataset.unlabelled)
    listed = [("shard", shard.file) for shard in dataset.shards]
    listed += [("patient", row.patient) for row in rows]
    for (kind, name), count in Counter(listed).items():
        if count > 1:
            yield f"{kind} {name!r} is listed {count} times"
    for one in dataset.rejected:
        if all(finding.severity != REJECT for finding in one.findings):
            yield f"patient {one.patient!r} is rejected for no reason"
    yield from _unknown_organs(dataset)
    yield from _misplaced(dataset)
    yield from figure_checks.find_odd_figures(dataset.patients)


def _unknown_organs(dataset: Dataset):
    """Yields a line where patients, label values or recipe name an organ that the table lacks."""
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
    """Yields a line for each patient that is not in exactly one shard of its split and fold."""
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
    """Whether a relative path stays below the folder that it starts from."""
    parts = path.split("/")
    return not (files.is_url(path) or "\\" in path or {"", ".", ".."} & set(parts))
