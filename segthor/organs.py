"""The table of organs: names, label values, colours, synonyms and plausible ranges.

The data job reads a table from a file (--organ_table, docs/organs.md) and writes it into the
manifest. The trainer, the model, the predictor and the scores read it from there. SegTHOR's four
organs are defined here because every program uses them by default.
"""

import dataclasses
import functools
import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass, field

from segthor import fields
from segthor.errors import InputError

BACKGROUND = 0
MOST_LABEL = 255  # label maps are uint8
SIDES = ("", "left", "right")
_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*$")
_MOST_NAME = 25  # letters; see `segthor.patients.MOST_NAME_BYTES`
RESERVED = ("all", "background", "fold", "ignore", "mean", "patient")
_SNOMED = re.compile("[0-9]{1,16}")  # DICOM's short strings have at most 16 characters
_TG263 = re.compile(r"[A-Za-z0-9_~+^-]{1,16}$")  # so have names in planning systems
RANGES = ("volume_cm3", "mean_hu", "extent_z_mm")
_TOLERANCE_MM, _MOST_TOLERANCE_MM = 3.0, 50  # the default is the usual thickness of a slice
RELATIONS = ("left_of", "right_of", "in_front_of", "below")
# Fields that are left out of JSON where they have their default, so that tables without them keep
# the digest that they had before these fields existed.
_LATER_FIELDS = {"tolerance_mm": _TOLERANCE_MM, "mirror": "", "contouring": ""}


@dataclass(frozen=True)
class Organ:
    """One organ. A range is the (lowest, highest) plausible value, both included; None: unchecked.

    name: Lower case, words joined by '_', at most 25 characters, none of RESERVED; it is part of
      the names of files and of columns.
    label: Value in label maps, 1 to 255.
    rgb: Colour, 0 to 255 each.
    tg263: Standard name in planning systems (AAPM, report of task group 263); '' for none.
    synonyms: Other names in structure sets.
    snomed: SNOMED CT code; '' for none.
    volume_cm3, mean_hu, extent_z_mm: Plausible volume, mean HU inside, and length along the body.
    max_components: Number of pieces that the organ may have; None: unchecked.
    side: 'left' or 'right' for an organ that must lie on that side of the patient, or ''.
    mirror: Name of the organ that this one becomes in an image mirrored left to right: its
      counterpart of the other side, or the organ itself; '' where the table does not say.
    left_of, right_of, in_front_of, below: Organs relative to which the organ's centre must lie so;
      of several, the first that is present decides.
    tolerance_mm: Largest distance at which a contour needs no correction; see `segthor.effort`.
    contouring: The rule by which the organ is contoured, for people. No program uses it, so tables
      that differ only in it are equal and have the same digest.
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
        expected = f"lower-case letters, digits and '_', at most {_MOST_NAME}, and none of "
        _check(is_name(self.name), f"name {self.name!r}", expected + ", ".join(RESERVED))
        self._check(
            "label",
            _is_whole(self.label, 1, MOST_LABEL),
            f"1 to {MOST_LABEL} (0 is the background)",
        )
        is_colour = len(self.rgb) == 3 and all(_is_whole(value, 0, 255) for value in self.rgb)
        self._check("rgb", is_colour, "red, green, blue, 0 to 255 each")
        is_tg263 = not self.tg263 or _TG263.match(self.tg263)
        self._check("tg263", is_tg263, "at most 16 letters, digits and _ ~ + ^ -")
        is_code = not self.snomed or _SNOMED.fullmatch(self.snomed)
        self._check("snomed", is_code, "a SNOMED CT code of at most 16 digits")
        for name in RANGES:
            limits = getattr(self, name)
            is_range = limits is None or _is_range(limits)
            self._check(name, is_range, "lowest and highest, in this order")
        pieces = self.max_components
        self._check("max_components", pieces is None or _is_whole(pieces, 1, 10**6), "1 or more")
        self._check("side", self.side in SIDES, "left, right or empty")
        is_tolerance = _is_range((0, self.tolerance_mm)) and self.tolerance_mm <= _MOST_TOLERANCE_MM
        self._check("tolerance_mm", is_tolerance, f"0 to {_MOST_TOLERANCE_MM} mm")

    def _check(self, name: str, condition, expected: str) -> None:
        value = getattr(self, name)
        given = repr(value) if isinstance(value, str) else value
        _check(condition, f"{self.name}: {name} {given}", expected)

    @property
    def known_as(self) -> frozenset[str]:
        """The organ's names in a structure set, in the form of `plain_name`."""
        names = map(plain_name, (self.name, self.tg263, *self.synonyms))
        return frozenset(names) - {""}  # a synonym of '-' would match an ROI without a name


