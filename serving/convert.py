"""Makes DICOM of label maps that lie there already: the prediction's, or corrected by a person.

  python -m serving.convert --predictions=corrected --scans=DICOM_FOLDER --output=structures

Each object refers to the images of the scan of the same name (docs/dicom.md). What the audit finds
implausible, such as a label map upside down, is named, and the draft's label says SUSPECT. An
object that is there already stays, unless --overwrite. Exit status 1 where one could not be made.
"""

import importlib.metadata
import os
import time

import numpy as np
from absl import flags

from segthor import (
    audit,
    dicom,
    files,
    guard,
    inputs,
    locks,
    outputs,
    patient_table,
    progress,
    scans,
)
from segthor.errors import InputError, run
from segthor.findings import doubts
from segthor.organs import Organs
from serving.scoring import pairs

PREDICTIONS = flags.DEFINE_string(
    "predictions", None, "Folder of label maps, named after the scans.", required=True
)
SCANS = flags.DEFINE_string(
    "scans", None, "The scans: a DICOM folder, or a CSV with patient and ct.", required=True
)
SERIES = flags.DEFINE_string("series", "", patient_table.SERIES_HELP)
OUTPUT = flags.DEFINE_string("output", None, "Where the DICOM files go.", required=True)
FORMATS = flags.DEFINE_list(
    "formats",
    ["rtstruct"],
    "rtstruct (a structure set, for planning systems), seg (for research viewers), labelmap (the "
    "newer kind of SEG).",
)
ORGAN_TABLE = flags.DEFINE_string(
    "organ_table",
    None,
    "What the label values stand for, where the folder is not serving.predict's (default: "
    "SegTHOR's four).",
)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "Make again what is there already.")


def main(argv):
    """Converts case by case; one that cannot be converted is named, the others are made."""
    del argv
    if not FORMATS.value or set(FORMATS.value) - set(dicom.FORMATS):
        known, found = ", ".join(dicom.FORMATS), ",".join(FORMATS.value)
        raise InputError(f"--formats: expected some of {known}; found {found!r}")
    given = {flag.name: flag.value for flag in (PREDICTIONS, SCANS, ORGAN_TABLE)}
    outputs.check_folder(OUTPUT.value, given)
    label_maps = inputs.find_predictions(PREDICTIONS.value)
    series = patient_table.read_series(SERIES.value)
    found = inputs.find(SCANS.value, organs=None, series=series)
    todo = [scan for scan in found if scan.name in label_maps]
    if not todo:
        raise InputError(
            f"no scan has a label map: {PREDICTIONS.value} holds {min(label_maps)} ..., "
            f"{SCANS.value} holds {found[0].name} ..."
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
        except Exception as error:  # whatever it is, the other scans must not suffer
            failed, state = failed + 1, f"FAILED: {guard.describe(error)}"
        left_s = (time.monotonic() - began) / number * (len(todo) - number)
        print(
            f"[{number}/{len(todo)}] {scan.name}  {state}  ({progress.duration(left_s)} left)",
            flush=True,
        )
    for name in sorted(set(label_maps) - {scan.name for scan in todo}):
        failed += 1
        print(f"MISSING: {name}: no scan of this name in {SCANS.value}")
    print(f"{len(todo)} scans with label maps, {failed} without a result; see {OUTPUT.value}.")
    return 1 if failed else 0


def _convert_one(scan, label_map: str, organs: Organs) -> str:
    """Makes the objects of one scan, all or none; returns what became of it, in words."""
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
    for finding in labels.findings:
        print(f"warning: {finding.message}", flush=True)
    doubt = _doubt(ct, labels)
    with outputs.Staging() as staging:
        staged = {kind: staging.path(path) for kind, path in paths.items()}
        made |= {"doubt": doubt}
        written = scans.write_dicom(scan.ct, labels, staged, made, among=scan.ct_files)
        staging.publish()
    empty = [kind for kind, path in written.items() if path is None]
    state = "no organ in it; no structure set written" if empty else ", ".join(paths.values())
    return f"{state}  look at it: {doubt}" if doubt else state


def _is_made(path: str, model: str) -> bool:
    """Whether the object is there, made of this very label map.

    Raises:
      InputError: Another object is there.
    """
    if not files.exists(path):
        return False
    if not outputs.dicom_object(path, model):
        raise InputError(f"{path}: is there, and not made of this label map; --overwrite it")
    return True


def _doubt(ct, labels) -> str:
    """What the audit finds implausible about the organs that the label map holds, in words."""
    held = np.bincount(labels.zyx.ravel(), minlength=256)
    names = [organ.name for organ in labels.organs if held[organ.label]]
    _, findings = audit.measure_prediction(ct, labels, names)
    return "; ".join(doubts(findings))


def _origin(label_map: str) -> dict:
    """The label map's own time and bytes, so that a second conversion gives the same objects."""
    remote = files.is_url(label_map)
    made = time.gmtime(None if remote else os.path.getmtime(label_map))
    digest = files.sha256(label_map)[:16]
    return {
        "version": importlib.metadata.version("segthor"),
        "model": f"label map {digest}",
        "date": time.strftime("%Y%m%d", made),
        "time": time.strftime("%H%M%S", made),
    }


if __name__ == "__main__":
    run(main)
