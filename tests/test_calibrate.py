"""Rows of evidence and true scores, and the entry that gathers them."""

import json
import os

import nibabel
import numpy as np
import pytest
from programs import run_entry
from test_predict import affine_of, planted, save_scan
from tiny_models import coded_scan, save_coded

from segthor import metrics, organs
from segthor.patients import Patient
from serving.prediction import bundle
from serving.prediction.predictor import Ensemble
from serving.review import cases, worsen


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


def test_bad_input_is_one_line(tmp_path):
    done = run_entry("serving.calibrate", runs=tmp_path, data=tmp_path, output=tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "expected a dataset, found no dataset.json" in done.stderr
    assert not (tmp_path / "out").exists()
