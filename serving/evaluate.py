"""Scores predicted label maps against contours, in mm and cm3.

  python -m serving.evaluate --predictions=predictions --labels=patients/train --output=evaluation

Writes scores.csv, scores.json and, with --scans, the picture overlay.png.
"""

from absl import flags

from segthor import drawing, files, nifti, organs
from segthor.errors import InputError, run
from serving import cases, overlay, scoring, tables

PREDICTIONS = flags.DEFINE_string("predictions", None, "Folder of label maps.", required=True)
LABELS = flags.DEFINE_string(
    "labels",
    None,
    "The contours: a folder with one file per patient, SegTHOR's own layout "
    "(train/Patient_01/GT.nii.gz), or a CSV with the columns patient, labels and, if only some "
    "organs were contoured, organs.",
    required=True,
)
OUTPUT = flags.DEFINE_string("output", None, "Where the scores go.", required=True)
SCANS = flags.DEFINE_string("scans", None, "The CT, for the picture; as --input of predict.")
ORGANS = flags.DEFINE_list("organs", list(organs.NAMES), "Score these alone.")
PICTURED = 8  # patients in the picture: the worst ones


def main(_):
    """Matches predictions and contours by patient, scores each pair, writes and prints."""
    unknown = sorted(set(ORGANS.value) - set(organs.NAMES))
    if unknown or not ORGANS.value:
        found = unknown[0] if unknown else "none"
        raise InputError(f"--organs: expected some of {','.join(organs.NAMES)}, found {found}")
    pairs = _pairs()
    scored, failed = [], 0
    for number, (labels, predicted_path) in enumerate(pairs, 1):
        try:
            predicted, truth, grid = scoring.read_pair(predicted_path, labels.path)
            scored.append(scoring.score(predicted, truth, grid, labels, ORGANS.value))
            print(f"[{number}/{len(pairs)}] {labels.patient}")
        except InputError as error:
            failed += 1
            print(f"[{number}/{len(pairs)}] {labels.patient}  FAILED: {error}")
    if not scored:
        raise InputError("no patient could be scored; see the lines above")
    files.write_json(files.join(OUTPUT.value, "scores.json"), scoring.to_json(scored))
    scoring.write_csv(files.join(OUTPUT.value, "scores.csv"), scored)
    print(f"\n{tables.patients(scored)}\n\n{tables.organ_means(scored)}\n")
    written = ["scores.csv", "scores.json"]
    if SCANS.value:
        written += _picture(scored, pairs)
    print(f"Wrote {', '.join(written)} to {OUTPUT.value}/; {failed} patients failed.")
    return 1 if failed else 0


def _pairs() -> list[tuple[cases.Labels, str]]:
    predictions = {entry.patient: entry.path for entry in cases.labels(PREDICTIONS.value)}
    labels = cases.labels(LABELS.value)
    matched = [
        (entry, predictions[entry.patient]) for entry in labels if entry.patient in predictions
    ]
    if not matched:
        raise InputError(
            f"no patient has both: {PREDICTIONS.value} holds {min(predictions)} ..., "
            f"{LABELS.value} holds {labels[0].patient} ..."
        )
    print(
        f"{len(matched)} patients to score; {len(predictions) - len(matched)} predictions have no "
        f"contours, {len(labels) - len(matched)} contours have no prediction."
    )
    return matched


def _picture(scored, pairs) -> list[str]:
    """Draws the patients with the worst mean Dice; returns the names of the files written."""
    scans = {scan.patient: scan.ct for scan in cases.scans(SCANS.value)}
    paths = {labels.patient: (path, labels.path) for labels, path in pairs}
    ranked = sorted(scored, key=lambda p: sum(s.dice for s in p.organs.values()) / len(p.organs))
    tiles = []
    for patient in [p for p in ranked if p.patient in scans][:PICTURED]:
        predicted, truth, grid = scoring.read_pair(*paths[patient.patient])
        hu = nifti.read(scans[patient.patient]).array
        tiles += overlay.tiles(patient.patient, hu, truth, predicted, grid, patient.organs)
    if not tiles:
        return []
    pictures, captions = zip(*tiles, strict=True)
    note = "predicted solid, true pale and dashed"
    page = drawing.sheet(pictures, min(4, len(pictures)), captions, note)
    drawing.save_png(files.join(OUTPUT.value, "overlay.png"), page)
    return ["overlay.png"]


if __name__ == "__main__":
    run(main)
