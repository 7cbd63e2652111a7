"""Rows of evidence and true scores, and the program that gathers them."""

import json
import os

import nibabel
import numpy as np
import pytest
from programs import as_flags, finish, run, run_entry, start
from slices import NO_AUGMENTATION
from test_predict import affine_of, planted, save_scan
from test_trainer import NETWORK
from tiny_models import coded_scan, save_coded

from segthor import metrics, model_directory, organs
from segthor.patients import Patient
from serving.prediction import bundle
from serving.prediction.predictor import Ensemble
from serving.review import cases, worsen
from tests import damage


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return Ensemble([bundle.load(save_coded(tmp_path_factory.mktemp("model")))])


@pytest.fixture
def patient(tmp_path):
    labels = planted(seed=4)
    save_scan(tmp_path / "ct.nii.gz", coded_scan(labels), affine_of())
    nibabel.save(nibabel.Nifti1Image(labels, affine_of()), tmp_path / "gt.nii.gz")
    ct, gt = str(tmp_path / "ct.nii.gz"), str(tmp_path / "gt.nii.gz")
    return Patient("P", ct, gt, organs=organs.SEGTHOR.names)


def test_rows_are_of_every_worsening_and_their_scores_true(models, patient, tmp_path):
    folder = tmp_path / "cases"
    rows = cases.make_rows(patient, models, str(folder))
    kinds = [cases.AS_IT_IS, *worsen.KINDS]
    assert [(row["kind"], row["organ"]) for row in rows] == [
        (kind, name) for kind in kinds for name in organs.SEGTHOR.names
    ]
    for row in rows[:4]:  # the model reads the labels off the scan
        assert (row["dice"], row["surface_dice"], row["found"]) == (1.0, 1.0, True)
    shifted = [row for row in rows if row["kind"] == "level"]
    assert min(row["dice"] for row in shifted) < 0.5


def test_a_row_holds_the_scores_of_metrics(models, patient):
    scan, labels, names = cases._read(patient, models.table)
    worse, moved = worsen.worsen_scan("noise", scan, labels, np.random.default_rng(3))
    found = models.segment(models.inputs(worse)).labels
    expected = metrics.score(found, moved.zyx, scan.spacing_mm, organs.SEGTHOR.labels(names))
    rows = cases.measure_scan(models, worse, moved, names, "P", "noise")
    for row, score in zip(rows, expected.values(), strict=True):
        assert row["dice"] == pytest.approx(score.dice, abs=1e-4)
        assert row["surface_dice"] == pytest.approx(score.surface_dice_2mm, abs=1e-4)


def test_rows_are_kept_until_scan_or_model_change(models, patient, tmp_path):
    folder = tmp_path / "cases"
    rows = cases.make_rows(patient, models, str(folder))
    (path,) = folder.iterdir()
    kept = json.loads(path.read_text())
    kept["rows"][0]["dice"] = 0.123
    path.write_text(json.dumps(kept))
    assert cases.make_rows(patient, models, str(folder))[0]["dice"] == 0.123
    os.utime(patient.ct, (1, 1))
    assert cases.make_rows(patient, models, str(folder)) == rows


def test_rows_follow_changed_contours(models, patient, tmp_path):
    folder = tmp_path / "cases"
    rows = cases.make_rows(patient, models, str(folder))
    labels = planted(seed=4)
    labels[labels == 2] = 0  # the heart
    nibabel.save(nibabel.Nifti1Image(labels, affine_of()), patient.labels)
    changed = cases.make_rows(patient, models, str(folder))
    assert [row["drawn"] for row in rows[:4]] == [True, True, True, True]
    assert [row["drawn"] for row in changed[:4]] == [True, False, True, True]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six patients, their dataset, and two real folds whose networks find the heart."""
    folder = tmp_path_factory.mktemp("calibrate")
    for number in range(1, 7):
        patient = folder / "patients" / "train" / f"Patient_{number}"
        patient.mkdir(parents=True)
        damage.healthy(patient, seed=number)
        (patient / damage.CT).rename(patient / f"{patient.name}.nii.gz")
        (patient / damage.GT).rename(patient / "GT.nii.gz")
    data = {"input": folder / "patients", "output": folder / "data", "folds": 2}
    built = run(["-m", "beam_jobs.build", *as_flags(**data, crop_mm=384, pixel_mm=4)])
    assert built.returncode == 0, built.stderr
    command = ["-m", "trainer.cross_validate", *NETWORK, *NO_AUGMENTATION]
    command += ["--steps=60", "--learning_rate=0.03", "--organs=heart"]
    places = as_flags(data=folder / "data", workdir=folder / "runs")
    finish([start([*command, *places], tiny=True)])
    return folder


def test_a_patient_that_cannot_be_read_is_named_and_costs_no_other(folder):
    """Then, mended, it is the only one whose scan is read again."""
    flags = {"runs": folder / "runs", "data": folder / "data", "output": folder / "out"}

    def calibrate():
        return run(["-m", "serving.calibrate", *as_flags(**flags)], tiny=True)

    scan = folder / "patients" / "train" / "Patient_3" / "Patient_3.nii.gz"
    whole = scan.read_bytes()
    scan.write_bytes(whole[: len(whole) // 2])
    done = calibrate()
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    (failed,) = (line for line in done.stdout.splitlines() if line.startswith("FAILED"))
    assert failed.startswith(f"FAILED: Patient_3: {scan}: ")
    assert "1 patients FAILED and are not part of the calibration" in done.stdout
    kept = sorted((folder / "out" / "cases").iterdir())
    assert [path.stem for path in kept] == [f"Patient_{number}" for number in (1, 2, 4, 5, 6)]
    stored, _ = sorted((folder / "out" / "models").glob(f"fold_*/*/*/{model_directory.REVIEW}"))
    partial = stored.read_bytes()

    scan.write_bytes(whole)
    written = [path.stat().st_mtime_ns for path in kept]
    done = calibrate()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("Next: python -m serving.predict ")
    assert [path.stat().st_mtime_ns for path in kept] == written
    assert stored.read_bytes() != partial
    assert (folder / "out" / "reliability.png").stat().st_size > 1000


def test_bad_input_is_one_line(tmp_path):
    done = run_entry("serving.calibrate", runs=tmp_path, data=tmp_path, output=tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "expected a dataset, found no dataset.json" in done.stderr
    assert not (tmp_path / "out").exists()
