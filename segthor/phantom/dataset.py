"""Writes phantoms in the layout of the SegTHOR data set."""

import functools
import time

from segthor import files, json_files, nifti, outputs
from segthor.errors import InputError
from segthor.organs import SEGTHOR, Organs
from segthor.phantom.contours import check_drawn
from segthor.phantom.patient import make

SETTINGS = "phantoms.json"
FIRST_TEST_PATIENT = 41  # as in the challenge, which has 40 training patients
VERSION = 1  # increase it when the same seed gives other voxels

_print = functools.partial(print, flush=True)


def write_dataset(
    output: str,
    patients: int,
    test_patients: int,
    size: str,
    seed: int,
    organs: Organs = SEGTHOR,
    report=_print,
) -> None:
    """Writes patients into `output`, except those that exist already.

    patients, test_patients: Number of patients in train/ and test/. size, organs: See `make`. seed:
    See `patient_seed`. report: Called with a line of text for each patient.

    Raises:
      InputError: Organs that phantoms do not draw, or a folder with other content.
    """
    check_drawn(organs)
    settings = {"version": VERSION, "size": size, "seed": seed}
    settings |= {"patients": patients, "test_patients": test_patients}
    if organs.numbers != SEGTHOR.numbers:
        settings["organs"] = organs.numbers
    _check_output(output, settings)
    todo = list(paths(output, patients, test_patients))
    started = time.monotonic()
    for done, (number, *scan_and_labels) in enumerate(todo, 1):
        state = _write_patient(*scan_and_labels, patient_seed(seed, number), size, organs)
        seconds, name = time.monotonic() - started, files.name(scan_and_labels[0])
        report(f"[{done}/{len(todo)}] {name}: {state} ({seconds:.0f} s)")


def _write_patient(scan_path: str, labels_path: str, seed: int, size: str, organs: Organs) -> str:
    """Writes one patient, unless it exists; returns its size or state, for the report."""
    if files.exists(scan_path) and files.exists(labels_path):
        return "is there already"
    made = make(seed, size, organs)
    nifti.write(labels_path, made.label_map.zyx, made.label_map.grid)
    nifti.write(scan_path, made.volume.zyx, made.volume.grid)
    return "x".join(map(str, made.hu.shape))


def patient_seed(seed: int, number: int) -> int:
    """The seed for `make` of one patient of a data set."""
    return seed * 100_000 + number


def _check_output(output, settings):
    """Raises InputError for a folder with other content; writes the settings into a new one."""
    outputs.check_folder(output, {}, own=outputs.PHANTOMS)
    path = files.join(output, SETTINGS)
    if files.exists(path):
        existing = json_files.read(path)
        if existing != settings:
            raise InputError(
                f"{output}: expected phantoms made with {_text(settings)}, found others, made with "
                f"{_text(existing)}; choose another --output or the same settings"
            )
    elif files.exists(output) and files.listdir(output):
        raise InputError(
            f"{output}: expected an empty or new folder, found {files.listdir(output)[0]}; "
            "choose another --output"
        )
    else:
        json_files.write(path, settings)


def _text(settings):
    if not isinstance(settings, dict):
        return f"no settings but {settings!r:.40}"
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def paths(output, patients, test_patients):
    """Yields (number, path of the scan, path of the labels) of every patient."""
    for number in range(1, patients + 1):
        folder = files.join(output, "train", f"Patient_{number:02d}")
        name = f"Patient_{number:02d}.nii.gz"
        yield number, files.join(folder, name), files.join(folder, "GT.nii.gz")
    first = max(FIRST_TEST_PATIENT, patients + 1)
    for number in range(first, first + test_patients):
        name = f"Patient_{number:02d}.nii.gz"
        yield number, files.join(output, "test", name), files.join(output, "test_labels", name)
