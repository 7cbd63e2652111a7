"""Who the patients are: their CT, their contours, and what the input says of them. Paths only."""

import re
import unicodedata
from dataclasses import dataclass, replace

from segthor import files, json_files, organs
from segthor.errors import InputError
from segthor.nifti import is_nifti, stem

_CONTOURS = re.compile(r"gt(?:[_-]?(\d+))?$", re.IGNORECASE)
_NNUNET_CHANNEL = re.compile(r"(.+)_(\d{4})$")
# A file's name ends at 255 bytes. A temporary name takes 42 of them, and the longest ending of what
# is named after a patient is an organ's: _esophagus.nii.gz.
MOST_NAME_BYTES = 180
# What marks a folder that one of the programs wrote: no scan is looked for there.
_OWN_FILES = ("predictions.json", "dataset.json", "run.json", "scores.json", "report.html")
LOOKED_FOR = (
    "train/Patient_01/Patient_01.nii.gz with GT.nii.gz beside it, Patient_01.nii.gz with "
    "GT_01.nii.gz in one folder, nnU-Net's imagesTr, labelsTr and dataset.json, or a CSV"
)


@dataclass(frozen=True, slots=True)
class Patient:
    """One patient's files. labels: '' where there are no contours.

    split: 'train', 'validation' or '' where the input does not say. organs: those contoured.
    masks: an earlier model's label map, or ''. same_scan_as: another patient, or ''.
    """

    patient: str
    ct: str
    labels: str = ""
    split: str = ""
    organs: tuple[str, ...] = organs.NAMES
    masks: str = ""
    same_scan_as: str = ""


@dataclass(frozen=True)
class Found:
    """All patients, sorted by name. label_values: (organ, value) where the input has its own."""

    sources: tuple[Patient, ...]
    label_values: tuple[tuple[str, int], ...] = ()


def in_folder(root: str) -> Found:
    """Every patient of a folder in one of the known layouts.

    Raises:
      InputError: none there, two of one name, or files that could be read in several ways.
    """
    found = _in_folder(root)
    for source in found.sources:
        if not source.ct:
            raise InputError(f"{source.labels}: expected a CT beside these contours, found none")
    return found


def labels_in_folder(root: str) -> Found:
    """Patients with contours in one of the known layouts, or label maps named after patients.

    A folder per patient may then hold contours alone; a patient's ct is '' where it is not known.

    Raises InputError as `in_folder` does.
    """
    found = _in_folder(root)
    contoured = [source for source in found.sources if source.labels]
    alone = [replace(source, ct="", labels=source.ct) for source in found.sources]
    return replace(found, sources=tuple(contoured or alone))


def _in_folder(root: str) -> Found:
    names = {name.lower(): name for name in files.listdir(root)}
    if "imagestr" in names:
        if "train" in names:
            raise InputError(f"{root}: holds train and {names['imagestr']}; name one of them")
        found = _nnunet(root, names)
    else:
        parts = [files.join(root, names[part]) for part in ("train", "test") if part in names]
        parts = [part for part in parts if files.is_dir(part)] or [root]
        sources = [source for part in parts for source in _in_part(part)]
        found = Found(tuple(_without_channel(sources)))
    if not found.sources:
        raise InputError(f"{root}: expected at least one scan, found none; looked for {LOOKED_FOR}")
    return Found(in_order(found.sources, root), found.label_values)


def in_order(sources, where: str) -> tuple[Patient, ...]:
    """Sorted by name; raises InputError for a name that cannot be used, or that two have.

    Two names are one where they differ in case, or in how an accent is stored: on many disks their
    files would be one.
    """
    ordered = sorted(sources, key=lambda source: source.patient)
    seen = {}
    for one in ordered:
        fault = name_fault(one.patient)
        if fault:
            raise InputError(
                f"{where}: the name of {one.ct or one.labels}, {one.patient!r}, {fault}; rename it"
            )
        alike = unicodedata.normalize("NFC", unicodedata.normalize("NFD", one.patient).casefold())
        other = seen.setdefault(alike, one)
        if other is not one:
            raise InputError(
                f"{where}: two patients are named {other.patient} and {one.patient}, which is one "
                f"name on many disks: {other.ct or other.labels} and {one.ct or one.labels}; "
                "rename one, or give a CSV"
            )
    return tuple(ordered)


def name_fault(name: str) -> str:
    """Why a patient cannot have this name, of which files are made; '' where it can."""
    size = len(name.encode(errors="surrogatepass"))
    if not name:
        return "is empty"
    if size > MOST_NAME_BYTES:
        return f"is {size} bytes long, expected at most {MOST_NAME_BYTES}"
    if "/" in name or "\\" in name:
        return "holds a / or \\, which would lead to another folder"
    if name.startswith("."):
        return "starts with a dot, like a hidden file"
    if not name.isprintable():
        return "holds a character that is not UTF-8 or does not show"
    return "" if name == name.strip() else "starts or ends with a space"


def only(found: Found, names) -> Found:
    """The same patients; an organ that is not among `names` counts as contoured in none."""
    sources = [replace(s, organs=tuple(n for n in s.organs if n in names)) for s in found.sources]
    return replace(found, sources=tuple(sources))


