"""The reference masks: `serving.evaluate` gives the scores that were worked out by hand."""

import csv
from pathlib import Path

import pytest
from programs import run_entry
from reference import masks

ANSWERS = Path(masks.__file__).with_name("answers.csv")


def rows(path) -> dict:
    """(patient, organ) -> score's name -> value; None for an empty field."""
    with open(path, newline="") as stream:
        read = list(csv.DictReader(stream))
    return {
        (row.pop("patient"), row.pop("organ")): {
            name: float(text) if text else None for name, text in row.items() if name != "case"
        }
        for row in read
    }


def test_each_score_of_the_reference_masks_is_the_one_worked_out_by_hand(tmp_path):
    masks.write(tmp_path)
    folders = {"predictions": tmp_path / "prediction", "labels": tmp_path / "truth"}
    done = run_entry("serving.evaluate", **folders, output=tmp_path / "scores")
    assert done.returncode == 0, done.stderr
    answers, scores = rows(ANSWERS), rows(tmp_path / "scores" / "scores.csv")
    assert scores.keys() == answers.keys()
    for key, answer in answers.items():
        assert scores[key] == pytest.approx(answer, abs=1e-9), key
