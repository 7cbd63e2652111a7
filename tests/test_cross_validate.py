"""Every fold trains on the others; the tables add up; a finished fold is not trained again."""

import csv
import json
import signal
import time

import numpy as np
import pytest
import slices
import tensorflow as tf
from programs import LIMIT_S, finish, start
from test_trainer import NETWORK

FOLDS = 2
FLAGS = ["--steps=2", "--surface_distances", "--organs=heart,aorta", *slices.NO_AUGMENTATION]


def rows(path):
    with open(path) as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folds")
    slices.make(folder / "data", size=96, folds=FOLDS, contoured={"Patient_02": ("heart",)})
    command = ["-m", "trainer.cross_validate", f"--data={folder / 'data'}", *NETWORK, *FLAGS]
    finish([start([*command, f"--workdir={folder / 'runs'}"], tiny=True)])
    return folder / "runs", [*command, f"--workdir={folder / 'runs'}"]


def test_each_patient_is_scored_once_by_a_network_that_did_not_see_it(runs):
    folder, _ = runs
    patients = rows(folder / "patients.csv")
    assert sorted(row["patient"] for row in patients) == [f"Patient_{n:02d}" for n in range(1, 7)]
    assert {row["patient"]: row["fold"] for row in patients}["Patient_05"] == "0"
    assert {row["patient"]: row["aorta"] for row in patients}["Patient_02"] == ""


def test_the_table_is_the_mean_and_spread_of_the_folds(runs):
    folder, _ = runs
    table = {row[""]: row for row in rows(folder / "cross_validation.csv")}
    patients = rows(folder / "patients.csv")
    of_fold = [
        np.mean([float(row["heart"]) for row in patients if row["fold"] == str(fold)])
        for fold in range(FOLDS)
    ]
    for fold, value in enumerate(of_fold):
        assert float(table[f"fold {fold}"]["heart"]) == pytest.approx(value)
    assert float(table["mean of folds"]["heart"]) == pytest.approx(np.mean(of_fold))
    assert float(table["spread of folds"]["heart"]) == pytest.approx(np.std(of_fold, ddof=1))
    aorta = [float(row["aorta"]) for row in patients if row["aorta"]]
    assert float(table["mean of patients"]["aorta"]) == pytest.approx(np.mean(aorta))


def test_surface_scores_and_validation_agree_on_dice(runs):
    folder, _ = runs
    for fold in range(FOLDS):
        volumes = {row["patient"]: row for row in rows(folder / f"fold_{fold}/best_patients.csv")}
        surfaces = rows(folder / f"fold_{fold}/best_surfaces.csv")
        assert len(surfaces) == sum(
            bool(r[n]) for r in volumes.values() for n in ("heart", "aorta")
        )
        for row in surfaces:
            dice = float(volumes[row["patient"]][row["organ"]])
            assert float(row["dice"]) == pytest.approx(dice, abs=2e-3)
            assert float(row["hausdorff_mm"]) >= float(row["hausdorff95_mm"]) > 0


def test_repeated_it_trains_nothing_again(runs):
    folder, command = runs
    last = {path: path.stat().st_mtime_ns for path in folder.glob("fold_*/checkpoints/*.index")}
    (output,) = finish([start(command, tiny=True)])
    assert {p: p.stat().st_mtime_ns for p in folder.glob("fold_*/checkpoints/*.index")} == last
    assert len(last) == FOLDS and "spread of folds" in output


def step_of(folder):
    path = tf.train.latest_checkpoint(str(folder / "checkpoints"))
    return int(path.rpartition("-")[2]) if path else 0


def until(reached, process):
    while not reached() and process.poll() is None:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()[0][-2000:]


@pytest.fixture
def long(tmp_path):
    """A cross-validation that does not end by itself, and its folder."""
    slices.make(tmp_path / "data", size=96, folds=FOLDS)
    flags = ["--steps=1000", "--steps_per_call=2", "--checkpoint_every=2", *slices.NO_AUGMENTATION]
    command = ["-m", "trainer.cross_validate", f"--data={tmp_path / 'data'}", *NETWORK, *flags]
    return [*command, f"--workdir={tmp_path / 'runs'}"], tmp_path / "runs"


def test_a_second_one_is_refused_and_one_after_a_kill_goes_on_at_once(long):
    command, folder = long
    first = start(command, tiny=True)
    until(lambda: step_of(folder / "fold_0") >= 2, first)
    second = start(command, tiny=True)
    output = second.communicate(timeout=LIMIT_S)[0]
    assert second.returncode == 2 and first.poll() is None
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "another process is writing there" in line and "Fold 0" not in output
    first.kill()
    first.communicate()  # until it is gone it may finish a checkpoint
    reached = step_of(folder / "fold_0")
    again = start(command, tiny=True)
    until(lambda: step_of(folder / "fold_0") > reached, again)
    again.send_signal(signal.SIGTERM)
    output = again.communicate(timeout=LIMIT_S)[0]
    assert again.returncode == 143 and "Continuing at step" in output
    assert "\nerror: " not in output and "Fold 1" not in output


@pytest.mark.parametrize(
    "flag, words",
    [
        ("--fold=-7", ["--fold", "all folds are trained here"]),
        ("--seed=-1", ["--seed", "expected 0 to 2147483647"]),
        ("--workdir=", ["--workdir"]),
    ],
)
def test_a_wrong_flag_ends_in_one_line(long, flag, words):
    command, _ = long
    process = start([*command, flag])
    output = process.communicate(timeout=LIMIT_S)[0]
    assert process.returncode == 2
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert all(word in line for word in words), line


TABLES = """
import json, sys
from trainer import cross_validate  # in a process of its own: its flags are also trainer.main's
table = cross_validate._make_table(json.loads(sys.argv[1]), ["heart", "aorta"])
print(json.dumps([table, cross_validate._format_table(table)], allow_nan=False))
"""


def test_an_organ_that_a_fold_cannot_score_leaves_its_cell_empty():
    patients = [
        {"fold": "0", "patient": "a", "heart": "0.5", "aorta": ""},
        {"fold": "0", "patient": "b", "heart": "0.7", "aorta": ""},
        {"fold": "1", "patient": "c", "heart": "0.9", "aorta": "0.8"},
    ]
    (output,) = finish([start(["-c", TABLES, json.dumps(patients)])])
    assert "RuntimeWarning" not in output
    table, text = json.loads(output.strip().splitlines()[-1])
    table = {row[""]: row for row in table}
    assert table["fold 0"] == {"": "fold 0", "heart": 0.6, "aorta": "", "mean": 0.6}
    assert table["fold 1"]["mean"] == pytest.approx(0.85)
    assert table["mean of folds"]["aorta"] == table["mean of patients"]["aorta"] == 0.8
    assert table["spread of folds"]["aorta"] == ""
    assert text.splitlines()[1].split()[2:] == ["0.6000", "-", "0.6000"]
