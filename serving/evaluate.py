"""Scores predicted label maps against contours, in mm and cm3.

  python -m serving.evaluate --predictions=predictions --labels=patients/train --output=evaluation

Writes scores.csv and scores.json; with --scans the picture overlay.png, with --compare also
comparison.json. Status 1 where a patient with contours has no prediction, or cannot be scored.
"""

from absl import flags

from segthor import drawing, files, inputs, json_files, organs, scans
from segthor.errors import InputError, hint, run
from segthor.manifest import TRAIN, VALIDATION
from serving.scoring import comparison, evaluation, facts, output, pairs, picture, tables
from serving.scoring.evaluation import PatientScores

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
SPLIT = flags.DEFINE_enum(
    "split", None, [TRAIN, VALIDATION], "Of a dataset, score these alone; as in predict."
)
SCANS = flags.DEFINE_string("scans", None, "The CT, for the picture; as --input of predict.")
ORGANS = flags.DEFINE_list("organs", list(organs.NAMES), "Score these alone.")
COMPARE = flags.DEFINE_string(
    "compare", None, "Folder of another run's evaluation, to test the two patient by patient."
)
REFERENCES = flags.DEFINE_boolean(
    "references", True, "Print what others reached on SegTHOR's patients."
)
PICTURED = 8  # patients in the picture: the worst ones
WRITTEN = ("scores.csv", "scores.json", "comparison.json", "overlay.png")


def main(_):
    """Matches predictions and contours by patient, scores each pair, writes and prints."""
    _check_organs()
    other = comparison.load(COMPARE.value) if COMPARE.value else None
    cts = {scan.name: scan.ct for scan in inputs.find(SCANS.value)} if SCANS.value else {}
    found = _match()
    given = {flag.name: flag.value for flag in (PREDICTIONS, LABELS, SCANS, COMPARE)}
    with output.alone(OUTPUT.value, WRITTEN, given):
        scored, failed = _score(found.pairs)
        if not scored:
            raise InputError("no patient could be scored; see the lines above")
        _write_scores(scored, found.missing, failed)
        _print_scores(scored)
        if other is not None:
            _compare(scored, other)
        unpictured = _draw(scored, found.pairs, cts) if SCANS.value else 0
    missing = len(found.missing)
    print(
        f"\nWrote scores.csv, scores.json to {OUTPUT.value}; {len(failed)} patients failed, "
        f"{missing} have no prediction."
    )
    print(
        hint(
            "serving.report",
            predictions=PREDICTIONS.value,
            labels=LABELS.value,
            scans=SCANS.value or "SCANS",
            split=SPLIT.value,
            output=OUTPUT.value,
        )
    )
    return 1 if failed or missing or unpictured else 0


def _check_organs() -> None:
    unknown = sorted(set(ORGANS.value) - set(organs.NAMES))
    if unknown or not ORGANS.value:
        found = unknown[0] if unknown else "none"
        raise InputError(f"--organs: expected some of {','.join(organs.NAMES)}, found {found}")


def _match() -> pairs.Match:
    """Contours with the label maps predicted for the same patients; says what has no partner."""
    found = pairs.match(LABELS.value, PREDICTIONS.value, SPLIT.value)
    print(
        f"{len(found.pairs)} patients to score; {len(found.uncontoured)} predictions have no "
        f"contours, {len(found.missing)} contours have no prediction."
    )
    if found.uncontoured:
        print(f"Without contours: {tables.some(found.uncontoured)}")
    for patient, reason in found.missing.items():
        print(f"MISSING: {patient}: {reason}", flush=True)
    return found


def _score(matched) -> tuple[list[PatientScores], dict[str, str]]:
    """One line per patient; one that cannot be scored is named with the reason."""
    scored, failed = [], {}
    for number, (contours, path) in enumerate(matched, 1):
        line = f"[{number}/{len(matched)}] {contours.name}"
        try:
            predicted, truth = pairs.read(contours, path)
            predictable = facts.read(PREDICTIONS.value, contours.name).organs
        except InputError as error:
            failed[contours.name] = str(error)
            print(f"{line}  FAILED: {error}", flush=True)
            continue
        named = set(ORGANS.value) & set(predictable) & set(contours.organs)
        names = [name for name in organs.NAMES if name in named]
        scored.append(PatientScores(contours.name, evaluation.score(predicted, truth, names)))
        print(line if names else f"{line}  no organ is wanted, contoured and predicted", flush=True)
        for warning in (*predicted.warnings, *truth.warnings):
            print(f"warning: {warning}", flush=True)
    return scored, failed


def _write_scores(scored, missing, failed) -> None:
    scores = evaluation.to_json(scored, missing, failed)
    json_files.write(files.join(OUTPUT.value, "scores.json"), scores)
    evaluation.write_csv(files.join(OUTPUT.value, "scores.csv"), scored)


def _print_scores(scored) -> None:
    for text in (tables.patients(scored), tables.intervals(scored), tables.organ_means(scored)):
        print(f"\n{text}")
    if REFERENCES.value:
        print(f"\n{tables.reference_rows()}")


def _compare(scored, other) -> None:
    ours = evaluation.by_patient(scored)
    rows = comparison.compare(ours, other)
    path = files.join(OUTPUT.value, "comparison.json")
    json_files.write(path, rows)
    print(f"\n{tables.comparison(rows)}\nWrote {path}.")
    for which, names in (("this", set(ours) - set(other)), ("the other", set(other) - set(ours))):
        if names:
            print(f"Left out, scored by {which} run alone: {tables.some(sorted(names))}")


def _draw(scored, matched, cts) -> int:
    """Draws the patients with the worst mean Dice; returns how many of them could not be drawn."""
    paths = {contours.name: (contours, path) for contours, path in matched}
    known = [patient for patient in scored if patient.organs and patient.patient in cts]
    tiles, failed = [], 0
    for patient in sorted(known, key=evaluation.mean_dice)[:PICTURED]:
        name = patient.patient
        try:
            ct = scans.read(cts[name])
            predicted, truth = pairs.read(*paths[name], ct=(cts[name], ct.grid))
            tiles += picture.tiles(name, ct, truth.array, predicted.array, patient.organs)
        except InputError as error:
            failed += 1
            print(f"No picture of {name}: {error}")
    if not tiles:
        print(f"No picture: none of these patients' scans is in {SCANS.value}.")
        return failed
    pictures, captions = zip(*tiles, strict=True)
    note = "predicted solid, true pale and dashed"
    page = drawing.sheet(pictures, min(4, len(pictures)), captions, note)
    path = files.join(OUTPUT.value, "overlay.png")
    drawing.save_png(path, page)
    print(f"\nWrote {path}: the worst and a typical slice of the worst patients.")
    return failed


if __name__ == "__main__":
    run(main)
