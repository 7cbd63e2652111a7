"""Who the patients are: their CT, their contours, and what a CSV says about them. Paths only."""

import csv
import io
import re
from dataclasses import dataclass

from segthor import files, organs
from segthor.errors import InputError
from segthor.manifest import TRAIN, VALIDATION
from segthor.nifti import is_nifti, stem

COLUMNS = ("patient", "ct", "labels", "split", "organs")
_CONTOURS = re.compile(r"gt(?:[_-]?(\d+))?$", re.IGNORECASE)
_LOOKED_FOR = (
    "train/Patient_01/Patient_01.nii.gz with GT.nii.gz beside it, Patient_01.nii.gz with "
    "GT_01.nii.gz in one folder, nnU-Net's imagesTr and labelsTr, or a CSV with the columns "
    + ",".join(COLUMNS)
)


@dataclass(frozen=True)
class Source:
    """One patient's files. labels: '' where there are no contours.

    split: 'train', 'validation' or '' where the input does not say. organs: those contoured.
    masks: an earlier model's label map, or ''. twin: another patient with the same scan, or ''.
    """

    patient: str
    ct: str
    labels: str = ""
    split: str = ""
    organs: tuple[str, ...] = organs.NAMES
    masks: str = ""
    twin: str = ""


def discover(path: str) -> list[Source]:
    """Every patient of a folder or a CSV, sorted by name.

    Raises:
      InputError: nothing there, two patients of one name, a CSV that does not fit.
    """
    if files.is_dir(path):
        sources = _in_folder(path)
    elif path.lower().endswith(".csv"):
        sources = _in_csv(path)
    else:
        found = "a file" if files.exists(path) else "nothing"
        raise InputError(f"{path}: expected a folder of patients or a .csv, found {found}")
    if not sources:
        raise InputError(f"{path}: no patient found; looked for {_LOOKED_FOR}")
    return _without_twins(sorted(sources, key=lambda source: source.patient), path)


def _in_folder(root: str) -> list[Source]:
    """SegTHOR's layouts: train/ and test/, or one of the two, or a folder of patients."""
    names = {name.lower(): name for name in files.listdir(root)}
    parts = [files.join(root, names[part]) for part in ("train", "test") if part in names]
    parts = [part for part in parts if files.is_dir(part)] or [root]
    return [source for part in parts for source in _in_part(part)]


def _in_part(folder: str) -> list[Source]:
    found = _patients_of(folder, as_one=False)
    for name in files.listdir(folder):
        inner = files.join(folder, name)
        if not is_nifti(name) and files.is_dir(inner):
            found += _patients_of(inner, as_one=True)
    return found


def _patients_of(folder: str, as_one: bool) -> list[Source]:
    """The patients whose files lie in this folder; as_one: they are one patient's, named so."""
    scans = [name for name in files.listdir(folder) if is_nifti(name)]
    contours = {name: _CONTOURS.match(stem(name)) for name in scans}
    images = [name for name in scans if not contours[name]]
    masks = [name for name in scans if contours[name]]
    if as_one and len(images) == 1 and len(masks) <= 1:
        labels = files.join(folder, masks[0]) if masks else ""
        return [Source(files.name(folder), files.join(folder, images[0]), labels)]
    by_number = {int(contours[name][1]): name for name in masks if contours[name][1]}
    if masks and (len(by_number) < len(masks) or not images):
        raise InputError(
            f"{folder}: cannot tell whose contours {masks[0]} are; expected one CT beside it, or "
            f"numbers (Patient_01.nii.gz, GT_01.nii.gz); found {', '.join(scans[:4])}"
        )
    sources = []
    for name in images:
        number = re.search(r"(\d+)$", stem(name))
        mask = by_number.get(int(number[1])) if number else None
        labels = files.join(folder, mask) if mask else ""
        sources.append(Source(stem(name), files.join(folder, name), labels))
    return sources


def _in_csv(path: str) -> list[Source]:
    try:
        table = csv.DictReader(io.StringIO(files.read_bytes(path).decode("utf-8-sig"), newline=""))
        header, rows = tuple(table.fieldnames or ()), list(table)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV in UTF-8 ({error})") from error
    if not {"patient", "ct"} <= set(header) <= set(COLUMNS):
        raise InputError(
            f"{path}: expected the columns {','.join(COLUMNS)} (patient and ct at least), "
            f"found {','.join(map(str, header))}"
        )
    return [_from_row(row, f"{path}, line {line}", path) for line, row in enumerate(rows, 2)]


def _from_row(row: dict, where: str, path: str) -> Source:
    if None in row or None in row.values():
        raise InputError(f"{where}: expected as many values as columns")
    row = {column: value.strip() for column, value in row.items()}
    if not row["patient"] or not row["ct"]:
        raise InputError(f"{where}: expected a patient and a ct, found an empty field")
    split = row.get("split", "")
    if split not in ("", TRAIN, VALIDATION):
        raise InputError(f"{where}: split: expected {TRAIN}, {VALIDATION} or empty, found {split}")
    contoured = tuple(re.split(r"[;\s]+", row["organs"])) if row.get("organs") else organs.NAMES
    unknown = sorted(set(contoured) - set(organs.NAMES))
    if unknown:
        raise InputError(
            f"{where}: organs: expected some of {';'.join(organs.NAMES)}, found {unknown[0]!r}"
        )
    contoured = tuple(name for name in organs.NAMES if name in contoured)
    labels = row.get("labels", "")
    base = files.parent(path)
    return Source(
        row["patient"],
        _beside(base, row["ct"]),
        _beside(base, labels) if labels else "",
        split,
        contoured,
    )


def _beside(folder: str, path: str) -> str:
    return path if files.is_url(path) or path.startswith("/") else files.join(folder, path)


def _without_twins(sources: list[Source], path: str) -> list[Source]:
    for one, other in zip(sources, sources[1:], strict=False):
        if one.patient == other.patient:
            raise InputError(
                f"{path}: two patients are named {one.patient}: {one.ct} and {other.ct}; "
                "rename one, or give a CSV"
            )
    return sources
