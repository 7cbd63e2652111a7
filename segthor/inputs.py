"""Finds the patients of --input, --scans, --labels and --predictions, for every program.

Works on paths only: opens no scan.
"""

from dataclasses import replace

from segthor import files, ignored, json_files, layouts, manifest, patient_table, scans
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

    A folder may hold NIfTI and DICOM files. NIfTI files among a patient's DICOM files are skipped:
    they are copies of the slices that a converter left there.

    Args:
      path: A folder, a DICOM tree, a CSV, a dataset or a single scan.
      split: 'train' or 'validation', to select patients of a dataset.
      label_values: (organ, value in the contours' files), which replace those of the input; organs
        that are not named there count as not contoured.
      organs: The table of organs. None: contoured organs are not checked.
      cache: Path of a JSON file for the patients of a DICOM tree; see
        `segthor.dicom.trees.patients`.
      series: Which volumes of a DICOM patient are used; see there.

    Raises:
      InputError: No scan, two patients with one name, or files that could be read in several ways.
    """
    path = _absolute(path)
    stored = _manifest(path)
    if stored is not None:
        patients = _in_dataset(stored, path, split)
    elif split:
        raise InputError(f"--split={split}: expected a dataset, found {path}; leave --split out")
    elif files.is_dir(path):
        patients = _in_folder(path, organs, layouts.scans, cache, series)
    elif scans.is_dicom(path):
        patients = scans.dicom_patients(path, organs.names if organs else (), cache, series)
    elif is_nifti(path) and files.exists(path):
        patients = layouts.without_channel([Patient(stem(path), path)])
    else:
        patients = _in_csv(path, "ct", organs)
    patients = check_names(patients, path)
    if not patients:
        raise InputError(f"{path}: expected at least one patient, found none")
    if not label_values:
        return patients
    patients = tuple(_set_label_values(one, label_values) for one in patients)
    if organs:
        ignored.check(patients[0].label_values, organs, "--label_values")
    return patients


def find_contours(path: str, organs: Organs) -> tuple[Patient, ...]:
    """Finds all patients with contours in a folder, DICOM tree, CSV or dataset, sorted by name.

    A folder holds one label map per patient, or CT and contours in a known layout. `Patient.ct` is
    '' where the scan is not known.

    Raises:
      InputError: As `find`.
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
    # Patients with other faults than a bad name stay, so that the program reports them.
    patients = [one for one in patients if one.labels or one.fault_code != "bad_name"]
    patients = check_names(patients, path)
    if not patients:
        raise InputError(f"{path}: expected at least one label map (.nii or .nii.gz), found none")
    return patients


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
    objects = files.join(path, layouts.OBJECTS)
    has_objects = files.exists(files.join(path, layouts.PREDICTIONS)) and files.exists(objects)
    dicom = [one for one in patients if scans.is_dicom(one.ct)]
    if not files.is_dir(path):
        predicted = _in_csv(path, "labels", organs)
    elif not layouts.named_files(path) and layouts.has_dicom(path):
        if has_objects:
            predicted = scans.drawn_on(objects, _with_objects(objects, dicom))
        elif dicom:
            predicted = scans.drawn_on(path, dicom)
        else:
            predicted = scans.dicom_patients(path, organs.names)
        if not any(one.labels or one.fault for one in predicted):
            raise InputError(
                f"{path}: expected label maps (.nii or .nii.gz) or structure sets of these "
                "patients' CT, found none"
            )
    else:
        label_maps = find_predictions(path)
        predicted = [Patient(name, "", file) for name, file in label_maps.items()]
        # NIfTI cannot hold uneven planes, so such scans may have a structure set only.
        rest = [one for one in dicom if one.name not in label_maps]
        rest = _with_objects(objects, rest) if has_objects else []
        predicted += scans.drawn_on(objects, rest) if rest else []
    return {one.name: one for one in check_names(predicted, path) if one.labels or one.fault}


def _with_objects(folder: str, patients) -> list[Patient]:
    """The patients that DICOM objects of `serving.predict` are named after."""
    names = {name.rpartition("_")[0] for name in files.listdir(folder)}
    return [one for one in patients if one.name in names]


def read_predicted_organs(folder: str) -> Organs | None:
    """The table of organs of a folder of predictions; None where serving.predict wrote none there.

    Raises:
      InputError: The table is damaged.
    """
    path = files.join(folder, layouts.PREDICTIONS)
    settings = json_files.read(path) if files.exists(path) else None
    if not isinstance(settings, dict) or "organs" not in settings:
        return None
    return Organs.from_json(settings["organs"], path)


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


def _set_label_values(patient: Patient, label_values) -> Patient:
    names = [name for name, _ in label_values if name != ignored.NAME]
    if not names:  # only the value of ignored voxels; the organs keep the values of the input
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
