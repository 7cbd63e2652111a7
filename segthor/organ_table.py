"""Reads tables of organs from CSV or JSON files; docs/organs.md explains the columns."""

import re

from segthor import csv_files, fields, json_files
from segthor.errors import InputError
from segthor.organs import RANGES, RELATIONS, Organ, Organs

# Ranges are written 'lowest to highest', lists with ';' between, colours 'red green blue'.
_FIRST, _LAST = "name label rgb tg263 synonyms snomed", "tolerance_mm contouring source"
COLUMNS = (*_FIRST.split(), *RANGES, "max_components", "side", "mirror", *RELATIONS, *_LAST.split())
# Colours of organs for which a table gives none. Colour-blind people can distinguish them (Okabe
# and Ito, Color Universal Design, 2008); the last five are paler copies of earlier ones.
_PALETTE = [
    tuple(bytes.fromhex(colour))
    for colour in (
        "e69f00 56b4e9 009e73 f0e442 0072b2 d55e00 cc79a7 f3cf80 abdaf4 80cfb9 80b9d9 eaaf80"
    ).split()
]


def read(path: str) -> Organs:
    """Reads a table from a CSV with columns of `COLUMNS`, at least name and label, or from JSON.

    Raises:
      InputError: No such file, other columns, a wrong value or a contradiction; the message names
        the file and the line.
    """
    if path.lower().endswith(".json"):
        return fields.from_json(Organs, json_files.read(path), path)
    rows = []
    for line, cells in csv_files.read_table(path, COLUMNS, ("name", "label"), comment="#"):
        try:
            rows.append(_organ(cells, len(rows)))
        except InputError as error:
            raise InputError(f"{path}, line {line}: {error}") from error
    try:
        return Organs(tuple(rows))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_roi_names(path: str, organs: Organs) -> tuple[tuple[str, str], ...]:
    """Reads (organ, name of its ROI) pairs from a CSV with the columns organ,name.

    Raises:
      InputError: No such file, other columns, an organ that is not in the table, or a row without a
        name.
    """
    rows = csv_files.read_table(path, ("organ", "name"), ("organ", "name"))
    known = ", ".join(organs.names)
    for line, row in rows:
        if row["organ"] not in organs or not row["name"]:
            raise InputError(
                f"{path}, line {line}: expected one of {known} and an ROI's name; found "
                f"{','.join(row.values())}"
            )
    return tuple((row["organ"], row["name"]) for _, row in rows)


def _organ(cells: dict[str, str], index: int) -> Organ:
    """The organ of one row of the CSV. index: Number of the row, from 0."""
    values = {key: cell for key, cell in cells.items() if cell and key != "source"}
    for key in ("synonyms", *RELATIONS):
        if key in values:
            values[key] = tuple(filter(None, map(str.strip, values[key].split(";"))))
    for key in RANGES:
        if key in values:
            values[key] = tuple(_number(key, part) for part in values[key].split(" to "))
    for key in {"label", "max_components"} & values.keys():
        values[key] = _whole(key, values[key])
    if "tolerance_mm" in values:
        values["tolerance_mm"] = _number("tolerance_mm", values["tolerance_mm"], "millimetres")
    if "rgb" in values:
        values["rgb"] = tuple(_whole("rgb", part) for part in values["rgb"].split())
    values.setdefault("rgb", _PALETTE[index % len(_PALETTE)])
    for key in ("name", "label"):
        if key not in values:
            raise InputError(f"{key}: expected a value, found an empty field")
    return Organ(**values)


def _whole(column: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise InputError(f"{column}: expected a whole number, found {text!r}")
    return int(text)


def _number(column: str, text: str, expected: str = "'LOWEST to HIGHEST'") -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{column}: expected {expected}, found {text!r}") from None
