"""Makes the zip of label maps for the SegTHOR challenge and checks it against the scans.

  python -m serving.submission --predictions=predictions --scans=patients/test --output=entry.zip

The zip holds Patient_41.nii and so on at its root: uint8, uncompressed NIfTI on the scan's grid.
"""

import zipfile

import numpy as np
from absl import flags

from segthor import files, inputs, nifti, outputs, scans
from segthor.errors import InputError, run
from segthor.findings import print_warnings
from segthor.organs import Organs
from segthor.patients import Patient
from serving.scoring import pairs, tables

PREDICTIONS = flags.DEFINE_string("predictions", None, "Folder of label maps.", required=True)
SCANS = flags.DEFINE_string("scans", None, "The challenge's CT.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "The zip.", required=True)
CHALLENGE = tuple(f"Patient_{number}" for number in range(41, 61))
_TIME = (1980, 1, 1, 0, 0, 0)  # a fixed time, so that the same label maps give the same bytes
_IN_MEMORY = "memory://submission/label_map.nii"  # fsspec's URL of a file in this process' memory


def main(_):
    """Collects the label maps, writes the zip, reads it back and compares."""
    path = OUTPUT.value
    input_paths = {flag.name: flag.value for flag in (PREDICTIONS, SCANS)}
    outputs.check_file(path, ".zip", outputs.archive_of(".nii"), input_paths)
    patients = inputs.find(SCANS.value, organs=None)
    predictions = inputs.find_predictions(PREDICTIONS.value)
    organs = pairs.table_of(PREDICTIONS.value)
    _require_predictions(patients, predictions, organs)
    with outputs.lock_folder(files.parent(path), (files.name(path),)):
        with files.atomic_write(path) as stream:
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
                for number, scan in enumerate(patients, 1):
                    volumes = _add(archive, scan, predictions[scan.name], organs)
                    print(f"[{number}/{len(patients)}] {_entry_name(scan)}  {volumes}", flush=True)
        with files.open_read(path) as stream, zipfile.ZipFile(stream) as archive:
            for scan in patients:
                _check_entry(archive, scan, predictions[scan.name], organs)
    print(f"Wrote {path}: {len(patients)} label maps, each checked against its scan.")
    _print_notes({scan.name for scan in patients}, predictions)


def _require_predictions(patients, predictions, organs: Organs) -> None:
    """Raises InputError if a scan has no label map."""
    missing = [scan.name for scan in patients if scan.name not in predictions]
    if missing:
        first = pairs.explain_missing(PREDICTIONS.value, missing[0], organs)
        raise InputError(
            f"{PREDICTIONS.value}: no label map for {', '.join(missing)} ({missing[0]}: {first}); "
            "run serving.predict again"
        )


def _print_notes(patients: set[str], predictions) -> None:
    absent = [name for name in CHALLENGE if name not in patients]
    if absent:
        print(f"note: the challenge asks for Patient_41 to Patient_60; without {', '.join(absent)}")
    surplus = sorted(set(predictions) - patients)
    if surplus:
        print(f"note: label maps without a scan are left out: {tables.shorten_list(surplus)}")


def _add(archive: zipfile.ZipFile, scan: Patient, path: str, organs: Organs) -> str:
    """Adds one label map; returns its volumes as text, in which empty organs are marked."""
    grid = scans.read_grid(scan.ct)
    predicted = scans.read_labels(path, like=(scan.ct, grid), organs=organs)
    print_warnings(predicted.findings)
    nifti.write(_IN_MEMORY, predicted.zyx, grid)
    entry = zipfile.ZipInfo(_entry_name(scan), _TIME)
    entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    archive.writestr(entry, files.read_bytes(_IN_MEMORY))
    counts = np.bincount(predicted.zyx.ravel(), minlength=1 + organs.highest_label)
    cm3 = counts * float(np.prod(grid.spacing_mm)) / 1000
    volumes = [f"{cm3[organ.label]:.0f}" if counts[organ.label] else "EMPTY" for organ in organs]
    named = (f"{name} {volume}" for name, volume in zip(organs.names, volumes, strict=True))
    return ", ".join(named) + " cm3"


def _check_entry(archive: zipfile.ZipFile, scan: Patient, path: str, organs: Organs) -> None:
    """Raises InputError if an entry is not the prediction, uint8, on the scan's grid."""
    with files.atomic_write(_IN_MEMORY) as stream:
        stream.write(archive.read(_entry_name(scan)))
    stored = scans.read(_IN_MEMORY)
    grid = scans.read_grid(scan.ct)
    same = (
        stored.zyx.dtype == np.uint8
        and stored.grid.shape == grid.shape
        and np.array_equal(stored.grid.affine, grid.affine)
        and np.array_equal(stored.zyx, scans.read_labels(path, organs=organs).zyx)
    )
    if not same:
        raise InputError(
            f"{OUTPUT.value}: {_entry_name(scan)} is not the label map that was written"
        )


def _entry_name(scan: Patient) -> str:
    """Name of the scan's entry, at the root of the zip for every name of a patient."""
    return files.name(files.inside(OUTPUT.value, f"{scan.name}.nii"))


if __name__ == "__main__":
    run(main)
