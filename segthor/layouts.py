"""Finds patients in the folder layouts of SegTHOR and nnU-Net. Works on paths only.

Skips hidden files, and folders of serving.predict, whose label maps are no scans.
"""

import os
import re
from dataclasses import replace

from segthor import files, ignored, json_files
from segthor.errors import InputError
from segthor.nifti import is_nifti, stem
from segthor.organs import Organs
from segthor.patients import Patient

PREDICTIONS = "predictions.json"  # in every folder of label maps of serving.predict
OBJECTS = "dicom"  # its subfolder of structure sets and SEG
OUTPUT_FOLDERS = ("cases", "probabilities", OBJECTS)  # its subfolders
_CONTOURS = re.compile(r"gt(?:[_-]?(\d+))?$", re.IGNORECASE)
_NNUNET_CHANNEL = re.compile(r"(.+)_(\d{4})$")
_HEAD_BYTES = 132  # preamble and prefix of a DICOM file
_MAX_DEPTH = 2  # train/Patient_01/Patient_01.nii.gz
LOOKED_FOR = (
    "train/Patient_01/Patient_01.nii.gz with GT.nii.gz beside it, Patient_01.nii.gz with "
    "GT_01.nii.gz in one folder, nnU-Net's imagesTr, labelsTr and dataset.json, DICOM series, "
    "or a CSV"
)


def has_nifti(root: str) -> bool:
    """Whether a folder holds NIfTI files at a place where one of the layouts has them.

    Label maps of serving.predict do not count.
    """
    waiting = [(root, 0)] if files.is_dir(root) else []
    while waiting:
        folder, depth = waiting.pop()
        try:
            names, folders, is_output = _entries(folder)
        except (InputError, OSError):  # no permission, or a path that is too long
            continue
        if any(map(is_nifti, names)) and (folder == root or not is_output):
            return True
        if depth < _MAX_DEPTH:
            waiting += [(files.join(folder, name), depth + 1) for name in folders]
    return False


def has_dicom(root: str) -> bool:
    """Whether any file below a folder is DICOM, by its name or its first bytes."""
    waiting, seen = [root] if files.is_dir(root) else [], set()
    while waiting:
        folder = waiting.pop()
        real = folder if files.is_url(folder) else os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            names, folders = files.entries(folder)
        except (InputError, OSError):  # no permission, or a path that is too long
            continue
        waiting += [files.join(folder, name) for name in folders]
        paths = [files.join(folder, name) for name in names if not is_nifti(name)]
        if any(path.lower().endswith(".dcm") or _starts_as_dicom(path) for path in paths):
            return True
    return False


def _starts_as_dicom(path: str) -> bool:
    if not files.is_url(path) and not os.path.isfile(path):  # reading a pipe could block forever
        return False
    try:
        with files.open_read(path, _HEAD_BYTES) as stream:
            return stream.read(_HEAD_BYTES)[128:] == b"DICM"
    except (InputError, OSError):
        return False


def scans(root: str, organs: Organs | None, without=frozenset()) -> list[Patient]:
    """Finds all patients of a folder in one of the known layouts.

    Args:
      root: The folder.
      organs: The table of organs. None: contoured organs are not checked.
      without: Folders of DICOM patients, whose NIfTI files are copies.

    Raises:
      InputError: No patient, contours without a CT, files that could be read in several ways, or
        the folder holds predictions.
    """
    patients = _in_folder(root, ("train", "test", "imagests"), organs, without)
    for patient in patients:
        if not patient.ct:
            raise InputError(f"{patient.labels}: expected a CT beside these contours, found none")
    return without_channel(patients)


def contours(root: str, organs: Organs, without=frozenset()) -> list[Patient]:
    """Finds all patients with contours in one of the known layouts, or in a folder of label maps.

    A patient's folder may hold contours without a CT; `Patient.ct` is then ''. Predictions are
    accepted as contours.

    Raises:
      InputError: As `scans`.
    """
    patients = _in_folder(root, ("train", "test"), organs, without, label_maps=True)
    if without or any(patient.labels for patient in patients):
        return [patient for patient in patients if patient.labels or patient.fault]
    return [replace(patient, ct="", labels=patient.ct) for patient in patients]


