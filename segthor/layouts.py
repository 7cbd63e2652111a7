"""The folder layouts that SegTHOR's and nnU-Net's patients come in. Paths only.

Hidden files are passed over, and so are folders of our own predictions: a label map is no scan.
"""

import re
from dataclasses import replace

from segthor import files, ignored, json_files
from segthor.errors import InputError
from segthor.nifti import is_nifti, stem
from segthor.organs import Organs
from segthor.patients import Patient

PREDICTIONS = "predictions.json"  # lies beside every label map that serving.predict writes
_CONTOURS = re.compile(r"gt(?:[_-]?(\d+))?$", re.IGNORECASE)
_NNUNET_CHANNEL = re.compile(r"(.+)_(\d{4})$")
_DEEPEST = 2  # train/Patient_01/Patient_01.nii.gz
LOOKED_FOR = (
    "train/Patient_01/Patient_01.nii.gz with GT.nii.gz beside it, Patient_01.nii.gz with "
    "GT_01.nii.gz in one folder, nnU-Net's imagesTr, labelsTr and dataset.json, DICOM series, "
    "or a CSV"
)


def has_nifti(root: str) -> bool:
    """Whether a folder holds NIfTI files where one of the layouts has them."""
    waiting = [(root, 0)] if files.is_dir(root) else []
    while waiting:
        folder, depth = waiting.pop()
        names, folders = files.entries(folder)
        if any(map(is_nifti, names)):
            return True
        if depth < _DEEPEST:
            waiting += [(files.join(folder, name), depth + 1) for name in folders]
    return False


def scans(root: str, organs: Organs | None) -> list[Patient]:
    """Every patient of a folder in one of the known layouts.

    organs: the table of what may be contoured; None: nobody asks what is.

    Raises:
      InputError: none there, contours without a CT, files that could be read in several ways, or
        the folder holds predictions.
    """
    if _is_predictions(root):
        raise InputError(f"{root}: expected scans, found label maps of serving.predict")
    found = _in_folder(root, ("train", "test", "imagests"), organs)
    for patient in found:
        if not patient.ct:
            raise InputError(f"{patient.labels}: expected a CT beside these contours, found none")
    return without_channel(found)


def contours(root: str, organs: Organs) -> list[Patient]:
    """Patients with contours in one of the known layouts, or label maps named after patients.

    A folder per patient may then hold contours alone; a patient's ct is '' where it is not known.

    Raises InputError as `scans` does, though predictions may be taken for contours.
    """
    found = _in_folder(root, ("train", "test"), organs)
    contoured = [patient for patient in found if patient.labels]
    return contoured or [replace(patient, ct="", labels=patient.ct) for patient in found]


def without_channel(patients: list[Patient]) -> list[Patient]:
    """Where every scan is called NAME_0000, as nnU-Net wants, the patients are called NAME."""
    named = [_NNUNET_CHANNEL.match(patient.name) for patient in patients]
    if not all(
        match and match[2] == "0000" and not one.labels and stem(files.parent(one.ct)) != one.name
        for match, one in zip(named, patients, strict=True)
    ):
        return patients
    return [replace(one, name=match[1]) for match, one in zip(named, patients, strict=True)]


def named_files(folder: str) -> dict[str, str]:
    """Name to path of a folder's NIfTI files; raises InputError where two have one name."""
    found = {}
    for name in filter(is_nifti, files.entries(folder)[0]):
        path = files.join(folder, name)
        if found.setdefault(stem(name), path) != path:
            other = files.name(found[stem(name)])
            raise InputError(f"{folder}: {other} and {name} have one name; remove one")
    return found


def _is_predictions(folder: str) -> bool:
    return files.exists(files.join(folder, PREDICTIONS))


def _in_folder(root: str, known_parts, organs: Organs | None) -> list[Patient]:
    names, folders = files.entries(root)
    by_name = {name.lower(): name for name in (*names, *folders)}
    parts = [files.join(root, name) for name in folders if name.lower() in known_parts]
    parts = [part for part in parts if not _is_predictions(part)] or [root]
    if "imagestr" in by_name:
        if "train" in by_name:
            raise InputError(f"{root}: holds train and {by_name['imagestr']}; name one of them")
        found = _nnunet(root, by_name, organs)
    else:
        names = organs.names if organs else ()
        found = [replace(patient, organs=names) for part in parts for patient in _in_part(part)]
    if not found:
        raise InputError(f"{root}: expected at least one scan, found none; looked for {LOOKED_FOR}")
    return found


def _in_part(folder: str) -> list[Patient]:
    """SegTHOR's: a folder per patient, or flat scans."""
    names, folders = files.entries(folder)
    found = _flat(folder, names)
    for name in () if PREDICTIONS in names else folders:
        found += _one_patient(files.join(folder, name))
    return found


def _one_patient(folder: str) -> list[Patient]:
    names, _ = files.entries(folder)
    images, masks = _scans(names)
    if PREDICTIONS in names or not images and not masks:
        return []
    if len(images) <= 1 and len(masks) <= 1:
        ct, labels = (files.join(folder, *part[:1]) if part else "" for part in (images, [*masks]))
        return [Patient(stem(folder), ct, labels)]
    if masks:
        return _flat(folder, names)
    raise InputError(
        f"{folder}: expected one CT and its GT.nii.gz, found {', '.join(images[:4])}; "
        "a CSV can say which is which"
    )


def _flat(folder: str, names: list[str]) -> list[Patient]:
    """Scans side by side, with GT_01 beside Patient_01 where there are contours."""
    images, masks = _scans(names)
    by_number = {int(number): name for name, number in masks.items() if number}
    if len(by_number) < len(masks) or (masks and not images):
        raise InputError(
            f"{folder}: cannot tell whose contours {next(iter(masks))} are; expected one CT beside "
            "it, or numbers (Patient_01.nii.gz, GT_01.nii.gz)"
        )
    patients, taken = [], {}
    for name in images:
        number = re.search(r"(\d+)$", stem(name))
        mask = by_number.get(int(number[1])) if number else None
        if mask and taken.setdefault(mask, name) != name:
            raise InputError(
                f"{folder}: {mask} may be the contours of {taken[mask]} or of {name}; "
                "a CSV can say which"
            )
        labels = files.join(folder, mask) if mask else ""
        patients.append(Patient(stem(name), files.join(folder, name), labels))
    for mask in sorted(set(by_number.values()) - set(taken)):
        raise InputError(f"{folder}: {mask} has no CT of its number beside it")
    return patients


def _scans(names: list[str]) -> tuple[list[str], dict[str, str | None]]:
    """CTs, and contours with the number in their names."""
    found = {name: _CONTOURS.match(stem(name)) for name in names if is_nifti(name)}
    images = [name for name, match in found.items() if not match]
    return images, {name: match[1] for name, match in found.items() if match}


def _nnunet(root: str, names: dict[str, str], organs: Organs | None) -> list[Patient]:
    """nnU-Net's raw layout: the values of its dataset.json, and the organs that it names."""
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
            one = Patient(match[1], ct, mask, organs=contoured, label_values=values)
            patients.append(one)
    return patients


def _nnunet_labels(value, path: str, organs: Organs) -> tuple[tuple[str, int], ...]:
    """(organ, value), from {"heart": 2} or, as earlier versions had it, {"2": "heart"}.

    Where it names a label `ignore`, that one comes last; see `segthor.ignored`.
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
        wanted = ", ".join(organs.names)
        raise InputError(f"{path}: expected labels named {wanted}; found {labels}")
    label_values = tuple((name, values[name]) for name in known if name in values)
    ignored.check(label_values, organs, path)
    return label_values
