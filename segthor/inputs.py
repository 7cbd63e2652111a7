"""Who the patients are: what --input, --scans, --labels and --predictions of every program may be.

Paths only: no scan is opened here.
"""

from dataclasses import replace

from segthor import files, ignored, json_files, layouts, manifest, patient_table, scans
from segthor.errors import InputError
from segthor.nifti import is_nifti, stem
from segthor.organs import Organs
from segthor.patients import Patient, checked


def find(
    path: str,
    split: str | None = None,
    label_values=(),
    *,
    organs: Organs | None,
    kept: str = "",
    series: str | tuple = "",
) -> tuple[Patient, ...]:
    """All patients in `path` (a folder, a DICOM tree, a CSV, a dataset or one scan), by name.

    A folder may hold NIfTI and DICOM. NIfTI that lie among a patient's DICOM files are left aside:
    converters leave copies of the slices there.

    Args:
      path: Where the patients are.
      split: Only those of 'train' or 'validation', where `path` is a dataset.
      label_values: (organ, value in the contours' files) instead of what the input says; organs
        not named there count as contoured in none.
      organs: The table of what may be contoured. None: contoured organs are not checked.
      kept: A file that keeps the patients of a DICOM tree until one of its files changes.
      series: Which volumes of a DICOM patient are taken; see `segthor.dicom.trees.patients`.

    Raises:
      InputError: no scan found, two patients of one name, or files that could be read in several
        ways.
    """
    path = _absolute(path)
    stored = _manifest(path)
    if stored is not None:
        patients = _in_dataset(stored, path, split)
    elif split:
        raise InputError(f"--split={split}: {path} is no dataset, and knows no split")
    elif files.is_dir(path):
        patients = _in_folder(path, organs, layouts.scans, kept, series)
    elif scans.is_dicom(path):
        patients = scans.dicom_patients(path, organs.names if organs else (), kept, series)
    elif is_nifti(path) and files.exists(path):
        patients = layouts.without_channel([Patient(stem(path), path)])
    else:
        patients = _in_csv(path, "ct", organs)
    found = checked(patients, path)
    if not found:
        raise InputError(f"{path}: expected at least one patient, found none")
    if not label_values:
        return found
    numbered = tuple(_numbered(one, label_values) for one in found)
    if organs:
        ignored.check(numbered[0].label_values, organs, "--label_values")
    return numbered


def find_contours(path: str, organs: Organs) -> tuple[Patient, ...]:
    """Every patient with contours, sorted: of a folder, a DICOM tree, a CSV or a dataset.

    A folder holds one label map per patient, or CT and contours in a known layout. ct is '' where
    it is not known.

    Raises InputError as `find` does.
    """
    path = _absolute(path)
    stored = _manifest(path)
    if stored is not None:
        patients = _in_dataset(stored, path)
    elif files.is_dir(path):
        patients = _in_folder(path, organs, layouts.contours)
    elif scans.is_dicom(path):
        patients = scans.dicom_patients(path, organs.names)
    else:
        patients = _in_csv(path, "labels", organs)
    found = checked([one for one in patients if one.labels or one.fault_code != "bad_name"], path)
    if not found:
        raise InputError(f"{path}: expected at least one label map (.nii or .nii.gz), found none")
    return found


def find_predictions(folder: str) -> dict[str, str]:
    """Patient's name to label map, of a folder that serving.predict wrote, or of flat label maps.

    Raises:
      InputError: no such folder, no label map in it, or two of one name.
    """
    found = layouts.named_files(_absolute(folder))
    if not found:
        raise InputError(f"{folder}: expected label maps (.nii or .nii.gz), found none")
    return found


def find_predicted(path: str, patients, organs: Organs) -> dict[str, Patient]:
    """Patient's name to what was predicted: label maps, or structure sets with their CT.

    path: as `find_predictions` has it; a DICOM tree; or a CSV with the columns patient, labels and,
    for structure sets, ct. patients: whose CT is known. Structure sets in a tree are those drawn on
    these CTs, or named as `find` does where none of them is DICOM.

    Raises InputError as `find_contours` does.
    """
    path = _absolute(path)
    if not files.is_dir(path):
        found = _in_csv(path, "labels", organs)
    elif not layouts.named_files(path) and layouts.has_dicom(path):
        series = [one for one in patients if scans.is_dicom(one.ct)]
        found = scans.drawn_on(path, series) if series else scans.dicom_patients(path, organs.names)
        if not any(one.labels or one.fault for one in found):
            raise InputError(
                f"{path}: expected label maps (.nii or .nii.gz) or structure sets of these "
                "patients' CT, found none"
            )
    else:
        found = [Patient(name, "", file) for name, file in find_predictions(path).items()]
    return {one.name: one for one in checked(found, path) if one.labels or one.fault}


