"""Scores predicted label maps against true contours; distances in mm, volumes in cm3.

  python -m serving.evaluate --predictions=predictions --labels=patients/train --output=evaluation

Writes scores.csv and scores.json, with --scans also the picture overlay.png, with --compare also
comparison.json. Status 1 if a patient with contours has no prediction or cannot be scored.
"""

from absl import flags

from segthor import drawing, files, guard, inputs, json_files, outputs, patient_table, scans
from segthor.errors import InputError, hint, run
from segthor.manifest import TRAIN, VALIDATION
from segthor.organ_table import read_roi_names
from segthor.organs import SEGTHOR, Organs
from segthor.patients import Patient
from serving.prediction import facts
from serving.scoring import comparison, evaluation, pairs, picture, tables
from serving.scoring.evaluation import PatientScores

PREDICTIONS = flags.DEFINE_string(
    "predictions",
    None,
    "Folder of label maps, DICOM tree with structure sets of the labels' or scans' CT, or a CSV "
    "with the columns patient, labels and, for structure sets, ct.",
    required=True,
)
LABELS = flags.DEFINE_string(
    "labels",
    None,
    "The contours: a folder with one file per patient, SegTHOR's own layout "
    "(train/Patient_01/GT.nii.gz), a DICOM tree, a dataset's folder, or a CSV with "
    "the columns patient, labels, for structure sets ct and, if only some organs were contoured, "
    "organs.",
    required=True,
)
OUTPUT = flags.DEFINE_string("output", None, "Folder of the scores.", required=True)
SPLIT = flags.DEFINE_enum(
    "split", None, [TRAIN, VALIDATION], "Score only these patients of a dataset; as in predict."
)
SCANS = flags.DEFINE_string("scans", None, "The CT, for the picture; as --input of predict.")
SERIES = flags.DEFINE_string("series", "", patient_table.SERIES_HELP)
ORGAN_TABLE = flags.DEFINE_string(
    "organ_table",
    None,
    "CSV or JSON of the organs, if neither predictions nor labels hold them (default: SegTHOR's "
    "four).",
)
ROI_NAMES = flags.DEFINE_string(
    "roi_names", None, "Names of the ROIs of structure sets; as in beam_jobs.build."
)
ORGANS = flags.DEFINE_list("organs", None, "Score only these organs.")
COMPARE = flags.DEFINE_string(
    "compare", None, "Folder of another run's evaluation, to test the two patient by patient."
)
REFERENCES = flags.DEFINE_boolean(
    "references", True, "Print published Dice on SegTHOR's own patients."
)
PICTURED = 8  # patients in the picture, those with the lowest mean Dice
WRITTEN = {
    "scores.csv": outputs.csv_with("patient", "organ", "dice"),
    "scores.json": outputs.json_with("mean", "organs"),
    "comparison.json": outputs.json_rows_with("organ", "score"),
    "overlay.png": outputs.picture,
}


def main(_):
    """Matches predictions and contours by patient, scores each pair, writes and prints."""
    input_paths = {flag.name: flag.value for flag in (PREDICTIONS, LABELS, SCANS, COMPARE)}
    outputs.check_folder(OUTPUT.value, input_paths, written=WRITTEN)
    organs, roi_names = _tables()
    _check_organs(organs)
    other = comparison.load(COMPARE.value) if COMPARE.value else None
    series = patient_table.read_series(SERIES.value)
    scanned = inputs.find(SCANS.value, organs=None, series=series) if SCANS.value else ()
    cts = {scan.name: scan for scan in scanned}
    match = _match(organs, scanned)
    with outputs.lock_folder(OUTPUT.value, WRITTEN):
        scored, failed = _score(match.pairs, cts, organs, roi_names)
        if not scored:
            raise InputError("no patient could be scored; see the lines above")
        _write_scores(scored, match.missing, failed, organs)
        _print_scores(scored, organs)
        if other is not None:
            _compare(scored, other, organs)
        unpictured = _draw(scored, match.pairs, cts, organs, roi_names) if SCANS.value else 0
    print(
        f"\nWrote scores.csv, scores.json to {OUTPUT.value}; {len(failed)} patients failed, "
        f"{len(match.missing)} have no prediction."
    )
    if not ORGAN_TABLE.value and not roi_names:  # serving.report has no such flags
        given = {flag.name: flag.value for flag in (PREDICTIONS, LABELS, SPLIT, OUTPUT)}
        print(hint("serving.report", **given, scans=SCANS.value or "SCANS"))
    return 1 if failed or match.missing or unpictured else 0


def _tables() -> tuple[Organs, tuple[tuple[str, str], ...]]:
    """Returns the table of organs, and pairs of organ and ROI name beyond its synonyms."""
    organs = pairs.table_of(PREDICTIONS.value, LABELS.value, ORGAN_TABLE.value)
    if ROI_NAMES.value is None:
        return organs, ()
    return organs, read_roi_names(files.absolute(ROI_NAMES.value), organs)


