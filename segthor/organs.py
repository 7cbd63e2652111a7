"""The table of organs: names, label values, colours, synonyms and plausible ranges.

A table is a value. The data job reads it from a file (--organ_table, docs/organs.md) and writes it
into the manifest. The trainer, the model, the predictor and the scores take it from there.
SegTHOR's four organs are defined here because every program uses them by default.
"""

import dataclasses
import functools
import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass, field

from segthor.errors import InputError

BACKGROUND = 0
MOST_LABEL = 255  # label maps are uint8
SIDES = ("", "left", "right")
_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*$")
_MOST_NAME = 25  # a file name ends at 255 bytes; segthor.inputs lists what else is in it
RESERVED = ("all", "background", "fold", "ignore", "mean", "patient")
_SNOMED = re.compile("[0-9]{1,16}")  # DICOM's short strings hold no more
_TG263 = re.compile(r"[A-Za-z0-9_~+^-]{1,16}$")  # a planning system takes 16 characters
RANGES = ("volume_cm3", "mean_hu", "extent_z_mm")
_TOLERANCE_MM, _MOST_TOLERANCE_MM = 3.0, 50  # default: a slice's thickness
RELATIONS = ("left_of", "right_of", "in_front_of", "below")
# Left out of JSON where they have their default: tables that do not use them keep their digest,
# and versions from before the fields existed can read them.
_LATER_FIELDS = {"tolerance_mm": _TOLERANCE_MM, "mirror": "", "contouring": ""}


@dataclass(frozen=True)
class Organ:
    """One organ. Every range is (lowest, highest) plausible value, both included; None: unchecked.

    name: Lower case, words joined by '_', at most 25 characters; part of file names, and the name
      of a column beside those of RESERVED.
    label: Value in label maps, 1 to 255.
    rgb: Colour, 0 to 255 each.
    tg263: Standard name in planning systems (AAPM, report of task group 263); '' for none.
    synonyms: Other names in structure sets.
    snomed: SNOMED CT code; '' for none.
    volume_cm3, mean_hu, extent_z_mm: Plausible volume, mean HU inside, and length along the body.
    max_components: Number of pieces that the organ may have; None: unchecked.
    side: 'left' or 'right' for an organ that must lie on that side of the patient, or ''.
    mirror: Name of the organ that this one becomes in a picture mirrored left to right: the same
      organ of the other side, or the organ itself; '' where the table does not say.
    left_of, right_of, in_front_of, below: Organs beside which the organ's centre must lie so; of
      several, the first that is present decides.
    tolerance_mm: Largest distance at which a contour needs no correction; see `segthor.effort`.
    contouring: The rule by which the organ is contoured, for people; it decides nothing, so tables
      that differ in it alone are equal and have one digest.
    """

    name: str
    label: int
    rgb: tuple[int, int, int]
    tg263: str = ""
    synonyms: tuple[str, ...] = ()
    snomed: str = ""
    volume_cm3: tuple[float, float] | None = None
    mean_hu: tuple[float, float] | None = None
    extent_z_mm: tuple[float, float] | None = None
    max_components: int | None = None
    side: str = ""
    left_of: tuple[str, ...] = ()
    right_of: tuple[str, ...] = ()
    in_front_of: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
    tolerance_mm: float = _TOLERANCE_MM
    mirror: str = ""
    contouring: str = field(default="", compare=False)

    def __post_init__(self):
        _check(is_name(self.name), f"name {self.name!r}", f"lower-case letters, digits and '_', at "
               f"most {_MOST_NAME}, and none of {', '.join(RESERVED)}")  # fmt: skip
        _check(_is_whole(self.label, 1, MOST_LABEL), f"{self.name}: label {self.label}",
               f"1 to {MOST_LABEL} (0 is the background)")  # fmt: skip
        colour = len(self.rgb) == 3 and all(_is_whole(value, 0, 255) for value in self.rgb)
        _check(colour, f"{self.name}: colour {self.rgb}", "red, green, blue, 0 to 255 each")
        _check(not self.tg263 or _TG263.match(self.tg263), f"{self.name}: tg263 {self.tg263!r}",
               "at most 16 letters, digits and _ ~ + ^ -")  # fmt: skip
        is_code = not self.snomed or _SNOMED.fullmatch(self.snomed)
        _check(
            is_code, f"{self.name}: snomed {self.snomed!r}", "a SNOMED CT code of at most 16 digits"
        )
        for name in RANGES:
            limits = getattr(self, name)
            _check(limits is None or _is_range(limits), f"{self.name}: {name} {limits}",
                   "lowest and highest, in this order")  # fmt: skip
        pieces = self.max_components
        _check(pieces is None or _is_whole(pieces, 1, 10**6), f"{self.name}: pieces {pieces}",
               "1 or more")  # fmt: skip
        _check(self.side in SIDES, f"{self.name}: side {self.side!r}", "left, right or empty")
        mirror = self.mirror
        _check(isinstance(self.contouring, str), f"{self.name}: contouring", "a text")
        _check(isinstance(mirror, str), f"{self.name}: mirror {mirror!r}", "an organ's name")
        within = _is_range((0, self.tolerance_mm)) and self.tolerance_mm <= _MOST_TOLERANCE_MM
        _check(within, f"{self.name}: tolerance_mm {self.tolerance_mm}",
               f"0 to {_MOST_TOLERANCE_MM} mm")  # fmt: skip

    @property
    def known_as(self) -> frozenset[str]:
        """The organ's names as `plain_name` writes them: how a structure set may call it."""
        names = map(plain_name, (self.name, self.tg263, *self.synonyms))
        return frozenset(names) - {""}  # a synonym of '-' alone would be that of a nameless ROI


