"""Every fold trains on the others; the tables add up; a finished fold is not trained again."""

import csv

import numpy as np
import pytest
import slices
from test_replicas import finish, start
from test_trainer import NETWORK

FOLDS = 2
FLAGS = ["--steps=2", "--surface_distances", "--organs=heart,aorta", "--augment_probability=0.0"]


def rows(path):
    with open(path) as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folds")
    slices.make(folder / "data", size=96, folds=FOLDS, contoured={"Patient_02": ("heart",)})
    command = ["-m", "trainer.cross_validate", f"--data={folder / 'data'}", *NETWORK, *FLAGS]
    finish([start([*command, f"--workdir={folder / 'runs'}"])])
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
    (output,) = finish([start(command)])
    assert {p: p.stat().st_mtime_ns for p in folder.glob("fold_*/checkpoints/*.index")} == last
    assert len(last) == FOLDS and "spread of folds" in output
