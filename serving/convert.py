"""Converts label maps to DICOM: those of serving.predict, or corrected by a person.

  python -m serving.convert --predictions=corrected --scans=DICOM_FOLDER --output=structures

Each object refers to the images of the scan of the same name (docs/dicom.md). If the audit finds a
label map implausible, such as one that is upside down, the label of the object is DRAFT SUSPECT.
Existing objects stay, unless --overwrite. Exit status 1 if an object could not be made.
"""

import importlib.metadata
import os
import time

import numpy as np
from absl import flags

from segthor import audit, dicom, files, guard, inputs, locks, outputs, patient_table, scans
from segthor.errors import InputError, run
from segthor.findings import doubts, print_warnings
from segthor.organs import Organs
from segthor.progress import case_line
from serving.scoring import pairs

PREDICTIONS = flags.DEFINE_string(
    "predictions", None, "Folder of label maps, named after the scans.", required=True
)
SCANS = flags.DEFINE_string(
    "scans", None, "The scans: a DICOM folder, or a CSV with patient and ct.", required=True
)
SERIES = flags.DEFINE_string("series", "", patient_table.SERIES_HELP)
OUTPUT = flags.DEFINE_string("output", None, "Folder of the DICOM files.", required=True)
FORMATS = flags.DEFINE_list(
    "formats",
    ["rtstruct"],
    "rtstruct (a structure set, for planning systems), seg (for research viewers), labelmap (the "
    "newer kind of SEG).",
)
ORGAN_TABLE = flags.DEFINE_string(
    "organ_table",
    None,
    "CSV or JSON of the organs, for a folder that serving.predict did not write (default: "
    "SegTHOR's four).",
)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "Replace existing objects.")
_LATEST = 253402300799  # last second of the year 9999, the last year of a DICOM date


def main(_):
    """Converts case by case; a case that cannot be converted does not stop the others."""
    if not FORMATS.value or set(FORMATS.value) - set(dicom.FORMATS):
        known, found = ", ".join(dicom.FORMATS), ",".join(FORMATS.value)
        raise InputError(f"--formats: expected some of {known}; found {found!r}")
    input_paths = {flag.name: flag.value for flag in (PREDICTIONS, SCANS, ORGAN_TABLE)}
    outputs.check_folder(OUTPUT.value, input_paths)
    label_maps = inputs.find_predictions(PREDICTIONS.value)
    series = patient_table.read_series(SERIES.value)
    patients = inputs.find(SCANS.value, organs=None, series=series)
    todo = [scan for scan in patients if scan.name in label_maps]
    if not todo:
        raise InputError(
            f"no scan has a label map: {PREDICTIONS.value} holds {min(label_maps)} ..., "
            f"{SCANS.value} holds {patients[0].name} ..."
        )
    organs = pairs.table_of(PREDICTIONS.value, table=ORGAN_TABLE.value)
    with locks.lock_folder(OUTPUT.value):
        return _convert(todo, label_maps, organs)


def _convert(todo, label_maps: dict[str, str], organs: Organs) -> int:
    files.remove_partial(OUTPUT.value)
    failed, began = 0, time.monotonic()
    for number, scan in enumerate(todo, 1):
        try:
            state = _convert_one(scan, label_maps[scan.name], organs)
        except Exception as error:  # an unforeseen error must not stop the other scans
            failed, state = failed + 1, f"FAILED: {guard.describe(error)}"
        print(case_line(number, len(todo), f"{scan.name}  {state}", began), flush=True)
    for name in sorted(set(label_maps) - {scan.name for scan in todo}):
        failed += 1
        print(f"MISSING: {name}: no scan of this name in {SCANS.value}")
    print(f"{len(todo)} scans with label maps, {failed} without a result; see {OUTPUT.value}.")
    return 1 if failed else 0


def _convert_one(scan, label_map: str, organs: Organs) -> str:
    """Makes the objects of one scan, all or none; returns the outcome for the terminal."""
    if scan.fault:
        raise InputError(scan.fault)
    made = _origin(label_map)
    paths = {
        kind: files.inside(OUTPUT.value, f"{scan.name}_{kind}.dcm")
        for kind in dicom.FORMATS
        if kind in FORMATS.value
    }
    if not OVERWRITE.value:
        paths = {kind: path for kind, path in paths.items() if not _is_made(path, made["model"])}
    if not paths:
        return "is there already"
    ct = scans.read(scan.ct, among=scan.ct_files)
    labels = scans.read_labels(label_map, (scan.ct, ct.grid), organs=organs)
    print_warnings(labels.findings)
    doubts_text = _describe_doubts(ct, labels)
    with outputs.Staging() as staging:
        staged = {kind: staging.path(path) for kind, path in paths.items()}
        made |= {"doubt": doubts_text}
        written = scans.write_dicom(scan.ct, labels, staged, made, among=scan.ct_files)
        staging.publish()
    empty = [kind for kind, path in written.items() if path is None]
    state = "no organ in it; no structure set written" if empty else ", ".join(paths.values())
    return f"{state}  look at it: {doubts_text}" if doubts_text else state


def _is_made(path: str, model: str) -> bool:
    """Whether an object of the same label map exists; `model` names the label map, see `_origin`.

    Raises:
      InputError: Another object exists.
    """
    if not files.exists(path):
        return False
    if not outputs.dicom_object(path, model):
        raise InputError(f"{path}: exists and was not made of this label map; --overwrite it")
    return True


def _describe_doubts(ct, labels) -> str:
    """Describes what the audit finds implausible about the predicted organs; '' for nothing."""
    counts = np.bincount(labels.zyx.ravel(), minlength=256)
    names = [organ.name for organ in labels.organs if counts[organ.label]]
    _, findings = audit.measure_prediction(ct, labels, names)
    return "; ".join(doubts(findings))


def _origin(label_map: str) -> dict:
    """Returns the fields of `segthor.dicom.origin.Origin`, but for the doubt."""
    # Time and digest of the label map: a second conversion gives the same bytes.
    remote = files.is_url(label_map)
    changed = time.time() if remote else os.path.getmtime(label_map)
    made = time.gmtime(min(max(changed, 0), _LATEST))  # file times may be wrong
    digest = files.sha256(label_map)[:16]
    return {
        "version": importlib.metadata.version("segthor"),
        "model": f"label map {digest}",
        "date": time.strftime("%Y%m%d", made),
        "time": time.strftime("%H%M%S", made),
    }


if __name__ == "__main__":
    run(main)