def without_channel(patients: list[Patient]) -> list[Patient]:
    """Renames patients from NAME_0000 to NAME, where all have such names, as nnU-Net requires."""
    named = [_NNUNET_CHANNEL.match(patient.name) for patient in patients]
    if not all(
        match and match[2] == "0000" and not one.labels and stem(files.parent(one.ct)) != one.name
        for match, one in zip(named, patients, strict=True)
    ):
        return patients
    return [replace(one, name=match[1]) for match, one in zip(named, patients, strict=True)]


def named_files(folder: str) -> dict[str, str]:
    """Name to path of the NIfTI files in a folder; raises InputError where two have one name."""
    paths = {}
    for name in filter(is_nifti, files.entries(folder)[0]):
        path = files.join(folder, name)
        if paths.setdefault(stem(name), path) != path:
            other = files.name(paths[stem(name)])
            raise InputError(f"{folder}: {other} and {name} have one name; remove one")
    return paths


def _entries(folder: str) -> tuple[list[str], list[str], bool]:
    """(files, folders, whether serving.predict wrote the label maps in the folder).

    It writes the facts of each case into `cases`, and never writes a GT.nii.gz; PREDICTIONS alone
    may have been copied there. Its own subfolders are left out.
    """
    names, folders = files.entries(folder)
    is_output = PREDICTIONS in names and OUTPUT_FOLDERS[0] in folders and not _split_names(names)[1]
    if is_output:
        folders = [name for name in folders if name not in OUTPUT_FOLDERS]
    return names, folders, is_output


def _holds_output_only(folder: str) -> bool:
    _, folders, is_output = _entries(folder)
    return is_output and not folders


def _in_folder(
    root: str, known_parts, organs: Organs | None, without=frozenset(), label_maps: bool = False
) -> list[Patient]:
    """label_maps: Whether predictions in the root itself are accepted."""
    names, folders, is_output = _entries(root)
    by_name = {name.lower(): name for name in (*names, *folders)}
    parts = [files.join(root, name) for name in folders if name.lower() in known_parts]
    parts = [part for part in parts if not _holds_output_only(part)] or [root]
    if "imagestr" in by_name:
        if "train" in by_name:
            raise InputError(f"{root}: holds train and {by_name['imagestr']}; name one of them")
        patients = _nnunet(root, by_name, organs)
    else:
        if is_output and label_maps and not without:
            patients = _flat(root, names)
        else:
            patients = [patient for part in parts for patient in _in_part(part, without)]
        patients = [replace(one, organs=organs.names if organs else ()) for one in patients]
    if not patients and is_output and not without:
        raise InputError(f"{root}: expected scans, found label maps of serving.predict")
    if not patients and not without:
        raise InputError(f"{root}: expected at least one scan, found none; looked for {LOOKED_FOR}")
    return patients


def _in_part(folder: str, without) -> list[Patient]:
    """SegTHOR's layout: a folder per patient, or all scans in one. without: Folders to skip."""
    names, folders, is_output = _entries(folder)
    patients = [] if folder in without or is_output else _flat(folder, names)
    for one in (files.join(folder, name) for name in folders):
        patients += [] if one in without else _one_patient(one)
    return patients


def _one_patient(folder: str) -> list[Patient]:
    try:
        names, _, is_output = _entries(folder)
    except (InputError, OSError) as error:  # must not stop the other patients
        fault = f"{folder}: cannot be opened ({getattr(error, 'strerror', None) or error})"
        return [Patient(stem(folder), folder, fault=fault, fault_code="file_missing")]
    images, masks = _split_names(names)
    if is_output or not images and not masks:
        return []
    if len(images) <= 1 and len(masks) <= 1:
        ct, labels = (files.join(folder, *part[:1]) if part else "" for part in (images, [*masks]))
        return [Patient(stem(folder), ct, labels)]
    if masks:
        return _flat(folder, names)
    raise InputError(
        f"{folder}: expected one CT and its GT.nii.gz, found {', '.join(images[:4])}; "
        "name the CT and the contours in a CSV"
    )


