"""A dataset that holds out no patient, such as one of a single patient: trained without scores."""

import json
import time

import pytest
import slices
from programs import run, start

from segthor import csv_files
from segthor.errors import InputError
from trainer import batches, sources
from trainer.config import Config
from trainer.strengths import Strengths

SMALL = ["--backbone=resnet18", "--batch_size=2", "--steps=6", "--validate_every=2"]


def command(data, workdir):
    where = [f"--data={data}", f"--workdir={workdir}"]
    return ["-m", "trainer.main", *where, *SMALL, *slices.NO_AUGMENTATION]


def train(data, workdir):
    return run(command(data, workdir), tiny=True)


def test_the_last_checkpoint_is_exported_and_the_card_says_that_nobody_was_held_out(tmp_path):
    data, workdir, model = tmp_path / "data", tmp_path / "run", tmp_path / "model"
    slices.make(data, patients=1)
    done = train(data, workdir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("no patient is held out") == 1
    assert "7 training slices, 0 held out (0 patients)" in done.stdout
    assert "Dice" not in done.stdout and "Next: python -m serving.export" in done.stdout
    rows = [row for _, row in csv_files.read_table(str(workdir / "log.csv"), None, ())]
    assert [int(row["step"]) for row in rows] == [2, 4, 6]
    assert {row["dice"] for row in rows} == {"nan"}
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["best"]["step"] == 6 and summary["best"]["dice"] is None
    assert [path.name for path in workdir.glob("best/*.index")] == ["ckpt-6.index"]
    assert (workdir / "learning_curve.png").exists()
    exported = run(["-m", "serving.export", f"--workdir={workdir}", f"--output={model}"], tiny=True)
    assert exported.returncode == 0, exported.stdout + exported.stderr
    (card,) = model.rglob("model_card.md")
    text = card.read_text()
    assert "0 with 0 slices held out" in text and "the best one not known" in text
    assert "No patient was held out: there are no scores." in text
    assert "no held-out patient has a score" not in text


def test_a_killed_run_continues(tmp_path):
    data, whole, parts = (tmp_path / name for name in ("data", "whole", "parts"))
    slices.make(data, patients=2)
    assert train(data, whole).returncode == 0
    with start(command(data, parts), tiny=True) as program:
        while not list((parts / "checkpoints").glob("*.index")):
            assert program.poll() is None
            time.sleep(0.01)
        program.kill()
    done = train(data, parts)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Continuing at step" in done.stdout
    losses = [
        [(row["step"], row["loss"]) for _, row in csv_files.read_table(str(log), None, ())]
        for log in (whole / "log.csv", parts / "log.csv")
    ]
    assert losses[0][-1] == losses[1][-1]


@pytest.mark.parametrize(
    "choices, option",
    [
        ({"early_stop": 3}, "--early_stop"),
        ({"schedule": "plateau"}, "--schedule=plateau"),
        ({"surface_distances": True}, "--surface_distances"),
        ({"fold": 2}, "--fold=2"),  # the two patients are in the folds 0 and 1
    ],
)
def test_what_needs_scores_is_refused(tmp_path, choices, option):
    slices.make(tmp_path, patients=2)
    with pytest.raises(InputError, match=f"^{option}: expected .* found none"):
        sources.open_run(str(tmp_path), Config(batch_size=2, **choices))


def test_an_input_of_validation_slices_is_refused(tmp_path):
    slices.make(tmp_path, patients=2)
    assert sum(1 for _ in batches.dataset(tmp_path, "train", 2).take(3)) == 3
    with pytest.raises(InputError, match="^split: expected a dataset that holds out patients"):
        batches.dataset(tmp_path, "validation", 2)


@pytest.mark.parametrize(
    "few, patients, expected",
    [(2, 0, Strengths()), (1, 0, Strengths.none()), (1, 1, Strengths()), (0, 1, Strengths.none())],
)
def test_few_patients_are_augmented_as_by_default(tmp_path, few, patients, expected):
    slices.make(tmp_path, patients=2)
    none = Strengths.none()
    chosen = Config(batch_size=2, few_patients=few, train_patients=patients, augment=none)
    _, config, _ = sources.open_run(str(tmp_path), chosen)
    assert config.augment == expected


def test_an_organ_without_contours_is_still_refused(tmp_path):
    slices.make(tmp_path, patients=1, contoured={"Patient_01": ("heart", "aorta")})
    with pytest.raises(InputError, match="--organs=heart,aorta would work"):
        sources.open_run(str(tmp_path), Config(batch_size=2))