def _check_organs(organs: Organs) -> None:
    wanted = organs.names if ORGANS.value is None else ORGANS.value
    unknown = sorted(set(wanted) - set(organs.names))
    if unknown or not wanted:
        found = unknown[0] if unknown else "none"
        raise InputError(f"--organs: expected some of {','.join(organs.names)}, found {found}")


def _match(organs: Organs, scanned) -> pairs.Match:
    """Pairs contours with predictions of the same patients; prints those without a partner."""
    match = pairs.match(
        LABELS.value, PREDICTIONS.value, SPLIT.value, organs=organs, scanned=scanned
    )
    print(
        f"{len(match.pairs)} patients to score; {len(match.uncontoured)} predictions have no "
        f"contours, {len(match.missing)} contours have no prediction."
    )
    if match.uncontoured:
        print(f"Without contours: {tables.shorten_list(match.uncontoured)}")
    for patient, reason in match.missing.items():
        print(f"MISSING: {patient}: {reason}", flush=True)
    return match


def _score(
    matched, cts: dict[str, Patient], organs: Organs, roi_names
) -> tuple[list[PatientScores], dict[str, str]]:
    """Scores all pairs; returns scores, and failed patients to the reasons."""

    def score(contours: Patient, prediction: Patient):
        ct = pairs.uneven_ct(cts[contours.name]) if contours.name in cts else None
        predicted, truth = pairs.read(contours, prediction, ct, organs=organs, roi_names=roi_names)
        predictable = facts.read_of_table(PREDICTIONS.value, contours.name, organs).organs
        named = set(ORGANS.value or organs.names) & set(predictable) & set(truth.contoured)
        names = [name for name in organs.names if name in named]
        scores = PatientScores(contours.name, evaluation.score(predicted, truth, names))
        text = "" if names else "no organ is wanted, contoured and predicted"
        doubts = [finding.message for finding in (*predicted.findings, *truth.findings)]
        return scores, text, [*doubts, *_missing_contours(predicted, names)]

    return pairs.for_each(matched, score)


def _missing_contours(predicted, names):
    """Yields a warning for organs that a predicted structure set lacks."""
    # It may lack an organ because its program does not look for it.
    lacking = [name for name in names if name not in (predicted.contoured or names)]
    if lacking:
        yield f"no contours of {', '.join(lacking)}: scored as not found; --organs leaves them out"


def _write_scores(scored, missing, failed, organs: Organs) -> None:
    scores = evaluation.to_json(scored, missing, failed, organs)
    json_files.write(files.join(OUTPUT.value, "scores.json"), scores)
    evaluation.write_csv(files.join(OUTPUT.value, "scores.csv"), scored)


def _print_scores(scored, organs: Organs) -> None:
    for table in (tables.patients, tables.intervals, tables.organ_means, tables.to_mend):
        print(f"\n{table(scored, organs)}")
    if REFERENCES.value and organs.names == SEGTHOR.names:
        print(f"\n{tables.reference_rows()}")


def _compare(scored, other, organs: Organs) -> None:
    ours = evaluation.by_patient(scored)
    rows = comparison.compare(ours, other, organs)
    path = files.join(OUTPUT.value, "comparison.json")
    json_files.write(path, rows)
    print(f"\n{tables.comparison(rows)}\nWrote {path}.")
    for which, names in (("this", set(ours) - set(other)), ("the other", set(other) - set(ours))):
        if names:
            print(f"Left out, scored by {which} run alone: {tables.shorten_list(sorted(names))}")


def _draw(scored, matched, cts, organs: Organs, roi_names) -> int:
    """Draws the patients with the lowest mean Dice; returns how many could not be drawn."""
    matched = {contours.name: (contours, prediction) for contours, prediction in matched}
    known = [patient for patient in scored if patient.organs and patient.patient in cts]
    tiles, failed = [], 0
    for patient in sorted(known, key=evaluation.mean_dice)[:PICTURED]:
        name = patient.patient
        try:
            ct = scans.read(cts[name].ct, among=cts[name].ct_files)
            like = cts[name].ct, ct.grid
            predicted, truth = pairs.read(*matched[name], like, organs=organs, roi_names=roi_names)
            tiles += picture.tiles(name, ct, truth, predicted, patient.organs)
        except Exception as error:
            failed += 1
            print(f"No picture of {name}: {guard.describe(error)}")
    if not tiles:
        print(f"No picture: none of these patients' scans is in {SCANS.value}.")
        return failed
    pictures, captions = zip(*tiles, strict=True)
    note = "predicted solid, true pale and dashed"
    page = drawing.sheet(pictures, min(4, len(pictures)), captions, note, organs=organs)
    path = files.join(OUTPUT.value, "overlay.png")
    drawing.save_png(path, page)
    print(f"\nWrote {path}: the worst and a typical slice of the worst patients.")
    return failed


if __name__ == "__main__":
    run(main)
