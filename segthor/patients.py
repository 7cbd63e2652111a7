"""One patient of the input: where its files lie, and what its name may be. Paths only."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass, replace

from segthor import files
from segthor.errors import InputError
from segthor.nifti import stem

# A file's name ends at 255 bytes. A temporary name takes 42 of them, and the longest ending of what
# is named after a patient is an organ's: _, at most 25 characters, .nii.gz.
MOST_NAME_BYTES = 180


@dataclass(frozen=True, slots=True)
class Patient:
    """One patient's files. labels: the contours, '' where there are none.

    name: what every file made of the patient is named after. split: 'train', 'validation' or ''
    where the input does not say. organs: those contoured. masks: an earlier model's label map, or
    ''. same_scan_as: another patient with the same scan, or ''. label_values: (organ, value in the
    contours' file), where they are not this project's. fault: why the patient cannot be used, or
    ''; fault_code: its kind, as in `segthor.findings`. ct_files: of DICOM in a folder that others'
    files lie in too, the patient's own. series: of DICOM, the volume's name.
    """

    name: str
    ct: str
    labels: str = ""
    split: str = ""
    organs: tuple[str, ...] = ()
    masks: str = ""
    same_scan_as: str = ""
    label_values: tuple[tuple[str, int], ...] = ()
    fault: str = ""
    fault_code: str = "bad_name"
    ct_files: tuple[str, ...] = ()
    series: str = ""

    @property
    def person(self) -> str:
        """What the cases of one patient share: all of them go into one split and fold."""
        return self.name.removesuffix(f"_{self.series}") if self.series else self.name

    @property
    def label_map(self) -> str:
        """The name of the patient's predicted label map; compressed unless the scan is not."""
        return self.name + (files.name(self.ct)[len(stem(self.ct)) :] or ".nii.gz")


def name_fault(name: str) -> str:
    """Why a patient cannot have this name; '' where it can."""
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


def checked(patients, where: str) -> tuple[Patient, ...]:
    """Sorted by name; each whose name cannot be used has a `fault`, and a name that can.

    Raises:
      InputError: two have one name, or names that are one where case, or how an accent is stored,
        does not count.
    """
    ordered = sorted(map(_with_usable_name, patients), key=lambda patient: patient.name)
    seen = {}
    for patient in ordered:
        other = seen.setdefault(_alike(patient.name), patient)
        if other is not patient:
            names = patient.name
            if other.name != names:
                names = f"{other.name} and {names}, which is one file's name on many disks"
            raise InputError(
                f"{where}: two patients are named {names}: {other.ct or other.labels} and "
                f"{patient.ct or patient.labels}; rename one, or give a CSV"
            )
    return tuple(ordered)


def _with_usable_name(patient: Patient) -> Patient:
    fault = name_fault(patient.name)
    if not fault:
        return patient
    digest = hashlib.sha256(patient.name.encode(errors="surrogatepass")).hexdigest()[:8]
    usable = re.sub(r"[^\w-]+", "_", patient.name)[:40]
    text = f"{patient.ct or patient.labels}: the name {patient.name!r} {fault}; rename it"
    return replace(patient, name=f"{usable}-{digest}", fault=text, fault_code="bad_name")


def _alike(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
