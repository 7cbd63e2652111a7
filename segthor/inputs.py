"""Finds the patients of --input, --scans, --labels and --predictions, for every program.

Works on paths only: opens no scan.
"""

from dataclasses import replace

from segthor import fields, files, ignored, json_files, layouts, manifest, patient_table, scans
from segthor.errors import InputError
from segthor.nifti import is_nifti, stem
from segthor.organs import Organs
from segthor.patients import Patient, check_names


def find(
    path: str,
    split: str | None = None,
    label_values=(),
    *,
    organs: Organs | None,
    cache: str = "",
    series: str | tuple = "",
) -> tuple[Patient, ...]:
    """Finds all patients in `path`, sorted by name.

    NIfTI files among a patient's DICOM files are skipped: a converter left these copies there.

    Args:
      path: A folder of NIfTI and DICOM files, a CSV, a dataset or a single scan.
      split: 'train' or 'validation', to select patients of a dataset.
      label_values: (organ, value in the contours' files), which replace those of the input; organs
        that are not named there count as not contoured.
      organs: The table of organs. None: contoured organs are not checked.
      cache, series: See `segthor.dicom.trees.patients`.

    Raises:
      InputError: No scan, two patients with one name, or files that could be read in several ways.
    """
    path = _absolute(path)
    patients = check_names(_find(path, "ct", organs, split, cache, series), path)
    if not patients:
        raise InputError(f"{path}: expected at least one patient, found none")
    return _set_label_values(patients, label_values, organs) if label_values else patients


def find_contours(path: str, organs: Organs) -> tuple[Patient, ...]:
    """Finds all patients with contours in a folder, DICOM tree, CSV or dataset, sorted by name.

    A folder holds one label map per patient, or CT and contours in a known layout. `Patient.ct` is
    '' where the scan is not known.

    Raises:
      InputError: As `find`.
    """
    path = _absolute(path)
    patients = _find(path, "labels", organs)
    # Patients with other faults than a bad name stay, so that the program reports them.
    patients = [one for one in patients if one.labels or one.fault_code != "bad_name"]
    patients = check_names(patients, path)
    if not patients:
        raise InputError(f"{path}: expected at least one label map (.nii or .nii.gz), found none")
    return patients


def _find(
    path: str,
    needed: str,
    organs: Organs | None,
    split: str | None = None,
    cache: str = "",
    series: str | tuple = "",
) -> list[Patient]:
    """The patients in `path`, which have a scan or contours. needed: 'ct' or 'labels'."""
    stored = _manifest(path)
    if stored is not None:
        return _in_dataset(stored, path, split)
    if split:
        raise InputError(f"--split={split}: expected a dataset, found {path}; leave --split out")
    if files.is_dir(path):
        read_nifti = layouts.scans if needed == "ct" else layouts.contours
        return _in_folder(path, organs, read_nifti, cache, series)
    if scans.is_dicom(path):
        return scans.dicom_patients(path, organs.names if organs else (), cache, series)
    if needed == "ct" and is_nifti(path) and files.exists(path):
        return layouts.without_channel([Patient(stem(path), path)])
    return _in_csv(path, needed, organs)


def find_predictions(folder: str) -> dict[str, str]:
    """Patient's name to label map, for a folder of serving.predict or one of label maps.

    Raises:
      InputError: No such folder, no label map in it, or two with one name.
    """
    paths = layouts.named_files(_absolute(folder))
    if not paths:
        raise InputError(f"{folder}: expected label maps (.nii or .nii.gz), found none")
    return paths


def find_predicted(path: str, patients, organs: Organs) -> dict[str, Patient]:
    """Patient's name to its predicted contours: a label map, or a structure set with its CT.

    Args:
      path: A folder as in `find_predictions`, a DICOM tree, or a CSV with the columns patient,
        labels and, for structure sets, ct. In a tree, the structure sets of the CTs of `patients`
        are used, or all of them where none of these CTs is DICOM.
      patients: The patients whose CT is known.
      organs: The table of organs.

    Raises:
      InputError: As `find_contours`.
    """
    path = _absolute(path)
    dicom = [one for one in patients if scans.is_dicom(one.ct)]
    if not files.is_dir(path):
        predicted = _in_csv(path, "labels", organs)
    elif not layouts.named_files(path) and layouts.has_dicom(path):
        predicted = _predicted_structures(path, dicom, organs)
    else:
        label_maps = find_predictions(path)
        predicted = [Patient(name, "", file) for name, file in label_maps.items()]
        # NIfTI cannot hold uneven planes, so such scans may have a structure set only.
        rest = [one for one in dicom if one.name not in label_maps]
        predicted += _drawn_by_us(path, rest) or []
    return {one.name: one for one in check_names(predicted, path) if one.labels or one.fault}


def _predicted_structures(path: str, dicom, organs: Organs) -> list[Patient]:
    """The predicted structure sets in a folder without label maps. dicom: Patients with a CT."""
    predicted = _drawn_by_us(path, dicom)
    if predicted is None and dicom:
        predicted = scans.drawn_on(path, dicom)
    elif predicted is None:
        predicted = scans.dicom_patients(path, organs.names)
    if not any(one.labels or one.fault for one in predicted):
        raise InputError(
            f"{path}: expected label maps (.nii or .nii.gz) or structure sets of these "
            "patients' CT, found none"
        )
    return predicted


