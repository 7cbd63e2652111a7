"""Scores predicted label maps against contours, in mm and cm3.

  python -m serving.evaluate --predictions=predictions --labels=patients/train --output=evaluation

Writes scores.csv and scores.json; with --scans the picture overlay.png, with --compare also
comparison.json.
"""

from absl import flags

from segthor import drawing, files, inputs, nifti, organs
from segthor.errors import InputError, run
from segthor.patients import Patient
from serving.prediction import results
from serving.scoring import comparison, evaluation, overlay, tables

PREDICTIONS = flags.DEFINE_string("predictions", None, "Folder of label maps.", required=True)
LABELS = flags.DEFINE_string(
    "labels",
    None,
    "The contours: a folder with one file per patient, SegTHOR's own layout "
    "(train/Patient_01/GT.nii.gz), a dataset's folder, or a CSV with the columns patient, labels "
    "and, if only some organs were contoured, organs.",
    required=True,
)
OUTPUT = flags.DEFINE_string("output", None, "Where the scores go.", required=True)
SCANS = flags.DEFINE_string("scans", None, "The CT, for the picture; as --input of predict.")
ORGANS = flags.DEFINE_list("organs", list(organs.NAMES), "Score these alone.")
COMPARE = flags.DEFINE_string(
    "compare", None, "Folder of another run's evaluation, to test the two patient by patient."
)
REFERENCES = flags.DEFINE_boolean(
    "references", True, "Print what others reached on SegTHOR's patients."
)
PICTURED = 8  # patients in the picture: the worst ones


def main(_):
    """Matches predictions and contours by patient, scores each pair, writes and prints."""
    other = comparison.load(COMPARE.value) if COMPARE.value else None
    pairs = _pairs()
    scored = _score(pairs)
    if not scored:
        raise InputError("no patient could be scored; see the lines above")
    scores = evaluation.to_json(scored)
    files.write_json(files.join(OUTPUT.value, "scores.json"), scores)
    evaluation.write_csv(files.join(OUTPUT.value, "scores.csv"), scored)
    written = ["scores.csv", "scores.json"]
    for text in (tables.patients(scored), tables.intervals(scored), tables.organ_means(scored)):
        print(f"\n{text}")
    if REFERENCES.value:
        print(f"\n{tables.reference_rows()}")
    if other is not None:
        rows = comparison.compare(scores["patients"], other)
        files.write_json(files.join(OUTPUT.value, "comparison.json"), rows)
        written.append("comparison.json")
        print(f"\n{tables.comparison(rows)}")
    if SCANS.value:
        written += _picture(scored, pairs)
    failed = len(pairs) - len(scored)
    print(f"\nWrote {', '.join(written)} to {OUTPUT.value}; {failed} patients failed.")
    print(
        "Next: python -m serving.report "
        f"--predictions={PREDICTIONS.value} --labels={LABELS.value} "
        f"--scans={SCANS.value or 'SCANS'} --output={OUTPUT.value}"
    )
    return 1 if failed else 0


def _pairs() -> list[tuple[Patient, str]]:
    """Contours with the label map predicted for the same patient."""
    unknown = sorted(set(ORGANS.value) - set(organs.NAMES))
    if unknown or not ORGANS.value:
        found = unknown[0] if unknown else "none"
        raise InputError(f"--organs: expected some of {','.join(organs.NAMES)}, found {found}")
    predictions = inputs.find_predictions(PREDICTIONS.value)
    labels = inputs.find_contours(LABELS.value)
    pairs = [(entry, predictions[entry.name]) for entry in labels if entry.name in predictions]
    if not pairs:
        raise InputError(
            f"no patient has both: {PREDICTIONS.value} holds {min(predictions)} ..., "
            f"{LABELS.value} holds {labels[0].name} ..."
        )
    print(
        f"{len(pairs)} patients to score; {len(predictions) - len(pairs)} predictions have no "
        f"contours, {len(labels) - len(pairs)} contours have no prediction."
    )
    return pairs


def _score(pairs) -> list[evaluation.PatientScores]:
    """One line per patient; a pair that does not fit is named and left out."""
    scored = []
    for number, (labels, predicted_path) in enumerate(pairs, 1):
        line = f"[{number}/{len(pairs)}] {labels.name}"
        try:
            predicted, truth, grid = evaluation.read_pair(
                predicted_path, labels.labels, labels.label_values
            )
            facts = results.facts_of(PREDICTIONS.value, labels.name)
            wanted = set(ORGANS.value) & set(facts.get("organs", organs.NAMES))
            scored.append(evaluation.score(predicted, truth, grid, labels, wanted))
            print(line, flush=True)
        except InputError as error:
            print(f"{line}  FAILED: {error}", flush=True)
    return scored


def _picture(scored, pairs) -> list[str]:
    """Draws the patients with the worst mean Dice; returns the names of the files written."""
    scans = {scan.name: scan.ct for scan in inputs.find(SCANS.value)}
    paths = {labels.name: (path, labels.labels, labels.label_values) for labels, path in pairs}
    shown = sorted((p for p in scored if p.patient in scans and p.organs), key=evaluation.mean_dice)
    tiles = []
    for patient in shown[:PICTURED]:
        predicted, truth, grid = evaluation.read_pair(*paths[patient.patient])
        hu = nifti.read(scans[patient.patient]).array
        tiles += overlay.tiles(patient.patient, hu, truth, predicted, grid, patient.organs)
    if not tiles:
        print(f"No picture: none of these patients' scans is in {SCANS.value}.")
        return []
    pictures, captions = zip(*tiles, strict=True)
    note = "predicted solid, true pale and dashed"
    page = drawing.sheet(pictures, min(4, len(pictures)), captions, note)
    drawing.save_png(files.join(OUTPUT.value, "overlay.png"), page)
    return ["overlay.png"]


if __name__ == "__main__":
    run(main)
