"""The reference masks: `serving.evaluate` gives the scores that were worked out by hand."""

import csv
from pathlib import Path

import numpy as np
import pytest
from programs import run_entry
from reference import masks, structures

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


def test_structure_sets_of_the_same_masks_have_the_same_scores(tmp_path):
    """But for organs that the truth has no voxel of: a structure set cannot say that."""
    structures.write(tmp_path)
    folders = {"predictions": tmp_path / "prediction", "labels": tmp_path / "truth"}
    done = run_entry("serving.evaluate", **folders, output=tmp_path / "scores")
    assert done.returncode == 0, done.stdout + done.stderr
    answers, scores = rows(ANSWERS), rows(tmp_path / "scores" / "scores.csv")
    assert answers.keys() - scores.keys() == {("second", "aorta"), ("third", "heart")}
    for key in scores:
        assert scores[key] == pytest.approx(answers[key], abs=1e-9), key


def test_outlines_run_along_the_edges_of_pixels():
    plane = np.zeros((5, 5), bool)
    plane[1:4, 1:4] = True
    plane[2, 2] = False
    outer, hole = sorted(structures.outlines(plane), key=len, reverse=True)
    assert {(1, 1), (4, 1), (4, 4), (1, 4)} <= set(outer) and len(outer) == 12
    assert set(hole) == {(2, 2), (3, 2), (3, 3), (2, 3)}
    corner = np.eye(2, dtype=bool)  # two pixels that touch at a corner
    assert sorted(map(len, structures.outlines(corner))) == [4, 4]
    assert structures.outlines(np.zeros((3, 3), bool)) == []
