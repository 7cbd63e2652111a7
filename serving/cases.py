"""Which scans a prediction job takes, and which label maps belong to which patient. Paths only."""

from dataclasses import dataclass

from segthor import files, inputs, manifest, organs, table
from segthor.errors import InputError
from segthor.nifti import is_nifti, stem


@dataclass(frozen=True)
class Scan:
    """One scan to predict. file: the name of its label map, which is the scan's own."""

    patient: str
    ct: str
    file: str


@dataclass(frozen=True)
class Labels:
    """One patient's label map.

    organs: those that were contoured. values: (organ, value in the file), where they are not this
    project's.
    """

    patient: str
    path: str
    organs: tuple[str, ...] = organs.NAMES
    values: tuple[tuple[str, int], ...] = ()


def scans(path: str, split: str | None = None) -> list[Scan]:
    """Every scan of a folder in one of the data job's layouts, a CSV, a dataset, or one file.

    split: only the patients of 'train' or 'validation', where `path` is a dataset.

    Raises:
      InputError: no scan found, or two of one name.
    """
    if split and not _is_dataset(path):
        raise InputError(f"--split={split}: {path} is no dataset, and knows no split")
    if _is_dataset(path):
        data = manifest.Dataset.load(path)
        rows = [row for row in data.patients if split in (None, row.split)]
        rows += () if split else data.unlabelled
    elif is_nifti(path):
        if not files.exists(path):
            raise InputError(f"{path}: no such file")
        rows = [inputs.Patient(stem(path), path)]
    elif path.lower().endswith(".csv"):
        rows = table.in_csv(path).sources
    else:
        rows = inputs.in_folder(path).sources
    return [_scan(row.patient, row.ct) for row in inputs.in_order(rows, path)]


def labels(path: str) -> list[Labels]:
    """Every label map of a folder, a CSV or a dataset, sorted by patient.

    A folder holds one label map per patient, or CT and contours in one of the data job's layouts;
    the scans are then left aside.

    Raises:
      InputError: no label map found, or two for one patient.
    """
    if _is_dataset(path):
        found = manifest.Dataset.load(path)
        rows, values = found.patients, found.label_values
    elif path.lower().endswith(".csv"):
        rows, values = table.in_csv(path, needed="labels").sources, ()
    else:
        found = inputs.labels_in_folder(path)
        rows, values = found.sources, found.label_values
    rows = inputs.in_order([row for row in rows if row.labels], path)
    kept = [Labels(row.patient, row.labels, row.organs, values) for row in rows]
    if not kept:
        raise InputError(f"{path}: expected at least one label map (.nii or .nii.gz), found none")
    return kept


def predictions(folder: str) -> dict[str, str]:
    """Patient -> label map, of a folder that a prediction job wrote (or of flat label maps).

    Raises:
      InputError: no such folder, or no label map in it.
    """
    found = {stem(n): files.join(folder, n) for n in files.listdir(folder) if is_nifti(n)}
    if not found:
        raise InputError(f"{folder}: expected label maps (.nii or .nii.gz), found none")
    return found


def _is_dataset(path: str) -> bool:
    """Whether it is a folder of the data job's; nnU-Net's raw folders have a dataset.json too."""
    found = files.exists(files.join(path, manifest.FILE_NAME))
    return found and not files.is_dir(files.join(path, "imagesTr"))


def _scan(patient: str, ct: str) -> Scan:
    suffix = files.name(ct)[len(stem(ct)) :]
    return Scan(patient, ct, patient + suffix)
