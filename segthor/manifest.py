"""`dataset.json`: what a dataset holds and what made it. Readers trust it alone."""

from dataclasses import dataclass, field

from segthor import files, organs
from segthor.audit import REJECT
from segthor.errors import InputError
from segthor.recipe import Recipe

FILE_NAME = "dataset.json"
FORMAT = 1
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
class Built:
    """One patient that was built.

    fingerprint: SHA-256 over the bytes of CT and contours. organs: those that were contoured.
    audit: figures and findings (see `segthor.audit`). placement: see `segthor.geometry`.
    """

    patient: str
    ct: str
    labels: str
    fingerprint: str
    split: str
    fold: int
    shard: str
    slices: int
    organs: tuple[str, ...]
    level_hu: float
    placement: dict
    audit: dict


@dataclass(frozen=True)
class Rejected:
    """One patient that was not built, and why. findings: as `segthor.audit` gives them."""

    patient: str
    ct: str
    labels: str
    findings: tuple[dict, ...]

    @property
    def reason(self) -> str:
        """The first finding that rejects, for people; warnings may stand before it."""
        return next(one["message"] for one in self.findings if one["severity"] == REJECT)


@dataclass(frozen=True)
class Unlabelled:
    """One patient without contours: audited, kept for prediction, never sharded.

    level_hu: the patient's window level; None where it comes from organs and no masks were given.
    """

    patient: str
    ct: str
    level_hu: float | None = None
    audit: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """The whole manifest; lists are sorted by name."""

    recipe: Recipe
    folds: int
    shards: tuple[Shard, ...]
    patients: tuple[Built, ...]
    rejected: tuple[Rejected, ...] = ()
    unlabelled: tuple[Unlabelled, ...] = ()
    statistics: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    label_values: tuple[tuple[str, int], ...] = ()

    def shards_of(self, split: str, fold: int | None = None) -> tuple[Shard, ...]:
        """The shards of 'train' or 'validation'.

        fold: None takes the split as built; a number takes this fold for validation and all
        others for training, for cross-validation.
        """
        if fold is None:
            return tuple(shard for shard in self.shards if shard.split == split)
        return tuple(s for s in self.shards if (s.fold == fold) == (split == VALIDATION))

    def save(self, folder: str) -> None:
        """Writes FOLDER/dataset.json atomically."""
        value = {"format": FORMAT, "organs": list(organs.NAMES), **vars(self)}
        files.write_json(files.join(folder, FILE_NAME), value)

    @classmethod
    def load(cls, folder: str) -> "Dataset":
        """Reads FOLDER/dataset.json; raises InputError where it is missing or outdated."""
        path = files.join(folder, FILE_NAME)
        if not files.exists(path):
            raise InputError(
                f"{folder}: expected a dataset, found no {FILE_NAME}; "
                f"make one with python -m beam_jobs.build --output={folder}"
            )
        value = files.read_json(path)
        if value.get("format") != FORMAT or value.get("organs") != list(organs.NAMES):
            raise InputError(
                f"{path}: expected format {FORMAT} with organs {list(organs.NAMES)}, found format "
                f"{value.get('format')} with {value.get('organs')}; build the dataset again"
            )
        return cls(
            recipe=Recipe.from_json(value["recipe"]),
            folds=value["folds"],
            shards=_rows(Shard, value["shards"]),
            patients=_rows(Built, value["patients"]),
            rejected=_rows(Rejected, value["rejected"]),
            unlabelled=_rows(Unlabelled, value["unlabelled"]),
            statistics=value["statistics"],
            versions=value["versions"],
            label_values=tuple(map(tuple, value.get("label_values", ()))),
        )


def _rows(kind, rows) -> tuple:
    return tuple(
        kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}) for row in rows
    )
