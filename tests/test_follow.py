"""Follow-up: planted edits are found with their amounts, and an alarm rings for a drift alone."""

import csv
import json
import os
import time

import dicom_phantoms as phantoms
import numpy as np
import pytest
from cases import TINY_RECIPE, save, save_patients
from programs import run_entry
from test_predict import affine_of, planted
from tiny_models import coded_scan

from beam_jobs import driver
from segthor import csv_files, inputs, scans
from segthor.dicom import places
from segthor.organs import SEGTHOR
from segthor.recipe import Recipe
from segthor.volume import Grid, LabelMap
from serving.prediction.facts import Facts, Judgement, OrganJudgement
from serving.scoring import follow_up
from tests import file_order

SHAPE, SPACING_MM = (24, 20, 16), (2.0, 2.5, 5.0)
AFFINE = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
VOXEL_CM3 = float(np.prod(SPACING_MM)) / 1000
HEART, AORTA = 2, 4


def draft_labels() -> np.ndarray:
    """[X, Y, Z]: a heart of 10 x 8 x 10 voxels, an aorta of 3 x 3 x 12."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:14, 4:12, 3:13] = HEART
    labels[18:21, 10:13, 2:14] = AORTA
    return labels


def review(lower_dice, marked=False) -> Judgement:
    organs = {
        name: OrganJudgement(
            expected_dice=lower_dice and lower_dice + 0.05,
            lower_dice=lower_dice,
            review=marked,
            reason="",
            slices=(),
        )
        for name in SEGTHOR.names
    }
    return Judgement(lower_dice is not None, 0.95, marked, "", False, None, organs)


def save_draft(folder, name, labels, judged, ct="") -> None:
    save(folder / f"{name}.nii.gz", labels, AFFINE)
    facts = Facts(organs=SEGTHOR.names, review=judged, scan={"path": ct, "stamp": ""})
    facts.save(str(folder), name)
    noted = {"format": 1, "models": ["0" * 16], "organs": SEGTHOR.to_json()}
    (folder / "predictions.json").write_text(json.dumps(noted, indent=1))


def approve(folder, name, labels, month) -> None:
    path = save(folder / f"{name}.nii.gz", labels, AFFINE)
    made = time.mktime(time.strptime(f"{month}-15", "%Y-%m-%d"))
    os.utime(path, (made, made))


def simulate(folder, edits, months=("2026-01", "2026-02"), lower_dice=0.85, count=40):
    """Approvals of `count` drafts. edits: number of a patient to the slices that its heart loses.

    Patient n is approved in month n modulo their number.
    """
    for number in range(count):
        name, labels = f"Patient_{number:02d}", draft_labels()
        save_draft(folder / "drafts", name, labels, review(lower_dice, number in edits))
        labels[:, :, 13 - edits.get(number, 0) : 13][labels[:, :, 13 - edits.get(number, 0) : 13]
                                                     == HEART] = 0  # fmt: skip
        approve(folder / "approved", name, labels, months[number % len(months)])


def follow(folder, **more):
    return run_entry(
        "serving.follow",
        drafts=folder / "drafts",
        approved=folder / "approved",
        output=folder / "out",
        **more,
    )


def rows_of(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_edits_in_10_of_40_approvals_are_found_with_their_amounts(tmp_path):
    edits = dict(zip(range(3, 43, 4), (1, 2, 1, 2, 1, 2, 1, 2, 1, 2), strict=True))
    simulate(tmp_path, edits)
    done = follow(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = rows_of(tmp_path / "out" / "follow.csv")
    assert len(rows) == 40 * 4
    hearts = {row["patient"]: row for row in rows if row["organ"] == "heart"}
    changed = {name for name, row in hearts.items() if row["changed"] == "yes"}
    assert changed == {f"Patient_{number:02d}" for number in edits}
    assert all(row["changed"] == "no" for row in rows if row["organ"] != "heart")
    # A heart of 10 slices that loses k of them: by hand.
    for number, k in edits.items():
        row = {key: value for key, value in hearts[f"Patient_{number:02d}"].items()}
        expected = {
            "slices_changed": k,
            "slices_to_touch": k,
            "dice": 2 * (10 - k) / (20 - k),
            "draft_cm3": 800 * VOXEL_CM3,
            "approved_cm3": 80 * (10 - k) * VOXEL_CM3,
            "difference_cm3": 80 * k * VOXEL_CM3,
            "added_path_mm": 0,  # what is taken away has no contour of its own
            "expected_dice": 0.9,
            "lower_dice": 0.85,
        }
        assert {key: float(row[key]) for key in expected} == pytest.approx(expected, rel=0.01)
        assert row["review"] == "yes" and row["month"] == f"2026-0{1 + number % 2}"
    months = {(row["organ"], row["month"]): row for row in rows_of(tmp_path / "out/months.csv")}
    assert float(months["heart", "2026-02"]["dice"]) == pytest.approx(np.median([18 / 19, 16 / 18]))
    assert months["heart", "2026-02"]["changed"] == "10"
    assert months["heart", "2026-01"]["changed"] == "0"
    assert "10 of 160 organs were changed, 150 were not. No alarm." in done.stdout
    page = (tmp_path / "out" / "follow.html").read_text()
    assert page.count("<tr") > 10 and "No alarm" in page
    assert len(rows_of(tmp_path / "out" / "approved.csv")) == 10
    assert len(rows_of(tmp_path / "out" / "unchanged.csv")) == 30


def test_a_drift_raises_the_alarm_in_its_month_and_nowhere_else(tmp_path):
    drifted = dict.fromkeys(range(1, 20, 2), 5) | dict.fromkeys(range(0, 20, 2), 1)
    simulate(tmp_path, drifted)  # the odd ones are approved in February
    done = follow(tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "ALARM: changed more than the review expected: heart in 2026-02." in done.stdout
    alarms = [row for row in rows_of(tmp_path / "out/months.csv") if row["alarm"] == "yes"]
    assert [(row["organ"], row["month"]) for row in alarms] == [("heart", "2026-02")]
    assert 'class="alarm"' in (tmp_path / "out" / "follow.html").read_text()
    assert follow(tmp_path).returncode == 3  # the same command again replaces its own files


def test_few_edits_and_a_model_without_a_calibration_raise_no_alarm(tmp_path):
    simulate(tmp_path / "few", dict.fromkeys(range(4), 8), months=["2026-03"], count=8)
    done = follow(tmp_path / "few")
    assert done.returncode == 0 and "No alarm." in done.stdout
    simulate(tmp_path / "no", dict.fromkeys(range(8), 8), lower_dice=None, count=8)
    done = follow(tmp_path / "no")
    assert done.returncode == 0 and "is not calibrated" in done.stdout


def test_a_set_that_cannot_be_compared_is_named_and_the_others_are(tmp_path):
    simulate(tmp_path, {1: 2}, count=3)
    save(tmp_path / "approved" / "Patient_02.nii.gz", np.zeros((5, 5, 5), np.uint8), AFFINE)
    done = follow(tmp_path)
    assert done.returncode == 1
    assert "[3/3] Patient_02  FAILED: " in done.stdout and "have 5x5x5 voxels" in done.stdout
    assert len(rows_of(tmp_path / "out" / "follow.csv")) == 2 * 4
    done = run_entry("serving.follow", drafts=tmp_path / "drafts", approved=tmp_path / "approved",
                     output=tmp_path / "drafts")  # fmt: skip
    assert done.returncode == 2 and "--drafts is read there" in done.stderr


def test_a_structure_set_that_was_not_edited_is_unchanged_and_says_its_month(tmp_path):
    """A planning system rounds coordinates; an edit of two pixels is one."""
    truth = planted(seed=3)
    hu, affine = phantoms.posed(coded_scan(truth), affine_of())
    phantoms.write_series(tmp_path / "series", hu, affine)
    stack = places.stack(str(tmp_path / "series"))
    draft = LabelMap(stack.grid.to_zyx(phantoms.posed(truth, affine_of())[0]), stack.grid, SEGTHOR)
    made = {"version": "1", "model": "m", "date": "20260317", "time": "120000", "doubt": ""}
    path = str(tmp_path / "set.dcm")
    places.write(str(tmp_path / "series"), draft, {"rtstruct": path}, made)
    assert scans.read_month(path) == "2026-03"
    facts = Facts(organs=SEGTHOR.names)

    def rows_against(approved):
        read = LabelMap(approved, stack.grid, SEGTHOR, SEGTHOR.names)
        return follow_up.compare("A", "", draft, read, path, facts)

    own = scans.read_contours(path, str(tmp_path / "series"), SEGTHOR)
    assert not any(row.changed for row in rows_against(own.zyx))
    rounded, edited = draft.zyx.copy(), draft.zyx.copy()
    z, y, x = np.argwhere(rounded == HEART)[0]
    rounded[z, y, x] = 0
    assert not any(row.changed for row in rows_against(rounded))
    edited[z, y - 3, x : x + 2] = HEART
    assert [row.organ for row in rows_against(edited) if row.changed] == ["heart"]
    assert rows_against(edited)[1].slices_changed == 1


def test_the_lists_of_approved_sets_are_built(tmp_path):
    save_patients(tmp_path / "patients", 4)
    patients = inputs.find(str(tmp_path / "patients"), organs=SEGTHOR)
    for number, patient in enumerate(patients):
        stored = file_order.read(patient.labels)
        edited = stored.array.copy()
        edited[edited == HEART] = 0 if number % 2 else HEART
        grid: Grid = stored.grid
        (tmp_path / "drafts").mkdir(exist_ok=True)
        save(tmp_path / "drafts" / f"{patient.name}.nii.gz", edited, grid=grid)
        Facts(organs=SEGTHOR.names, scan={"path": patient.ct}).save(
            str(tmp_path / "drafts"), patient.name
        )
        save(tmp_path / "approved" / f"{patient.name}.nii.gz", stored.array, grid=grid)
    done = follow(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"--input={tmp_path / 'out' / 'approved.csv'}" in done.stdout
    for name, expected in (("approved", {"Patient_02", "Patient_04"}),
                           ("unchanged", {"Patient_01", "Patient_03"})):  # fmt: skip
        listed = tmp_path / "out" / f"{name}.csv"
        assert {row["patient"] for _, row in csv_files.read_table(str(listed))} == expected
        settings = driver.Settings(
            str(listed),
            str(tmp_path / "built" / name),
            Recipe(**TINY_RECIPE),
            split="hash",
            organs=SEGTHOR,
        )
        assert driver.build(settings) == 0
