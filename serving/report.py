"""Writes one HTML file to look through predictions: CT, contours, numbers. It needs no network.

  python -m serving.report --predictions=predictions --scans=patients/test --output=report \
    --labels=patients/test_labels

Without --labels it shows volumes and flags implausible ones.
"""

from absl import flags

from segthor import files, inputs, nifti, organs
from segthor.errors import InputError, run
from segthor.patients import Patient
from serving.prediction import results
from serving.scoring import animation, evaluation, page, viewer

PREDICTIONS = flags.DEFINE_string("predictions", None, "Folder of label maps.", required=True)
SCANS = flags.DEFINE_string("scans", None, "The CT; as --input of predict.", required=True)
LABELS = flags.DEFINE_string("labels", None, "The contours, if there are any; as in evaluate.")
OUTPUT = flags.DEFINE_string("output", None, "Where the report goes.", required=True)
GIF = flags.DEFINE_boolean("gif", True, "Also write an animated GIF of each patient.")


def main(_):
    """One entry per patient, worst first, into one page."""
    predictions = inputs.find_predictions(PREDICTIONS.value)
    scans = inputs.find(SCANS.value)
    contours = {e.name: e for e in inputs.find_contours(LABELS.value)} if LABELS.value else {}
    shown = [s for s in scans if s.name in predictions or _facts(s).get("failed")]
    if not shown:
        raise InputError(
            f"no scan of {SCANS.value} has a label map in {PREDICTIONS.value}; "
            f"it holds {min(predictions)} ..."
        )
    entries = []
    for number, scan in enumerate(shown, 1):
        entries.append(_entry(scan, predictions.get(scan.name), contours.get(scan.name)))
        print(f"[{number}/{len(shown)}] {scan.name}", flush=True)
    entries.sort(key=viewer.badness)
    path = files.join(OUTPUT.value, "report.html")
    size = page.write(path, entries, PREDICTIONS.value)
    print(f"Wrote {path} ({size / 1e6:.1f} MB, {len(entries)} patients); open it in a browser.")
    failed = sum("failed" in entry for entry in entries)
    return 1 if failed else 0


def _entry(scan: Patient, predicted_path: str | None, labels: Patient | None) -> dict:
    """One patient; trouble with it is shown in its place."""
    facts = _facts(scan)
    try:
        if predicted_path is None:
            raise InputError(facts["failed"])
        volume = nifti.read(scan.ct)
        pair = (labels.labels, labels.label_values) if labels else (predicted_path,)
        predicted, truth, grid = evaluation.read_pair(predicted_path, *pair)
        evaluation.require_same_grid(volume.grid, grid, scan.ct, predicted_path)
    except InputError as error:
        return viewer.failed(scan.name, str(error))
    scores = {}
    if labels:
        wanted = facts.get("organs", organs.NAMES)
        scores = evaluation.score(predicted, truth, grid, labels, wanted).organs
    truth = truth if labels else None
    if GIF.value:
        path = files.inside(files.join(OUTPUT.value, "gif"), f"{scan.name}.gif")
        animation.write(path, volume, predicted, truth)
    return viewer.patient(scan.name, volume, predicted, truth, scores, facts)


def _facts(scan: Patient) -> dict:
    return results.facts_of(PREDICTIONS.value, scan.name)


if __name__ == "__main__":
    run(main)
