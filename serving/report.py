"""Writes one HTML file that shows predictions: CT, contours, scores. It needs no network.

  python -m serving.report --predictions=predictions --scans=patients/test --output=report \
    --labels=patients/test_labels

Without --labels it shows volumes and flags implausible ones. Status 1 if a patient could not be
shown.
"""

import re
from dataclasses import dataclass

from absl import flags

from segthor import files, guard, inputs, outputs, patient_table, scans
from segthor.boxes import Box, around
from segthor.errors import InputError, run
from segthor.findings import print_warnings
from segthor.manifest import TRAIN, VALIDATION
from segthor.organs import Organs
from segthor.patients import Patient
from serving import card, card_text
from serving.prediction import facts
from serving.scoring import animation, evaluation, page, pairs, tables, viewer

PREDICTIONS = flags.DEFINE_string("predictions", None, "Folder of label maps.", required=True)
SCANS = flags.DEFINE_string("scans", None, "The CT; as --input of predict.", required=True)
LABELS = flags.DEFINE_string("labels", None, "The contours, if there are any; as in evaluate.")
SPLIT = flags.DEFINE_enum(
    "split", None, [TRAIN, VALIDATION], "Show only these patients of a dataset; as in predict."
)
SERIES = flags.DEFINE_string("series", "", patient_table.SERIES_HELP)
OUTPUT = flags.DEFINE_string("output", None, "Folder of the report.", required=True)
GIF = flags.DEFINE_boolean("gif", True, "Also write an animated GIF of each patient.")
PAGE = "report.html"


@dataclass(frozen=True)
class _Case:
    """One patient of the report.

    scan: Its CT.
    prediction: Its predicted label map; None: there is none.
    labels: Its contours; None: there are none.
    """

    scan: Patient
    prediction: Patient | None
    labels: Patient | None


def main(_):
    """Makes an entry per patient and writes them to one page, worst first."""
    input_paths = {flag.name: flag.value for flag in (PREDICTIONS, SCANS, LABELS)}
    outputs.check_folder(OUTPUT.value, input_paths, written={PAGE: outputs.page})
    organs = pairs.table_of(PREDICTIONS.value, LABELS.value)
    cases = _find_cases(organs)
    gifs = files.join(OUTPUT.value, "gif")
    if GIF.value:
        outputs.check_files(gifs, {f"{one.scan.name}.gif": outputs.picture for one in cases})
    with outputs.lock_folder(OUTPUT.value, (PAGE,)):
        if GIF.value and files.exists(gifs):
            files.remove_partial(gifs, ".gif")
        entries, boxes = {}, _shared_boxes(cases, organs)
        for number, case in enumerate(cases, 1):
            print(f"[{number}/{len(cases)}] {case.scan.name}", flush=True)
            entries[case.scan.name] = _make_entry(case, organs, boxes.get(_phase_group(case.scan)))
        failed = sum("failed" in entry for entry in entries.values())
        entries = sorted(_merge_phases(cases, entries), key=viewer.rank)
        path = files.join(OUTPUT.value, PAGE)
        source = files.name(files.absolute(PREDICTIONS.value))
        cards = [card_text.markdown(one) for one in card.of_predictions(PREDICTIONS.value)]
        size = page.write(path, entries, source, organs, cards)
    print(
        f"Wrote {path} ({size / 1e6:.1f} MB, {len(cases)} patients, {failed} of them failed); "
        "open it in a browser."
    )
    return 1 if failed else 0


def _find_cases(organs: Organs) -> list[_Case]:
    """Finds the scans to show, with their predictions and contours."""
    contoured = []
    if LABELS.value:
        contoured = pairs.contours_of(LABELS.value, SPLIT.value, organs=organs)
    series, split = patient_table.read_series(SERIES.value), None if contoured else SPLIT.value
    patients = inputs.find(SCANS.value, split, organs=None, series=series)
    predictions = inputs.find_predicted(PREDICTIONS.value, patients, organs)
    contours = {one.name: one for one in inputs.rename_to_volumes(contoured, predictions)}
    if SPLIT.value and LABELS.value:  # only the labels have a split; it selects predictions too
        predictions = {name: one for name, one in predictions.items() if name in contours}
    shown = _select_scans(patients, predictions, contours, organs)
    return [_Case(scan, predictions.get(scan.name), contours.get(scan.name)) for scan in shown]


