"""How many steps a run takes, and how many fit into some minutes."""

import json
import signal
import time
from types import SimpleNamespace
from unittest import mock

import pytest
import slices
import tensorflow as tf
from programs import finish, start
from test_trainer import command, last_step

from segthor import fields
from segthor.errors import InputError
from trainer import length, loop, run, schedules, sources
from trainer.config import Config


@pytest.mark.parametrize("validate_every", [0, 7])
@pytest.mark.parametrize("step_s, validation_s", [(0.01, 0.0), (0.5, 3.0), (1.9, 40.0)])
def test_the_steps_and_validations_that_fit_fill_the_time_and_no_more(
    step_s, validation_s, validate_every
):
    found = length.fit_length(26, 600, step_s, validation_s, validate_every)
    times = range(27, found.steps + 1)
    validations = sum(step % found.validate_every == 0 or step == found.steps for step in times)
    took = len(times) * step_s + validations * validation_s
    assert took <= 600
    assert took > 0.9 * 600 - validation_s - step_s
    assert validate_every or validations * validation_s <= 0.2 * 600 + validation_s


def test_without_time_there_is_one_step_more():
    assert length.fit_length(26, -5, 1.0, 10.0).steps == 27


def test_minutes_stand_alone():
    for other in ("steps", "freeze_encoder_steps"):
        with pytest.raises(InputError, match=f"minutes: expected 0 beside --{other}, found 1"):
            Config(minutes=1, **{other: 5})
    assert Config(minutes=1, epochs=0).minutes == 1


def test_a_timed_run_keeps_the_steps_that_it_chose_when_it_is_killed_and_goes_on(tmp_path):
    slices.make(tmp_path / "data", size=96)
    workdir = tmp_path / "run"
    # A checkpoint takes longer than some steps, and the steps are chosen without its time.
    flags = ["--minutes=0.1", "--checkpoint_every=20", "--ema=0", *slices.NO_AUGMENTATION]
    process = start(command(tmp_path / "data", workdir, *flags), tiny=True)
    while process.poll() is None and last_step(workdir) <= 6 + length.MEASURED_STEPS:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    said = process.communicate()[0]
    assert "steps that fit into 0.1 minutes" in said
    record = json.loads((workdir / run.RUN).read_text())
    (output,) = finish([start(command(tmp_path / "data", workdir, *flags), tiny=True)])
    assert "Continuing at step" in output and "s per step: " not in output
    summary = json.loads((workdir / run.SUMMARY).read_text())
    assert summary["finished"] and summary["steps"] == record["length"]["steps"] > 26
    source = sources.open_source(str(tmp_path / "data"), None)
    config = fields.from_json(Config, record["config"], "config")
    known = length.read_length(config, source, str(workdir), 4)
    assert known.steps == record["length"]["steps"]
    assert length.read_length(config, source, str(tmp_path / "other"), 4) is None


@pytest.mark.parametrize("schedule", ["onecycle", "cosine"])
def test_a_changed_length_leaves_the_rate_without_a_jump_and_ends_with_the_schedule(schedule):
    config = Config(schedule=schedule)

    def rate(plan, step):
        step = tf.constant(step)
        return float(schedules.learning_rate(config, step, plan.steps, 1.0, plan.offset))

    plan = length.Length(1000, 100)
    for step, steps in ((100, 1200), (200, 1150), (700, 701), (700, 900), (899, 900)):
        changed = length.change_length(plan, step, steps)
        assert rate(changed, step) == pytest.approx(rate(plan, step), rel=1e-4)
        assert changed.offset + (1 - changed.offset) / steps * steps == pytest.approx(1)
        assert rate(changed, steps) == pytest.approx(rate(plan, plan.steps), abs=1e-6)
        plan = changed


@pytest.mark.parametrize("later_step_s", [0.3, 0.43, 0.8])
def test_a_timed_run_ends_in_time_whatever_its_first_steps_took(later_step_s):
    """A run on a clock that the steps, validations and checkpoints move."""
    clock = [0.0]
    end_s = 600

    def run_steps(training, *until):
        step = training.learner.step
        until = [steps if n == 0 else (step // steps + 1) * steps for n, steps in enumerate(until)]
        clock[0] += (min(until) - step) * later_step_s
        training.learner.step = min(until)

    def wait(seconds):
        return lambda *_: clock.__setitem__(0, clock[0] + seconds)

    learner = SimpleNamespace(
        config=Config(minutes=10, epochs=0),
        step=26,
        any_process=lambda value: value,
        mean_over_processes=lambda value: value,
        set_schedule=lambda *_: None,
    )
    training = SimpleNamespace(
        learner=learner,
        checkpoints=SimpleNamespace(save=wait(1.0), stale=0),
        journal=mock.Mock(),
        stop_asked=lambda: False,
    )
    clock[0] = 40.0
    plan = length.fit_length(26, end_s - clock[0], 0.525, 6.0)
    with (
        mock.patch.object(loop.time, "monotonic", lambda: clock[0]),
        mock.patch.object(loop, "run_steps", run_steps),
        mock.patch.object(loop, "_validate", wait(5.0)),
    ):
        assert loop._train_to_end(SimpleNamespace(chief=False), training, plan, end_s)
    assert 0.97 * end_s < clock[0] < 1.01 * end_s
