"""Compares drafts with the approved contours: which organs were changed, and by how much.

  python -m serving.follow --drafts=predictions --approved=APPROVED --output=follow

Writes follow.csv (a row for each organ of each approved set), months.csv (medians by organ and
month, with the scores that the review expected) and follow.html. approved.csv lists the sets in
which an organ was changed, unchanged.csv the others, both for beam_jobs.build --input.

Exit status: 0; 3 for an alarm: in some month the median Dice of an organ's changed drafts is below
the lower bound of the review; 1 if a set could not be compared; 2 for an error.
"""

import dataclasses

from absl import flags

from segthor import csv_files, files, json_files, outputs, patient_table, scans
from segthor.errors import InputError, hint, run
from segthor.organs import Organs
from segthor.patients import Patient
from serving.prediction import facts
from serving.scoring import follow_page, follow_up, pairs, tables
from serving.scoring.follow_up import Group, Row

DRAFTS = flags.DEFINE_string("drafts", None, "A folder of serving.predict.", required=True)
APPROVED = flags.DEFINE_string(
    "approved",
    None,
    "The approved contours of these patients: as --labels of serving.evaluate.",
    required=True,
)
OUTPUT = flags.DEFINE_string("output", None, "Folder of the results.", required=True)
ALARM_STATUS = 3
ROWS, MONTHS, PAGE = "follow.csv", "months.csv", "follow.html"
CHANGED, UNCHANGED, TABLE = "approved.csv", "unchanged.csv", "organ_table.json"
# Title, field of `Group` and format.
_COLUMNS = (
    ("organ", "organ", "{}"),
    ("approved", "approved", "{}"),
    ("changed", "changed", "{}"),
    ("slices", "slices_changed", "{:.0f}"),
    ("added path mm", "added_path_mm", "{:.0f}"),
    ("sDice 3 mm", "surface_dice_3mm", "{:.3f}"),
    ("Dice", "dice", "{:.3f}"),
    ("expected", "expected_dice", "{:.3f}"),
    ("bound", "bound", "{:.3f}"),
)
_PATIENTS = outputs.csv_with("patient", "ct", "labels")
WRITTEN = {
    ROWS: outputs.csv_with("patient", "organ", "changed"),
    MONTHS: outputs.csv_with("organ", "month", "alarm"),
    PAGE: outputs.page,
    CHANGED: _PATIENTS,
    UNCHANGED: _PATIENTS,
    TABLE: outputs.json_rows_with("name", "label"),
}


def main(_):
    """Compares each approved set with its draft, writes and prints; returns the alarm's status."""
    input_paths = {flag.name: flag.value for flag in (DRAFTS, APPROVED)}
    outputs.check_folder(OUTPUT.value, input_paths, written=WRITTEN)
    organs = pairs.table_of(DRAFTS.value, APPROVED.value)
    match = pairs.match(APPROVED.value, DRAFTS.value, organs=organs)
    print(f"{len(match.pairs)} approved sets have a draft, {len(match.missing)} have none.")
    with outputs.lock_folder(OUTPUT.value, WRITTEN):
        rows, sets, failed = _compare(match.pairs, organs)
        if not rows:
            raise InputError("no approved set could be compared; see the lines above")
        months, overall = follow_up.summarise(rows, organs), follow_up.overall(rows, organs)
        conclusion = _conclude(rows, months)
        _write(rows, months, sets, organs)
        follow_page.write(files.join(OUTPUT.value, PAGE), overall, months, rows, conclusion)
    print(f"\n{_table(overall)}\n\n{conclusion}\nWrote {files.join(OUTPUT.value, PAGE)}")
    approved, table = (files.join(OUTPUT.value, name) for name in (CHANGED, TABLE))
    if any(row.changed for row in rows):
        values = [f"{name}={value}" for name, value in sets[0][0].label_values]
        more = {"organ_table": table, "label_values": values or None}
        print(hint("beam_jobs.build", input=approved, **more, output="DATASET"))
    if any(group.alarm for group in months):
        return ALARM_STATUS
    return 1 if failed else 0


def _compare(matched, organs: Organs) -> tuple[list[Row], list[tuple[Patient, bool]], int]:
    """Compares all sets; returns rows, patients with whether they changed, and failures."""

    def compare(approved: Patient, draft: Patient):
        drafted, truth = pairs.read(approved, draft, organs=organs)
        case_facts = facts.read_of_table(DRAFTS.value, approved.name, organs)
        month = scans.read_month(approved.labels)
        rows = follow_up.compare(approved.name, month, drafted, truth, approved.labels, case_facts)
        changed = ", ".join(row.organ for row in rows if row.changed)
        ct = approved.ct or (case_facts.scan or {}).get("path", "")
        patient = dataclasses.replace(approved, ct=ct, organs=truth.contoured)
        warnings = [finding.message for finding in truth.findings]
        return (rows, (patient, bool(changed))), f"changed: {changed or 'nothing'}", warnings

    compared, failed = pairs.for_each(matched, compare)
    rows = [row for rows, _ in compared for row in rows]
    return rows, [patient for _, patient in compared], len(failed)


def _write(rows: list[Row], months: list[Group], sets, organs: Organs) -> None:
    """Writes the tables, and the lists of patients for `beam_jobs.build`."""
    for name, values in ((ROWS, rows), (MONTHS, months)):
        table = [{key: _plain(value) for key, value in vars(one).items()} for one in values]
        csv_files.write_table(files.join(OUTPUT.value, name), table)
    for name, wanted in ((CHANGED, True), (UNCHANGED, False)):
        lines = [
            {
                "patient": one.name,
                "ct": one.ct,
                "labels": one.labels,
                "organs": ";".join(one.organs),
            }
            for one, changed in sets
            if changed == wanted
        ]
        columns = [column for column in patient_table.COLUMNS if column != "split"]
        csv_files.write_table(files.join(OUTPUT.value, name), lines, columns)
    json_files.write(files.join(OUTPUT.value, TABLE), organs.to_json())


def _plain(value):
    return ("yes" if value else "no") if isinstance(value, bool) else value


def _conclude(rows: list[Row], months: list[Group]) -> str:
    """Summarises the comparison in one line."""
    changed = sum(row.changed for row in rows)
    conclusion = f"{changed} of {len(rows)} organs were changed, {len(rows) - changed} were not"
    alarms = [group for group in months if group.alarm]
    if alarms:
        raised = (f"{group.organ} in {group.month or 'an unknown month'}" for group in alarms)
        return f"{conclusion}. ALARM: changed more than the review expected: {', '.join(raised)}."
    if all(row.lower_dice is None for row in rows):
        return (
            f"{conclusion}. The model is not calibrated (serving.calibrate), so nothing can alarm."
        )
    return f"{conclusion}. No alarm."


def _table(overall: list[Group]) -> str:
    rows = [
        [tables.format_number(getattr(group, name), form) for _, name, form in _COLUMNS]
        for group in overall
    ]
    table = tables.align([title for title, _, _ in _COLUMNS], rows)
    return f"Medians of the changed organs\n{table}"


if __name__ == "__main__":
    run(main)
