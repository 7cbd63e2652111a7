"""Phantoms in the SegTHOR data set's layout."""

import functools
import time

from segthor import files, json_files, nifti, outputs
from segthor.errors import InputError
from segthor.organs import SEGTHOR, Organs
from segthor.phantom.contours import check_drawn
from segthor.phantom.patient import make

SETTINGS = "phantoms.json"
FIRST_TEST_PATIENT = 41  # as in the challenge, whose training patients end at 40
VERSION = 1  # of the anatomy: raised whenever the same seed gives other voxels


_say = functools.partial(print, flush=True)


def write_dataset(
    output: str,
    patients: int,
    test_patients: int,
    size: str,
    seed: int,
    organs: Organs = SEGTHOR,
    report=_say,
) -> None:
    """Writes patients into `output`, one after the other; those that are there are left alone.

    Raises:
      InputError: organs that phantoms do not draw; the folder holds other phantoms, or something
        else.
    """
    check_drawn(organs)
    settings = {
        "version": VERSION,
        "size": size,
        "seed": seed,
        "patients": patients,
        "test_patients": test_patients,
    }
    _claim(output, settings | _organ_settings(organs))
    todo = list(places(output, patients, test_patients))
    started = time.monotonic()
    for done, (number, scan_path, labels_path) in enumerate(todo, 1):
        if files.exists(scan_path) and files.exists(labels_path):
            state = "is there already"
        else:
            made = make(patient_seed(seed, number), size, organs)
            nifti.write(labels_path, made.label_map.zyx, made.label_map.grid)
            nifti.write(scan_path, made.volume.zyx, made.volume.grid)
            state = "x".join(map(str, made.hu.shape))
        seconds = time.monotonic() - started
        report(f"[{done}/{len(todo)}] {files.name(scan_path)}: {state} ({seconds:.0f} s)")


def patient_seed(seed: int, number: int) -> int:
    """The seed for `make` of one patient of a data set, whatever the others are."""
    return seed * 100_000 + number


def _organ_settings(organs):
    """What a table changes in label maps. SegTHOR's own goes unsaid, as in folders made before."""
    labels = {organ.name: organ.label for organ in organs}
    return {} if labels == {organ.name: organ.label for organ in SEGTHOR} else {"organs": labels}


def _claim(output, settings):
    """Refuses a folder that is in use for something else; records what this one is for."""
    outputs.check_folder(output, {}, own=outputs.PHANTOMS)
    path = files.join(output, SETTINGS)
    if files.exists(path):
        found = json_files.read(path)
        if found != settings:
            raise InputError(
                f"{output}: holds phantoms made with {_text(found)}; asked for {_text(settings)}; "
                "choose another --output or the same settings"
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


def places(output, patients, test_patients):
    """(number, scan, labels) of every patient, in SegTHOR's layout."""
    for number in range(1, patients + 1):
        folder = files.join(output, "train", f"Patient_{number:02d}")
        name = f"Patient_{number:02d}.nii.gz"
        yield number, files.join(folder, name), files.join(folder, "GT.nii.gz")
    first = max(FIRST_TEST_PATIENT, patients + 1)
    for number in range(first, first + test_patients):
        name = f"Patient_{number:02d}.nii.gz"
        yield number, files.join(output, "test", name), files.join(output, "test_labels", name)
