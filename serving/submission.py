"""Makes the SegTHOR challenge's zip of label maps and checks it against the scans.

  python -m serving.submission --predictions=predictions --scans=patients/test --output=entry.zip

Holds Patient_41.nii and so on: uint8, uncompressed NIfTI on the scan's grid, at the zip's root.
"""

import os
import tempfile
import zipfile

import numpy as np
from absl import flags

from segthor import audit, files, inputs, nifti, organs
from segthor.errors import InputError, run
from segthor.patients import Patient
from serving.scoring import evaluation

PREDICTIONS = flags.DEFINE_string("predictions", None, "Folder of label maps.", required=True)
SCANS = flags.DEFINE_string("scans", None, "The challenge's CT.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "The zip.", required=True)
CHALLENGE = tuple(f"Patient_{number}" for number in range(41, 61))
_MADE = (1980, 1, 1, 0, 0, 0)  # a zip's earliest time: the same label maps give the same bytes


def main(_):
    """Collects and checks the label maps, writes the zip, reads it back and checks again."""
    scans = inputs.find(SCANS.value)
    predictions = inputs.find_predictions(PREDICTIONS.value)
    _check_complete(scans, predictions)
    with files.atomic_write(OUTPUT.value) as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for number, scan in enumerate(scans, 1):
                volumes = _add(archive, scan, predictions[scan.name])
                print(f"[{number}/{len(scans)}] {_name(scan)}  {volumes}", flush=True)
    with files.open_read(OUTPUT.value) as stream, zipfile.ZipFile(stream) as archive:
        for scan in scans:
            _check_entry(archive, scan, predictions[scan.name])
    print(f"Wrote {OUTPUT.value}: {len(scans)} label maps, each checked against its scan.")
    absent = [name for name in CHALLENGE if name not in {scan.name for scan in scans}]
    if absent:
        print(f"note: the challenge asks for Patient_41 to Patient_60; without {', '.join(absent)}")


def _check_complete(scans, predictions) -> None:
    missing = [scan.name for scan in scans if scan.name not in predictions]
    if missing:
        raise InputError(
            f"{PREDICTIONS.value}: no label map for {', '.join(missing)}; run serving.predict again"
        )


def _add(archive: zipfile.ZipFile, scan: Patient, path: str) -> str:
    """Adds one label map; returns its volumes, for people to see what is empty."""
    predicted, grid = nifti.read(path), nifti.read_grid(scan.ct)
    evaluation.require_same_grid(grid, predicted.grid, scan.ct, path)
    labels, findings = audit.to_labels(predicted.array)
    if labels is None:
        raise InputError(f"{path}: {findings[0].message}")
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, _name(scan))
        nifti.write(file, labels, grid)
        entry = zipfile.ZipInfo(_name(scan), _MADE)
        entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
        archive.writestr(entry, files.read_bytes(file))
    counts = np.bincount(labels.ravel(), minlength=organs.NUM_CLASSES)
    cm3 = counts * float(np.prod(grid.spacing_mm)) / 1000
    volumes = [f"{o.name} {cm3[o.label]:.0f}" if counts[o.label] else f"{o.name} EMPTY"
               for o in organs.ORGANS]  # fmt: skip
    return ", ".join(volumes) + " cm3"


def _check_entry(archive: zipfile.ZipFile, scan: Patient, path: str) -> None:
    """What the server will read must be the prediction, uint8, on the scan's grid."""
    with tempfile.TemporaryDirectory() as folder:
        found = nifti.read(archive.extract(_name(scan), folder))
    grid = nifti.read_grid(scan.ct)
    same = (
        found.array.dtype == np.uint8
        and found.grid.shape == grid.shape
        and np.array_equal(found.grid.affine, grid.affine)
        and np.array_equal(found.array, nifti.read(path).array)
    )
    if not same:
        raise InputError(f"{OUTPUT.value}: {_name(scan)} does not read back as it was written")


def _name(scan: Patient) -> str:
    return f"{scan.name}.nii"


if __name__ == "__main__":
    run(main)
