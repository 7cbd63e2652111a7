"""Patients from a CSV: patient,ct,labels,split,organs."""

import re

from segthor import csv_files, files
from segthor.errors import InputError
from segthor.manifest import TRAIN, VALIDATION
from segthor.organs import SEGTHOR, Organs
from segthor.patients import Patient

COLUMNS = ("patient", "ct", "labels", "split", "organs")


def read(path: str, needed: str = "ct", organs: Organs | None = SEGTHOR) -> list[Patient]:
    """Every patient of a CSV. Paths are relative to the CSV's folder.

    Columns patient and `needed` must be there. labels: '' for a patient without contours. split:
    'train' or 'validation'. organs: the contoured ones, between ';' or spaces; empty means all
    of the table `organs`; where that is None, nobody asks.

    Raises:
      InputError: no such file, other columns, an unknown organ or split.
    """
    lines = csv_files.read_lines(path)
    header = [column.lower() for column in lines[0][1]] if lines else []
    if not {"patient", needed} <= set(header) <= set(COLUMNS) or len(set(header)) < len(header):
        raise InputError(
            f"{path}: expected the columns {','.join(COLUMNS)} (patient and {needed} at least), "
            f"found {','.join(header) or 'nothing'}"
        )
    numbered = lines[1:]
    if not numbered:
        raise InputError(f"{path}: expected a line per patient, found none")
    return [_patient(header, row, f"{path}, line {line}", path, organs) for line, row in numbered]


def _patient(
    header: list[str], values: list[str], where: str, path: str, organs: Organs | None
) -> Patient:
    if len(values) != len(header):
        raise InputError(f"{where}: expected {len(header)} values, found {len(values)}")
    row = dict(zip(header, values, strict=True))
    for column in {"patient", "ct"} & set(row):
        if not row[column]:
            raise InputError(f"{where}: {column}: expected a value, found an empty field")
    split = row.get("split", "").lower()
    if split not in ("", TRAIN, VALIDATION):
        raise InputError(f"{where}: split: expected {TRAIN}, {VALIDATION} or empty, found {split}")
    return Patient(
        row["patient"],
        _beside(path, row.get("ct", "")),
        _beside(path, row.get("labels", "")),
        split,
        _organs(row.get("organs", ""), where, organs) if organs else (),
    )


def _organs(text: str, where: str, organs: Organs) -> tuple[str, ...]:
    named = {name.lower() for name in re.split(r"[;\s]+", text) if name} or set(organs.names)
    unknown = sorted(named - set(organs.names))
    if unknown:
        known = ";".join(organs.names)
        raise InputError(f"{where}: organs: expected some of {known}, found {unknown[0]!r}")
    return tuple(name for name in organs.names if name in named)


def _beside(csv_path: str, path: str) -> str:
    if not path or files.is_url(path) or path.startswith("/"):
        return path
    return files.join(files.parent(csv_path), path)