def with_masks(sources, folder: str) -> tuple[Patient, ...]:
    """The sources with the label map from `folder` that is named after the patient or the CT."""
    masks = {stem(name): files.join(folder, name) for name in files.listdir(folder)}
    found = [masks.get(source.patient) or masks.get(stem(source.ct), "") for source in sources]
    if not any(found):
        raise InputError(f"{folder}: expected label maps named after patients, found none")
    return tuple(replace(s, masks=mask) for s, mask in zip(sources, found, strict=True))


def _in_part(folder: str) -> list[Patient]:
    """SegTHOR's: a folder per patient, or flat scans."""
    found = _flat(folder)
    for inner in (files.join(folder, name) for name in files.entries(folder)[1]):
        if not _is_own(inner):
            found += _one_patient(inner)
    return found


def _without_channel(sources) -> list[Patient]:
    """nnU-Net's imagesTs alone: case_41_0000 is the only channel of case_41."""
    matches = [_NNUNET_CHANNEL.match(source.patient) for source in sources]
    if not all(match and match[2] == "0000" for match in matches):
        return list(sources)
    return [replace(s, patient=match[1]) for s, match in zip(sources, matches, strict=True)]


def _is_own(folder: str) -> bool:
    """Whether one of the programs wrote the folder: its label maps are no scans."""
    return any(files.exists(files.join(folder, name)) for name in _OWN_FILES)


def _one_patient(folder: str) -> list[Patient]:
    images, masks = _scans(folder)
    if not images and not masks:
        return []
    if len(images) <= 1 and len(masks) <= 1:
        ct, labels = (files.join(folder, *part[:1]) if part else "" for part in (images, [*masks]))
        return [Patient(stem(folder), ct, labels)]
    if masks:
        return _flat(folder)
    raise InputError(
        f"{folder}: expected one CT and its GT.nii.gz, found {', '.join(images[:4])}; "
        "a CSV can say which is which"
    )


def _flat(folder: str) -> list[Patient]:
    """Scans side by side, with GT_01 beside Patient_01 where there are contours."""
    images, masks = _scans(folder)
    by_number = {int(number): name for name, number in masks.items() if number}
    if len(by_number) < len(masks) or (masks and not images):
        raise InputError(
            f"{folder}: cannot tell whose contours {next(iter(masks))} are; expected one CT beside "
            "it, or numbers (Patient_01.nii.gz, GT_01.nii.gz)"
        )
    sources, taken = [], {}
    for name in images:
        number = re.search(r"(\d+)$", stem(name))
        mask = by_number.get(int(number[1])) if number else None
        if mask and taken.setdefault(mask, name) != name:
            raise InputError(
                f"{folder}: {mask} may be the contours of {taken[mask]} or of {name}; "
                "a CSV can say which"
            )
        labels = files.join(folder, mask) if mask else ""
        sources.append(Patient(stem(name), files.join(folder, name), labels))
    for mask in sorted(set(by_number.values()) - set(taken)):
        raise InputError(f"{folder}: {mask} has no CT of its number beside it")
    return sources


def _scans(folder: str) -> tuple[list[str], dict[str, str | None]]:
    """CTs, and contours with the number in their names."""
    names = [name for name in files.entries(folder)[0] if is_nifti(name)]
    contours = {name: _CONTOURS.match(stem(name)) for name in names}
    images = [name for name in names if not contours[name]]
    return images, {name: match[1] for name, match in contours.items() if match}


def _nnunet(root: str, names: dict[str, str]) -> Found:
    """nnU-Net's raw layout; the values of its dataset.json, the organs that it names."""
    if not {"labelstr", "dataset.json"} <= set(names):
        raise InputError(f"{root}: expected labelsTr and dataset.json beside {names['imagestr']}")
    path = files.join(root, names["dataset.json"])
    values = _nnunet_labels(json_files.read(path), path)
    contoured = tuple(name for name, _ in values)
    labels_folder = files.join(root, names["labelstr"])
    labels = {stem(name): name for name in files.listdir(labels_folder) if is_nifti(name)}
    sources = []
    for part in ("imagestr", "imagests"):
        folder = files.join(root, names[part]) if part in names else ""
        for name in filter(is_nifti, files.listdir(folder) if folder else ()):
            match = _NNUNET_CHANNEL.match(stem(name))
            if not match or match[2] != "0000":
                raise InputError(f"{folder}: expected NAME_0000.nii.gz (one CT each), found {name}")
            mask = labels.get(match[1]) if part == "imagestr" else None
            found = files.join(labels_folder, mask) if mask else ""
            sources.append(Patient(match[1], files.join(folder, name), found, organs=contoured))
    return Found(tuple(sources), values)


def _nnunet_labels(value, path: str) -> tuple[tuple[str, int], ...]:
    """(organ, value), from {"heart": 2} or, as earlier versions had it, {"2": "heart"}."""
    labels = value.get("labels") if isinstance(value, dict) else None
    pairs = labels.items() if isinstance(labels, dict) else ()
    named = [pair if str(pair[0]).lower() in organs.NAMES else pair[::-1] for pair in pairs]
    values = {
        str(name).lower(): int(number)
        for name, number in named
        if str(name).lower() in organs.NAMES and str(number).isdigit()
    }
    if not values:
        wanted = ", ".join(organs.NAMES)
        raise InputError(f"{path}: expected labels named {wanted}; found {labels}")
    return tuple((name, values[name]) for name in organs.NAMES if name in values)