def _drawn_by_us(path: str, patients) -> list[Patient] | None:
    """The structure sets that `serving.predict` wrote for patients; None in another folder."""
    folder = files.join(path, layouts.OBJECTS)
    if not files.exists(files.join(path, layouts.PREDICTIONS)) or not files.exists(folder):
        return None
    names = {name.rpartition("_")[0] for name in files.listdir(folder)}
    named = [one for one in patients if one.name in names]
    return scans.drawn_on(folder, named) if named else []


def read_predicted_organs(folder: str) -> Organs | None:
    """The table of organs of a folder of predictions; None where serving.predict wrote none there.

    Raises:
      InputError: The table is damaged.
    """
    path = files.join(folder, layouts.PREDICTIONS)
    settings = json_files.read(path) if files.exists(path) else None
    if not isinstance(settings, dict) or "organs" not in settings:
        return None
    return fields.from_json(Organs, settings["organs"], path)


def add_masks(patients, folder: str) -> tuple[Patient, ...]:
    """The patients with `masks`, label maps in `folder` that are named after the patient or CT."""
    paths = find_predictions(folder)
    masks = [paths.get(one.name) or paths.get(stem(one.ct), "") for one in patients]
    if not any(masks):
        raise InputError(f"{folder}: expected label maps named after patients, found none")
    return tuple(replace(one, masks=mask) for one, mask in zip(patients, masks, strict=True))


def is_dataset(path: str) -> bool:
    """Whether the folder is a dataset of the data job."""
    return _manifest(path) is not None


def _manifest(path: str) -> dict | None:
    """The JSON value of a dataset's manifest; None where the folder is no dataset of the data job.

    nnU-Net's folders have a dataset.json, too.
    """
    file = files.join(path, manifest.FILE_NAME)
    value = json_files.read(file) if files.exists(file) else None
    ours = isinstance(value, dict) and not {"format", "shards"}.isdisjoint(value)
    return value if ours else None


def _set_label_values(patients, label_values, organs: Organs | None) -> tuple[Patient, ...]:
    names = [name for name, _ in label_values if name != ignored.NAME]
    changed = []
    for one in patients:
        if names:
            contoured = tuple(name for name in one.organs if name in names)
            changed.append(replace(one, organs=contoured, label_values=label_values))
        else:  # only the value of ignored voxels; the organs keep the values of the input
            own = tuple(pair for pair in one.label_values if pair[0] != ignored.NAME)
            changed.append(replace(one, label_values=own + label_values))
    if organs:
        ignored.check(changed[0].label_values, organs, "--label_values")
    return tuple(changed)


def _in_dataset(stored: dict, folder: str, split: str | None = None) -> list[Patient]:
    data = manifest.Dataset.from_json(stored, files.join(folder, manifest.FILE_NAME))
    values = data.label_values
    built = [
        Patient(row.patient, row.ct, row.labels, row.split, row.organs, label_values=values)
        for row in data.patients
        if split in (None, row.split)
    ]
    return built + [Patient(row.patient, row.ct) for row in data.unlabelled if not split]


def _in_folder(
    path: str, organs: Organs | None, read_nifti, cache: str = "", series: str | tuple = ""
) -> list[Patient]:
    """The patients of a folder's DICOM files, and of NIfTI files outside their folders.

    read_nifti: `layouts.scans` or `layouts.contours`.
    """
    names, has_nifti = organs.names if organs else (), layouts.has_nifti(path)
    if not has_nifti:
        return scans.dicom_patients(path, names, cache, series)
    if not layouts.has_dicom(path):
        return read_nifti(path, organs)
    try:
        patients = scans.dicom_patients(path, names, cache, series)
    except InputError:  # no CT among the DICOM files
        return read_nifti(path, organs)
    return patients + read_nifti(path, organs, _folders_of(patients, path))


def _folders_of(patients, root: str) -> frozenset[str]:
    """The folders of the patients' DICOM files, and their parents below the root."""
    folders = set()
    for one in patients:
        folder = scans.folder_of(one.ct)
        folders.add(folder)
        while len(folder) > len(root) and files.parent(folder) != root:
            folder = files.parent(folder)
            folders.add(folder)
    return frozenset(folders)


def rename_to_volumes(patients, names) -> list[Patient]:
    """The patients, renamed to <patient>_<volume> where `names` holds that name only.

    Contours belong to one volume of a patient. Where all volumes of a patient were predicted, the
    prediction for that volume has this name.
    """
    return [
        replace(one, name=f"{one.name}_{one.series}")
        if one.name not in names and f"{one.name}_{one.series}" in names
        else one
        for one in patients
    ]


def _in_csv(path: str, needed: str, organs: Organs | None) -> list[Patient]:
    if not path.lower().endswith(".csv") or not files.exists(path):
        given = "a file of another kind" if files.exists(path) else "nothing"
        scan = ", a scan (.nii.gz)" if needed == "ct" else ""
        raise InputError(f"{path}: expected a folder{scan} or a .csv, found {given}")
    return patient_table.read(path, needed, organs=organs)


def _absolute(path: str) -> str:
    if not path:
        raise InputError("expected a folder or a file, found an empty name")
    return files.absolute(path)
