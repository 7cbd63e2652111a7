"""Which scans a prediction job takes, and which label maps belong to which patient. Paths only."""

import csv
import io
import re
from dataclasses import dataclass

from segthor import files, manifest, organs
from segthor.errors import InputError
from segthor.nifti import is_nifti, stem

_CONTOURS = re.compile(r"gt(?:[_-]?(\d+))?$", re.IGNORECASE)


@dataclass(frozen=True)
class Scan:
    """One scan to predict. file: the name of its label map, which is the scan's own."""

    patient: str
    ct: str
    file: str


@dataclass(frozen=True)
class Labels:
    """One patient's label map. organs: those that were contoured."""

    patient: str
    path: str
    organs: tuple[str, ...] = organs.NAMES


def scans(path: str, split: str | None = None) -> list[Scan]:
    """Every scan of a folder, a CSV, a dataset's folder, or one file; sorted by name.

    split: only the patients of 'train' or 'validation', where `path` is a dataset.

    A folder holds scans, or SegTHOR's train/ and test/, or a folder per patient; contours
    (GT.nii.gz, GT_01.nii.gz) are no scans.

    Raises:
      InputError: no scan found, or two of one name.
    """
    is_dataset = files.exists(files.join(path, manifest.FILE_NAME))
    if split and not is_dataset:
        raise InputError(f"--split={split}: {path} is no dataset, and knows no split")
    if is_nifti(path):
        if not files.exists(path):
            raise InputError(f"{path}: no such file")
        found = [_scan(stem(path), path)]
    elif path.lower().endswith(".csv"):
        found = [_scan(row["patient"], row["ct"]) for row in _rows(path, "ct")]
    elif is_dataset:
        data = manifest.Dataset.load(path)
        rows = [row for row in data.patients if split in (None, row.split)]
        found = [_scan(r.patient, r.ct) for r in (*rows, *(() if split else data.unlabelled))]
    else:
        found = [_scan(patient, ct) for patient, ct in _niftis(path) if not _is_contours(ct)]
    return _distinct(found, path, "scan (.nii or .nii.gz)")


def labels(path: str) -> list[Labels]:
    """Every label map of a folder or a CSV, sorted by patient.

    A folder holds one file per patient, or SegTHOR's train/, or a folder per patient with GT.nii.gz
    inside; where contours carry that name, the scans beside them are left aside.

    Raises:
      InputError: no label map found, or two for one patient.
    """
    if path.lower().endswith(".csv"):
        found = [
            Labels(row["patient"], row["labels"], _contoured(row))
            for row in _rows(path, "labels")
            if row["labels"]
        ]
    elif files.exists(files.join(path, manifest.FILE_NAME)):
        rows = manifest.Dataset.load(path).patients
        found = [Labels(row.patient, row.labels, tuple(row.organs)) for row in rows]
    else:
        all_files = list(_niftis(path))
        contours = [(patient, file) for patient, file in all_files if _is_contours(file)]
        found = [Labels(_owner(patient, file), file) for patient, file in contours or all_files]
    return _distinct(found, path, "label map (.nii or .nii.gz)")


def predictions(folder: str) -> dict[str, str]:
    """Patient -> label map, of a folder that a prediction job wrote (or of flat label maps).

    Raises:
      InputError: no such folder, or no label map in it.
    """
    found = {stem(n): files.join(folder, n) for n in files.listdir(folder) if is_nifti(n)}
    if not found:
        raise InputError(f"{folder}: expected label maps (.nii or .nii.gz), found none")
    return found


def _scan(patient: str, ct: str) -> Scan:
    suffix = files.name(ct)[len(stem(ct)) :]
    return Scan(patient, ct, patient + suffix)


def _niftis(folder: str):
    """(patient, file): flat files are named by themselves, those in a patient's folder by it."""
    names = files.listdir(folder)
    for part in ("train", "test"):
        if part in names and files.is_dir(files.join(folder, part)):
            yield from _niftis(files.join(folder, part))
    for name in names:
        inner = files.join(folder, name)
        if is_nifti(name):
            yield stem(name), inner
        elif name not in ("train", "test") and files.is_dir(inner):
            own = [entry for entry in files.listdir(inner) if is_nifti(entry)]
            yield from ((name, files.join(inner, entry)) for entry in own)


def _is_contours(path: str) -> bool:
    return bool(_CONTOURS.match(stem(path)))


def _owner(patient: str, file: str) -> str:
    """GT_01 beside Patient_01 belongs to it; GT inside a patient's folder belongs to that one."""
    number = _CONTOURS.match(patient)
    return f"Patient_{number[1]}" if number and number[1] else patient


def _rows(path: str, column: str):
    text = files.read_bytes(path).decode("utf-8-sig", errors="replace")
    table = csv.DictReader(io.StringIO(text, newline=""))
    missing = {"patient", column} - set(table.fieldnames or ())
    if missing:
        raise InputError(
            f"{path}: expected the columns patient,{column}, "
            f"found {','.join(map(str, table.fieldnames or ()))}"
        )
    base = files.parent(path)
    for line, row in enumerate(table, 2):
        row = {name: (value or "").strip() for name, value in row.items() if name}
        if not row["patient"]:
            raise InputError(f"{path}, line {line}: expected a patient, found an empty field")
        for name in ("ct", "labels"):
            value = row.get(name)
            if value and not files.is_url(value) and not value.startswith("/"):
                row[name] = files.join(base, value)
        yield row


def _contoured(row) -> tuple[str, ...]:
    named = re.split(r"[;\s]+", row["organs"]) if row.get("organs") else organs.NAMES
    unknown = sorted(set(named) - set(organs.NAMES))
    if unknown:
        raise InputError(f"organs: expected some of {';'.join(organs.NAMES)}, found {unknown[0]!r}")
    return tuple(name for name in organs.NAMES if name in named)


def _distinct(found, path: str, what: str) -> list:
    if not found:
        raise InputError(f"{path}: expected at least one {what}, found none")
    found = sorted(found, key=lambda entry: entry.patient)
    for one, other in zip(found, found[1:], strict=False):
        if one.patient == other.patient:
            raise InputError(f"{path}: two files for {one.patient}: {one} and {other}; rename one")
    return found
