"""Learning curves: nested subsets of patients, the fitted law and its interval, the program."""

import csv
import signal
import time

import numpy as np
import pytest
import slices
from programs import LIMIT_S, finish, start

from segthor import records
from segthor.errors import InputError
from trainer import data, growth, power_law, sources
from trainer.config import Config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    slices.make(folder, patients=9, size=96)
    return str(folder)


def test_subsets_of_a_draw_are_nested_and_draws_differ(folder):
    drawn = [[sources.open_source(folder, None, n, draw).chosen for n in (1, 2, 4, 6)]
             for draw in range(4)]  # fmt: skip
    for subsets in drawn:
        assert [len(subset) for subset in subsets] == [1, 2, 4, 6]
        for fewer, more in zip(subsets, subsets[1:], strict=False):
            assert set(fewer) < set(more)
    assert len({subsets[1] for subsets in drawn}) > 1
    assert len({subsets[3] for subsets in drawn}) == 1  # all of them
    with pytest.raises(
        InputError, match="--train_patients: expected at most the 6 training patients"
    ):
        sources.open_source(folder, None, 7)


def test_a_run_on_some_patients_reads_their_slices_alone_and_each_once_in_an_epoch(folder):
    source = sources.open_source(folder, None, 2, 1)
    config = Config(organs=("heart",), batch_size=2, shuffle_buffer=8, train_patients=2, draw=1)
    steps = sources.steps_per_epoch(source, 2)
    expected = sum(row.slices for row in source.dataset.patients if row.patient in source.chosen)
    assert source.train_slices == expected and steps == expected // 2
    named = [data.patients_at(source, config, 2, step) for step in range(2 * steps)]
    assert {name for names in named for name in names} == set(source.chosen)
    epoch = data.training(source, config, 2).take(2 * steps)
    images = {row[records.IMAGE].tobytes() for row in epoch.as_numpy_iterator()}
    assert len(images) == 2 * steps


def test_the_law_through_points_of_a_law_is_that_law():
    sizes = np.array([4, 8, 16, 32])
    law = power_law.fit(sizes, 1 - 0.05 - 0.4 * sizes**-0.5)
    assert (law.floor, law.scale) == (pytest.approx(0.05, abs=1e-6), pytest.approx(0.4, abs=1e-6))
    assert law.exponent == pytest.approx(0.5)
    falling = power_law.fit(sizes, [0.9, 0.8, 0.7, 0.6])  # more patients never cost in this law
    assert falling.scale == pytest.approx(0) and falling.dice(64) == pytest.approx(0.75)


def planted(sizes, seed, draws=3, patients=8):
    """Dice [sizes, draws, patients] about a law, as draws and patients spread it."""
    rng = np.random.default_rng(seed)
    means = 1 - 0.06 - 0.35 * np.array(sizes, float)[:, None, None] ** -0.6
    drawn = rng.normal(0, 0.004, (len(sizes), draws, 1))
    scored = rng.normal(0, 0.01, (1, 1, patients))
    return means + drawn + scored + rng.normal(0, 0.004, (len(sizes), draws, patients))


@pytest.mark.parametrize("count", [6, pytest.param(12, marks=pytest.mark.thorough)])
def test_the_interval_at_twice_the_patients_mostly_holds_what_is_measured_there(count):
    sizes, held, widths = [4, 8, 16, 32], 0, []
    for seed in range(count):
        dice = planted(sizes, seed)
        *_, row = growth.summarise(sizes[:3], {"heart": dice[:3]})
        assert (row["patients"], row["kind"]) == (32, "predicted")
        held += row["low"] <= dice[3].mean() <= row["high"]
        widths.append(row["high"] - row["low"])
        assert row["low"] < row["dice"] < row["high"]
    assert held >= count * 5 / 6 and max(widths) < 0.1


def test_an_organ_that_some_patients_lack_is_averaged_over_the_others():
    dice = planted([4, 8, 16], 0)
    dice[:, :, 0] = np.nan
    rows = growth.summarise([4, 8, 16], {"heart": dice})
    assert rows[0]["dice"] == pytest.approx(np.nanmean(dice[0]))
    assert all(np.isfinite([row["low"], row["high"]]).all() for row in rows)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--sizes=1,2", "--steps=1"], "--sizes: expected three or more numbers"),
        (["--sizes=1,2,4"], "--steps: expected one number for all sizes"),
        (["--sizes=1,2,4", "--steps=1", "--draw=2"], "--draw: is chosen here; leave it out"),
        (
            ["--sizes=1,2,9", "--steps=1"],
            "--sizes: expected at most the 6 training patients",
        ),
    ],
)
def test_what_cannot_be_a_curve_is_one_line(folder, tmp_path, flags, message):
    process = start(program(folder, tmp_path / "runs", *flags))
    assert message in process.communicate(timeout=LIMIT_S)[0].splitlines()[-1]
    assert process.returncode == 2


def program(folder, workdir, *flags):
    return ["-m", "trainer.learning_curve", f"--data={folder}", f"--workdir={workdir}", *flags]


def test_killed_and_repeated_it_ends_with_one_table_and_a_picture(folder, tmp_path):
    flags = ["--sizes=1,2,4", "--draws=1", "--steps=1", "--decoder=pspnet", "--backbone=resnet18"]
    flags += ["--batch_size=4", "--organs=heart,aorta", *slices.NO_AUGMENTATION]
    process = start(program(folder, tmp_path / "runs", *flags), tiny=True)
    while process.poll() is None and not (tmp_path / "runs/2_0/run.json").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    first = (tmp_path / "runs/1_0/best_patients.csv").read_bytes()
    (output,) = finish([start(program(folder, tmp_path / "runs", *flags), tiny=True)])
    assert (tmp_path / "runs/1_0/best_patients.csv").read_bytes() == first
    rows = list(csv.DictReader(open(tmp_path / "runs/learning_curve.csv")))
    assert [(row["organ"], row["patients"]) for row in rows] == [
        (organ, size) for organ in ("heart", "aorta", "mean") for size in ("1", "2", "4", "8")
    ]
    scores = [float(row["heart"]) for row in csv.DictReader(first.decode().splitlines())]
    assert float(rows[0]["dice"]) == pytest.approx(np.mean(scores))
    assert (tmp_path / "runs/learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert "heart" in output and "8 patients  predicted" in output
    assert output.count("warning: 1 steps are") == 2
