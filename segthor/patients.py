"""One patient of the input: the paths of its files, and the rules for its name."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass, replace

from segthor import files
from segthor.errors import InputError
from segthor.nifti import stem

# File names have at most 255 bytes. A temporary name adds 42, and the longest suffix of a file that
# is named after a patient is '_', an organ's name of at most 25 characters, and '.nii.gz'.
MOST_NAME_BYTES = 180


@dataclass(frozen=True, slots=True)
class Patient:
    """One patient of the input.

    name: Name of the patient, which is part of the names of all files made of it.
    ct: The scan: a NIfTI file, or DICOM as in `segthor.dicom.places`.
    labels: The contours; '' where there are none.
    split: 'train' or 'validation'; '' where the input does not say.
    organs: Names of the contoured organs.
    masks: An earlier model's label map, or ''.
    same_scan_as: Name of another patient with the same scan, or ''.
    label_values: (organ, value in the contours' file), where they differ from the table of organs.
    fault: Why the patient cannot be used, or ''.
    fault_code: Code of the fault, one of `segthor.findings.CODES`.
    ct_files: The DICOM files of the scan, where its folder holds other patients' files, too.
    series: Name of the DICOM volume, where the patient has several.
    phases: Name of the first phase of the 4D CT that the scan is a phase of; '' for others.
    phase: The phase of a 4D CT, such as '30 %' or '3 of 10'; '' for others.
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
    phases: str = ""
    phase: str = ""

    @property
    def person(self) -> str:
        """The name that all volumes of one person share; they go into one split and fold."""
        return self.name.removesuffix(f"_{self.series}") if self.series else self.name

    @property
    def label_map(self) -> str:
        """File name of the patient's predicted label map; compressed unless the scan is not."""
        return self.name + (files.name(self.ct)[len(stem(self.ct)) :] or ".nii.gz")


def name_fault(name: str) -> str:
    """Why no patient may have this name; '' where it is allowed."""
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


def check_names(patients, where: str) -> tuple[Patient, ...]:
    """The patients, sorted by name; one with a name that is not allowed gets a `fault`.

    where: Start of an error's message.

    Raises:
      InputError: Two patients have the same name, or names that differ only in case or in how an
        accent is stored: many disks have one file for both.
    """
    ordered = sorted(map(_with_usable_name, patients), key=lambda patient: patient.name)
    seen = {}
    for patient in ordered:
        other = seen.setdefault(_normalize(patient.name), patient)
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


def _normalize(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