@dataclass(frozen=True)
class Organs:
    """A table of organs, in its own order; see `docs/organs.md`.

    Raises:
      InputError: no organ, or a table that contradicts itself: two organs with the same name,
        label, TG-263 name or synonym, a relation to an organ that is not in the table, or mirror
        images that do not name each other.
    """

    rows: tuple[Organ, ...]

    def __post_init__(self):
        _check(self.rows, "no organ", "at least one")
        for what in ("name", "label", "tg263"):
            _check_unique([(getattr(organ, what), organ.name) for organ in self.rows], what)
        spoken = [(name, organ.name) for organ in self.rows for name in organ.known_as]
        _check_unique(spoken, "synonym")
        for organ in self.rows:
            for relation in RELATIONS:
                for other in getattr(organ, relation):
                    known = other in self.names and other != organ.name
                    _check(known, f"{organ.name}: {relation} {other!r}", "another organ's name")
            if organ.mirror:
                self._check_mirror(organ)

    def _check_mirror(self, organ: Organ) -> None:
        what = f"{organ.name}: mirror {organ.mirror!r}"
        _check(organ.mirror in self, what, "an organ of the table")
        other = self[organ.mirror]
        _check(other.mirror == organ.name, what,
               f"{other.name} to have the mirror {organ.name!r}, not {other.mirror!r}")  # fmt: skip
        same_side = organ != other and organ.side and organ.side == other.side
        _check(not same_side, what, f"an organ of the other side than {organ.side}")

    def __iter__(self):
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Organ:
        return self._by_name[name]

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The organs' names, in the table's order."""
        return tuple(organ.name for organ in self.rows)

    @functools.cached_property
    def _by_name(self) -> dict[str, Organ]:
        return {organ.name: organ for organ in self.rows}

    @property
    def numbers(self) -> dict[str, int]:
        """Name to label value: what label maps, runs and models must agree on."""
        return {organ.name: organ.label for organ in self.rows}

    @property
    def highest_label(self) -> int:
        """The largest label value."""
        return max(organ.label for organ in self.rows)

    def labels(self, names) -> list[int]:
        """The label values of these organs, in the order given."""
        return [self[name].label for name in names]

    def places(self, names) -> list[int]:
        """The indices of these organs in the table, from 0, in the order given."""
        return [self.names.index(name) for name in names]

    def only(self, names) -> "Organs":
        """The table without the organs that are not among `names`, nor relations to them."""
        kept = [organ for organ in self.rows if organ.name in names]
        present = {organ.name for organ in kept}
        return Organs(tuple(_without_others(organ, present) for organ in kept))

    def to_json(self) -> list[dict]:
        """Plain values, one dictionary per organ, in order; `from_rows` restores them exactly."""
        rows = [dataclasses.asdict(organ) for organ in self.rows]
        for row in rows:
            for name, default in _LATER_FIELDS.items():
                if row[name] == default:
                    del row[name]
        return rows

    @classmethod
    def from_json(cls, value, where: str = "organs") -> "Organs":
        """The same as `from_rows`; `where` names the value in messages."""
        try:
            return cls.from_rows(value)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error

    @classmethod
    def from_rows(cls, value) -> "Organs":
        """The inverse of `to_json`.

        Raises:
          InputError: not a table of organs, or one that contradicts itself.
        """
        try:
            if not isinstance(value, list):
                raise InputError(f"a {type(value).__name__}; expected a list of organs")
            return cls(tuple(Organ(**_tuples(row)) for row in value))
        except (InputError, TypeError, AttributeError) as error:
            raise InputError(f"no table of organs: {error}") from error

    def digest(self) -> str:
        """A short digest of the table's content."""
        rows = [{k: v for k, v in row.items() if k != "contouring"} for row in self.to_json()]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def plain_name(name: str) -> str:
    """A name without case, '_', '-' and blanks; names of ROIs are compared in this form.

    Accents are one character each, however they are stored.
    """
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFC", name.strip().casefold()))