@dataclass(frozen=True)
class Organs:
    """A table of organs, in the order of its rows; see `docs/organs.md`.

    Raises:
      InputError: No organ; two organs with the same name, label, TG-263 name or synonym; a relation
        to an organ that is not in the table; or mirror images that do not name each other.
    """

    rows: tuple[Organ, ...]

    def __post_init__(self):
        _check(self.rows, "no organ", "at least one")
        for what in ("name", "label", "tg263"):
            _check_unique([(getattr(organ, what), organ.name) for organ in self.rows], what)
        synonyms = [(name, organ.name) for organ in self.rows for name in organ.known_as]
        _check_unique(synonyms, "synonym")
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
        expected = f"{other.name} to have the mirror {organ.name!r}, not {other.mirror!r}"
        _check(other.mirror == organ.name, what, expected)
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
        """Name to label value."""
        return {organ.name: organ.label for organ in self.rows}

    @property
    def highest_label(self) -> int:
        """The largest label value."""
        return max(organ.label for organ in self.rows)

    def labels(self, names) -> list[int]:
        """The label values of these organs, in the order of `names`."""
        return [self[name].label for name in names]

    def places(self, names) -> list[int]:
        """The indices of these organs in the table, from 0, in the order of `names`."""
        return [self.names.index(name) for name in names]

    def select(self, names) -> "Organs":
        """The table of the organs among `names`, without their relations to other organs."""
        rows = [organ for organ in self.rows if organ.name in names]
        present = {organ.name for organ in rows}
        return Organs(tuple(_select_relations(organ, present) for organ in rows))

    def to_json(self) -> list[dict]:
        """One dictionary of plain values per organ, in order; the inverse of `from_rows`."""
        rows = [dataclasses.asdict(organ) for organ in self.rows]
        for row in rows:
            for name, default in _LATER_FIELDS.items():
                if row[name] == default:
                    del row[name]
        return rows

    @classmethod
    def from_rows(cls, value) -> "Organs":
        """The inverse of `to_json`; raises InputError where `value` is no valid table."""
        return cls(fields.from_json(tuple[Organ, ...], value, "no table of organs"))

    def digest(self) -> str:
        """Digest of the table without `contouring`, 16 hexadecimal digits."""
        rows = [{k: v for k, v in row.items() if k != "contouring"} for row in self.to_json()]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def plain_name(name: str) -> str:
    """The name in lower case, without '_', '-' and blanks, and in Unicode's composed form (NFC).

    Names of ROIs are compared in this form.
    """
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFC", name.strip().casefold()))


def is_name(text: str) -> bool:
    """Whether an organ may have this name."""
    return bool(_NAME.match(text)) and len(text) <= _MOST_NAME and text not in RESERVED


def _select_relations(organ: Organ, present: set[str]) -> Organ:
    relations = {
        relation: tuple(name for name in getattr(organ, relation) if name in present)
        for relation in RELATIONS
    }
    mirror = organ.mirror if organ.mirror in present else ""
    return dataclasses.replace(organ, **relations, mirror=mirror)


def _check(condition, given: str, expected: str) -> None:
    if not condition:
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


# Volumes are the minimum and maximum of SegTHOR's training set, widened by about a half on either
# side: an unusual but plausible patient gives no finding, a swapped or merged organ does.
# Blood without contrast agent has about 40 HU; contrast agent adds up to 400.
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
