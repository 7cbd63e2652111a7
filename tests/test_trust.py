"""A model without a calibration says what its marks are worth, and marks what it must not trust."""

import numpy as np
import pytest
from programs import run_entry
from test_predict import affine_of, planted, save_scan
from test_review import FINE, SCAN, spreads
from tiny_models import coded_scan, save_coded

from segthor.organs import SEGTHOR
from serving.review import trust
from serving.review.judge import Judge

NAMES = SEGTHOR.names


class Model:
    def __init__(self, training):
        self.training = training


def record(patients=20, **dice):
    best = {f"dice_{name}": dice.get(name, 0.9) for name in NAMES}
    return {"reference": {"patients": patients}, "summary": {"best": best}}


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ([record()], {}),
        ([record(esophagus=0.65)], {"esophagus": "validation Dice 0.65"}),
        ([record(heart=None)], {"heart": "no validation score"}),
        ([record(esophagus=0.65), record()], {}),  # one of two folds is good
        ([record(patients=9)], dict.fromkeys(NAMES, "trained on 9 patients")),
        ([{"reference": None}], dict.fromkeys(NAMES, "trained on fewer than 3 patients")),
        ([{}], dict.fromkeys(NAMES, "trained on fewer than 3 patients")),
        ([record() | {"summary": [1]}], dict.fromkeys(NAMES, "no validation score")),
    ],
)
def test_what_speaks_against_a_model(training, expected):
    assert trust.reasons_against({NAMES: list(map(Model, training))}) == expected


def test_an_organ_that_is_not_trusted_is_marked_in_every_case():
    judge = Judge(
        {"heart": None, "aorta": None}, spreads(), 0.95, {"heart": "validation Dice 0.65"}
    )
    found = judge.judge(SCAN, {"heart": FINE, "aorta": FINE}, ())
    assert found.review and found.reason == "heart: validation Dice 0.65"
    assert not found.organs["aorta"].review


def test_a_calibration_without_an_organ_is_none(calibrated_of_heart):
    one = calibrated_of_heart
    assert Judge({"heart": one}, None).calibrated
    assert not Judge({"heart": one, "aorta": one}, None).calibrated
    assert not Judge({"heart": None}, None).calibrated and not Judge({}, None).calibrated


@pytest.fixture(scope="module")
def calibrated_of_heart():
    from test_calibration import made_rows

    from serving.review import fit

    return fit.calibrate(made_rows(), ("heart",))[0]


def test_the_program_says_that_it_could_not_judge(tmp_path):
    """One training patient: nothing to compare with, and every case is marked."""
    save_coded(tmp_path / "model", training={"summary": record()["summary"]})
    for number in range(2):
        labels = planted(seed=number)
        save_scan(tmp_path / "scans" / f"P{number}.nii.gz", coded_scan(labels), affine_of())
    assert np.unique(labels).tolist() == [0, 1, 2, 3, 4]
    done = run_entry(
        "serving.predict",
        model=tmp_path / "model",
        input=tmp_path / "scans",
        output=tmp_path / "out",
    )
    assert done.returncode == 0, done.stderr
    assert "2 of 2 cases are marked for review" in done.stdout
    assert "0 of 2 cases were compared with the training data" in done.stdout
    assert "Marked in every case: esophagus (trained on fewer than 3 patients), " in done.stdout