def is_name(text: str) -> bool:
    """Whether an organ may have this name."""
    return bool(_NAME.match(text)) and len(text) <= _MOST_NAME and text not in RESERVED


def _tuples(row: dict) -> dict:
    """The row with tuples in place of JSON's lists."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def _without_others(organ: Organ, present: set[str]) -> Organ:
    kept = {
        relation: tuple(name for name in getattr(organ, relation) if name in present)
        for relation in RELATIONS
    }
    return dataclasses.replace(organ, **kept, mirror=organ.mirror * (organ.mirror in present))


def _check(holds, given: str, expected: str) -> None:
    if not holds:
        raise InputError(f"{given}; expected {expected}")


def _check_unique(pairs, what: str) -> None:
    owners = {}
    for value, name in pairs:
        if value and owners.setdefault(value, name) != name:
            raise InputError(f"{what} {value!r} belongs to {owners[value]} and to {name}")
    if what == "name" and len({value for value, _ in pairs}) < len(pairs):
        raise InputError("two organs have the same name")


def _is_whole(value, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_range(limits) -> bool:
    numbers = all(isinstance(value, int | float) and abs(value) < 1e9 for value in limits)
    return len(limits) == 2 and numbers and limits[0] <= limits[1]


# Volumes are the SegTHOR training set's minimum and maximum, widened by about a half on either
# side: a plausible but unusual patient raises no alarm, and a swapped or merged organ does.
# HU ranges are of the organ's mean: unenhanced blood is about 40 HU, contrast agent adds up to 400.
# The heart is compared with the trachea first, because the esophagus bends to the left below it.
# The rules of contouring are those of the data set (Lambert et al., SegTHOR: Segmentation of
# Thoracic Organs at Risk in CT images, 2020).
SEGTHOR = Organs((
    Organ("esophagus", label=1, rgb=(230, 60, 60), tg263="Esophagus",
          synonyms=("oesophagus", "esoph", "oesoph"), snomed="32849002", volume_cm3=(15, 200),
          mean_hu=(-150, 150), extent_z_mm=(100, 400), max_components=3,
          contouring="from the 4th cervical vertebra to the esophago-gastric junction"),
    Organ("heart", label=2, rgb=(255, 130, 190), tg263="Heart", snomed="80891009",
          volume_cm3=(250, 2200), mean_hu=(-20, 600), extent_z_mm=(50, 220), max_components=1,
          left_of=("trachea", "esophagus"), in_front_of=("esophagus",), below=("trachea",),
          contouring="as the Radiation Therapy Oncology Group (RTOG) recommends"),
    Organ("trachea", label=3, rgb=(250, 210, 40), tg263="Trachea", snomed="44567001",
          volume_cm3=(10, 120), mean_hu=(-1000, -500), extent_z_mm=(40, 220), max_components=2,
          contouring="from the lower limit of the larynx to 2 cm below the carina, without the "
                     "lobar bronchi"),
    Organ("aorta", label=4, rgb=(70, 130, 255), tg263="A_Aorta",
          synonyms=("aorta thoracic", "thoracic aorta"), snomed="15825003", volume_cm3=(50, 600),
          mean_hu=(-10, 600), extent_z_mm=(80, 500), max_components=3,
          contouring="from its origin above the heart to below the pillars of the diaphragm"),
))  # fmt: skip
