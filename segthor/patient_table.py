"""Reads CSV files of patients, with the columns patient,ct,labels,split,organs."""

import re

from segthor import csv_files, files
from segthor.errors import InputError
from segthor.manifest import TRAIN, VALIDATION
from segthor.organs import Organs
from segthor.patients import Patient

SERIES = ("drawn", "each")
SERIES_HELP = (
    "Which volumes of a DICOM patient: drawn, those that a structure set was drawn on; each, all; "
    "or a CSV with the columns patient and series, as beam_jobs.build --list names them."
)
COLUMNS = ("patient", "ct", "labels", "split", "organs")


def read(path: str, needed: str = "ct", *, organs: Organs | None) -> list[Patient]:
    """Reads the patients of a CSV. Its paths are relative to the folder of the CSV.

    The column organs lists the contoured organs, separated by ';' or spaces; empty: all organs.

    Args:
      path: The CSV.
      needed: A column that must be present, in addition to patient.
      organs: The table of organs. None: contoured organs are not checked.

    Raises:
      InputError: There is no such file, it has other columns, or an unknown organ or split.
    """
    rows = csv_files.read_table(path, COLUMNS, ("patient", needed))
    if not rows:
        raise InputError(f"{path}: expected a line per patient, found none")
    return [_patient(row, f"{path}, line {line}", path, organs) for line, row in rows]


def read_series(text: str) -> str | tuple[tuple[str, str], ...]:
    """The value of --series: 'drawn', 'each', '' or the (patient, series) pairs of a CSV.

    Raises:
      InputError: Any other value.
    """
    if text in ("", *SERIES):
        return text
    if not text.lower().endswith(".csv"):
        expected = f"{', '.join(SERIES)} or a .csv with the columns patient,series"
        raise InputError(f"--series: expected {expected}, found {text}")
    rows = csv_files.read_table(files.absolute(text), *2 * [("patient", "series")])
    return tuple((row["patient"], row["series"]) for _, row in rows)


def _patient(row: dict[str, str], where: str, path: str, organs: Organs | None) -> Patient:
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
        organs=_organs(row.get("organs", ""), where, organs) if organs else (),
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