def noted_organs(folder: str) -> Organs | None:
    """What the label values in a folder of predictions are; None where no prediction job noted it.

    Raises:
      InputError: The table makes no sense.
    """
    path = files.join(folder, layouts.PREDICTIONS)
    noted = json_files.read(path) if files.exists(path) else None
    if not isinstance(noted, dict) or "organs" not in noted:
        return None
    return Organs.from_json(noted["organs"], path)


def with_masks(patients, folder: str) -> tuple[Patient, ...]:
    """The patients with the label map from `folder` that is named after the patient or the CT."""
    masks = find_predictions(folder)
    found = [masks.get(one.name) or masks.get(stem(one.ct), "") for one in patients]
    if not any(found):
        raise InputError(f"{folder}: expected label maps named after patients, found none")
    return tuple(replace(one, masks=mask) for one, mask in zip(patients, found, strict=True))


def is_dataset(path: str) -> bool:
    """Whether it is a folder of the data job's."""
    return _manifest(path) is not None


def _manifest(path: str) -> dict | None:
    """The JSON of a dataset's manifest; of many patients it is long, and read this once.

    None where there is none of the data job's; others have a dataset.json too, as nnU-Net's.
    """
    file = files.join(path, manifest.FILE_NAME)
    value = json_files.read(file) if files.exists(file) else None
    ours = isinstance(value, dict) and not {"format", "shards"}.isdisjoint(value)
    return value if ours else None


def _numbered(patient: Patient, label_values) -> Patient:
    names = [name for name, _ in label_values if name != ignored.NAME]
    if not names:  # the input's own values, or the table's, and one for ignored voxels
        own = tuple(pair for pair in patient.label_values if pair[0] != ignored.NAME)
        return replace(patient, label_values=own + label_values)
    contoured = tuple(name for name in patient.organs if name in names)
    return replace(patient, organs=contoured, label_values=label_values)


def _in_dataset(stored: dict, folder: str, split: str | None = None) -> list[Patient]:
    data = manifest.Dataset.from_json(stored, files.join(folder, manifest.FILE_NAME))
    built = [
        Patient(
            row.patient,
            row.ct,
            row.labels,
            row.split,
            organs=row.organs,
            label_values=data.label_values,
        )
        for row in data.patients
        if split in (None, row.split)
    ]
    return built + [Patient(row.patient, row.ct) for row in data.unlabelled if not split]


def _in_folder(
    path: str, organs: Organs | None, read_nifti, kept: str = "", series: str | tuple = ""
) -> list[Patient]:
    """Patients of a folder: its DICOM files', and those of NIfTI that lie elsewhere in it.

    read_nifti: `layouts.scans` or `layouts.contours`.
    """
    names, has_nifti = organs.names if organs else (), layouts.has_nifti(path)
    if not has_nifti:
        return scans.dicom_patients(path, names, kept, series)
    if not layouts.has_dicom(path):
        return read_nifti(path, organs)
    try:
        patients = scans.dicom_patients(path, names, kept, series)
    except InputError:  # no CT among the DICOM files
        return read_nifti(path, organs)
    return patients + read_nifti(path, organs, _folders_of(patients, path))


def _folders_of(patients, root: str) -> frozenset[str]:
    """Folders that hold DICOM files of patients, and those above them below the root."""
    folders = set()
    for one in patients:
        folder = scans.folder_of(one.ct)
        folders.add(folder)
        while len(folder) > len(root) and files.parent(folder) != root:
            folder = files.parent(folder)
            folders.add(folder)
    return frozenset(folders)


def named_like(patients, names) -> list[Patient]:
    """The patients under the names that their volumes have among `names`.

    A patient's contours are those of one volume; where all volumes were predicted, that one's
    prediction is called <patient>_<volume>.
    """
    return [
        replace(one, name=f"{one.name}_{one.series}")
        if one.name not in names and f"{one.name}_{one.series}" in names
        else one
        for one in patients
    ]


def _in_csv(path: str, needed: str, organs: Organs | None) -> list[Patient]:
    if not path.lower().endswith(".csv") or not files.exists(path):
        state = "a file of another kind" if files.exists(path) else "nothing"
        scan = ", a scan (.nii.gz)" if needed == "ct" else ""
        raise InputError(f"{path}: expected a folder{scan} or a .csv, found {state}")
    return patient_table.read(path, needed, organs=organs)


def _absolute(path: str) -> str:
    if not path:
        raise InputError("expected a folder or a file, found an empty name")
    return files.absolute(path)