def _flat(folder: str, names: list[str]) -> list[Patient]:
    """Scans in one folder; the contours of Patient_01 are in GT_01."""
    images, masks = _split_names(names)
    by_number = {int(number): name for name, number in masks.items() if number}
    if len(by_number) < len(masks) or (masks and not images):
        raise InputError(
            f"{folder}: cannot tell whose contours {next(iter(masks))} are; expected one CT beside "
            "it, or numbers (Patient_01.nii.gz, GT_01.nii.gz)"
        )
    patients, owners = [], {}
    for name in images:
        number = re.search(r"(\d+)$", stem(name))
        mask = by_number.get(int(number[1])) if number else None
        if mask and owners.setdefault(mask, name) != name:
            raise InputError(
                f"{folder}: {mask} may be the contours of {owners[mask]} or of {name}; "
                "name it in a CSV"
            )
        labels = files.join(folder, mask) if mask else ""
        patients.append(Patient(stem(name), files.join(folder, name), labels))
    for mask in sorted(set(by_number.values()) - set(owners)):
        raise InputError(f"{folder}: {mask} has no CT with its number in this folder")
    return patients


def _split_names(names: list[str]) -> tuple[list[str], dict[str, str | None]]:
    """(names of CTs, name of contours -> the number in it)."""
    matches = {name: _CONTOURS.match(stem(name)) for name in names if is_nifti(name)}
    images = [name for name, match in matches.items() if not match]
    return images, {name: match[1] for name, match in matches.items() if match}


def _nnunet(root: str, names: dict[str, str], organs: Organs | None) -> list[Patient]:
    """nnU-Net's raw layout. Organs and label values are those of its dataset.json."""
    if not {"labelstr", "dataset.json"} <= set(names):
        raise InputError(f"{root}: expected labelsTr and dataset.json beside {names['imagestr']}")
    path = files.join(root, names["dataset.json"])
    values = _nnunet_labels(json_files.read(path), path, organs) if organs else ()
    contoured = tuple(name for name, _ in values if name != ignored.NAME)
    labels = named_files(files.join(root, names["labelstr"]))
    patients = []
    for part in filter(names.get, ("imagestr", "imagests")):
        for name, ct in named_files(files.join(root, names[part])).items():
            match = _NNUNET_CHANNEL.match(name)
            if not match or match[2] != "0000":
                raise InputError(f"{ct}: expected a name like NAME_0000.nii.gz (one CT each)")
            mask = labels.get(match[1], "") if part == "imagestr" else ""
            patients.append(Patient(match[1], ct, mask, organs=contoured, label_values=values))
    return patients


def _nnunet_labels(value, path: str, organs: Organs) -> tuple[tuple[str, int], ...]:
    """(organ, value) pairs from {"heart": 2} or, of earlier versions of nnU-Net, {"2": "heart"}.

    The label `ignore` comes last, if there is one; see `segthor.ignored`.
    """
    labels = value.get("labels") if isinstance(value, dict) else None
    pairs = labels.items() if isinstance(labels, dict) else ()
    known = (*organs.names, ignored.NAME)
    named = [pair if str(pair[0]).lower() in known else pair[::-1] for pair in pairs]
    values = {
        str(name).lower(): int(number)
        for name, number in named
        if str(name).lower() in known and str(number).isdecimal()
    }
    if not set(values) - {ignored.NAME}:
        known = ", ".join(organs.names)
        raise InputError(f"{path}: expected labels named {known}; found {labels}")
    label_values = tuple((name, values[name]) for name in known if name in values)
    ignored.check(label_values, organs, path)
    return label_values