def _select_scans(patients, predictions, contours, organs: Organs) -> list[Patient]:
    """Selects the scans to show: those with a label map, and those that should have one.

    The latter failed in prediction, are contoured, or have a name that no file can have. Prints
    which predictions have no scan, and which scans are left out.
    """
    if SPLIT.value and contours:
        patients = [scan for scan in patients if scan.name in contours]
    expected = {*predictions, *contours}
    shown = [s for s in patients if s.fault or s.name in expected or _has_failed(s.name, organs)]
    if not any(scan.name in predictions for scan in shown):
        raise InputError(
            f"no scan of {SCANS.value} has a label map in {PREDICTIONS.value}; "
            f"it holds {min(predictions, default='none of this split')} ..."
        )
    names = {scan.name for scan in patients}
    for what, others in (
        ("Predictions without a scan, left out", set(predictions) - names),
        ("Scans without a prediction, left out", names - {scan.name for scan in shown}),
        ("Contours without a scan, left out", set(contours) - names),
        ("Predictions without contours", contours and names & (set(predictions) - set(contours))),
    ):
        if others:
            print(f"{what}: {tables.shorten_list(sorted(others))}")
    return shown


def _has_failed(patient: str, organs: Organs) -> bool:
    try:
        return bool(facts.read_of_table(PREDICTIONS.value, patient, organs).failed)
    except InputError:  # the patient's entry shows it
        return True


def _phase_group(scan: Patient) -> tuple[str, str]:
    """Key of the 4D CT to which a scan belongs, or of the scan alone."""
    return (scan.person, scan.phases) if scan.phases else (scan.name, "")


def _merge_phases(cases: list[_Case], entries: dict[str, dict]) -> list[dict]:
    """Merges the entries of the phases of each 4D CT into one."""
    groups = {}
    for case in cases:
        groups.setdefault(_phase_group(case.scan), []).append(case.scan)
    merged = []
    for (name, _), group in groups.items():
        group = sorted(group, key=lambda scan: int(re.match(r"\d*", scan.phase)[0] or 0))
        group_entries = [entries[scan.name] for scan in group]
        words = [scan.phase for scan in group]
        merged.append(
            group_entries[0] if len(group) == 1 else viewer.phases(name, group_entries, words)
        )
    return merged


def _shared_boxes(cases: list[_Case], organs: Organs) -> dict[tuple[str, str], Box]:
    """Box of each 4D CT about all voxels that are labelled in any of its phases, with a margin."""
    boxes = {}
    for case in cases:
        scan, truth = case.scan, None
        if not scan.phases or case.prediction is None:
            continue
        try:
            like = scan.ct, scans.read_grid(scan.ct, scan.ct_files)
            predicted = pairs.labels_of(case.prediction, like, organs)
            if case.labels:
                truth = pairs.labels_of(case.labels, like, organs).zyx
        except Exception:  # reported when the entry is made
            continue
        own = viewer.box_about(predicted.zyx, truth, like[1].spacing_mm)
        boxes.setdefault(_phase_group(scan), []).append(own)
    return {group: around(held) for group, held in boxes.items()}


def _make_entry(case: _Case, organs: Organs, box: Box | None) -> dict:
    """Makes the entry of one patient; an error becomes an entry that shows it.

    box: As in `viewer.patient`.
    """
    try:
        return _show(case, organs, box)
    except Exception as error:  # an unforeseen error must not stop the other patients
        name, reason = case.scan.name, guard.describe(error)
        print(f"FAILED: {name}: {reason}", flush=True)
        paths = [one.labels for one in (case.prediction, case.labels) if one]
        return viewer.failed(name, reason, (case.scan.ct, *paths, PREDICTIONS.value))


def _show(case: _Case, organs: Organs, box: Box | None) -> dict:
    """Reads a patient and makes its entry and GIF; raises an error if that is not possible."""
    scan, prediction = case.scan, case.prediction
    if prediction is None and not scan.fault:
        raise InputError(pairs.explain_missing(PREDICTIONS.value, scan.name, organs))
    if fault := scan.fault or prediction.fault:
        raise InputError(fault)
    case_facts = facts.read_of_table(PREDICTIONS.value, scan.name, organs)
    ct = scans.read(scan.ct, among=scan.ct_files)
    truth, scores, like = None, {}, (scan.ct, ct.grid)
    if case.labels:
        predicted, truth = pairs.read(case.labels, prediction, like, organs=organs)
        names = [name for name in case_facts.organs if name in truth.contoured]
        scores = evaluation.score(predicted, truth, names)
    else:
        predicted = pairs.labels_of(prediction, like, organs)
    print_warnings((*predicted.findings, *(truth.findings if truth else ())))
    if GIF.value:
        path = files.inside(files.join(OUTPUT.value, "gif"), f"{scan.name}.gif")
        animation.write(path, ct, predicted, truth)
    return viewer.patient(scan.name, ct, predicted, truth, scores, case_facts, box)


if __name__ == "__main__":
    run(main)
