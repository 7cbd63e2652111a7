"""The trainer as a program: kills, signals, refusals, and what it leaves behind."""

import csv
import json
import os
import random
import re
import signal
import time

import numpy as np
import pytest
import slices
import tensorflow as tf
from programs import LIMIT_S, finish, start
from train_hosts import tf_configs

# The pyramid decoder leaves most of the encoder out: the quickest network to build.
NETWORK = ["--decoder=pspnet", "--backbone=resnet18", "--batch_size=4", "--shuffle_buffer=16"]
STEPS = 24
KILLS = int(os.environ.get("SEGTHOR_TEST_KILLS", "2"))


def command(data, workdir, *flags):
    return ["-m", "trainer.main", f"--data={data}", f"--workdir={workdir}", *NETWORK, *flags]


def weights(workdir, folder="checkpoints"):
    """Every value of the latest checkpoint."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(f"{workdir}/{folder}"))
    apart = ("_CHECKPOINTABLE_OBJECT_GRAPH", "save_counter/")  # its own book-keeping
    names = [n for n in reader.get_variable_to_shape_map() if not n.startswith(apart)]
    return {name: reader.get_tensor(name) for name in names}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    slices.make(folder, size=96)
    return folder


EXACT = [
    *(f"--steps={STEPS}", "--deterministic", "--seed=5", "--checkpoint_every=2"),
    *("--validate_every=6", "--steps_per_call=3", "--ema=0.9", "--schedule=plateau"),
    *("--patience=1", "--clip_norm=1"),
]
# Of the one run with a real network.
REAL_STEPS = 8
REAL = [*EXACT, f"--steps={REAL_STEPS}"]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """(folder, output) of a run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    output = finish([start(command(data, workdir, *REAL))])[0]
    return workdir, output


@pytest.fixture(scope="module")
def tiny_whole(data, tmp_path_factory):
    """The folder of such a run of the tiny network."""
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    finish([start(command(data, workdir, *EXACT), tiny=True)])
    return workdir


def last_step(workdir):
    path = tf.train.latest_checkpoint(str(workdir / "checkpoints"))
    return int(path.rpartition("-")[2]) if path else 0


def test_killed_at_random_moments_it_ends_with_the_weights_of_an_uninterrupted_run(
    data, tiny_whole, tmp_path
):
    rng, workdir, steps = random.Random(1), tmp_path / "killed", []
    for _ in range(KILLS):
        process = start(command(data, workdir, *EXACT), tiny=True)
        first = last_step(workdir)
        reach = rng.randint(first, min(first + 8, STEPS - 2))  # somewhere after this step
        while last_step(workdir) < reach and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        steps.append(last_step(workdir))
    finish([start(command(data, workdir, *EXACT), tiny=True)])
    expected, found = weights(tiny_whole), weights(workdir)
    assert steps[-1] > 0 and sorted(expected) == sorted(found)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    best = weights(tiny_whole, "best")
    for name, value in weights(workdir, "best").items():
        np.testing.assert_array_equal(best[name], value, err_msg=name)
    rows = [list(csv.DictReader(open(run / "log.csv"))) for run in (tiny_whole, workdir)]
    assert [row["step"] for row in rows[0]] == ["6", "12", "18", "24"]
    for name in ("step", "dice", "dice_heart", "learning_rate"):
        assert [row[name] for row in rows[0]] == [row[name] for row in rows[1]]


def test_sigterm_is_answered_after_the_step_and_the_same_command_continues(
    data, tiny_whole, tmp_path
):
    """Before the first step is compiled, and in the midst of a run."""
    workdir = tmp_path / "stopped"
    process = start(command(data, workdir, *EXACT), tiny=True)
    said = [next(line for line in process.stdout if "per step" in line)]
    process.terminate()
    said += process.communicate(timeout=LIMIT_S)
    assert process.returncode == 143, said
    assert last_step(workdir) == 1  # a call is of two, since --checkpoint_every=2
    process = start(command(data, workdir, *EXACT), tiny=True)
    while last_step(workdir) < 4 and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    output = process.communicate(timeout=LIMIT_S)[0]
    assert process.returncode == 143, output[-2000:]
    assert "Continuing at step 1" in output and "the same command continues" in output
    assert 4 <= last_step(workdir) < STEPS
    finish([start(command(data, workdir, *EXACT), tiny=True)])
    expected = weights(tiny_whole)
    for name, value in weights(workdir).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_ctrl_c_saves_and_ends_a_call_of_many_steps(data, tmp_path):
    many = ["--steps=100000", "--steps_per_call=10000", "--validate_every=100000"]
    here = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job of a shell ignores it
    process = start(command(data, tmp_path / "run", *many), tiny=True)
    signal.signal(signal.SIGINT, here)
    assert any("per step" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)  # in the midst of tracing
    output = process.communicate(timeout=LIMIT_S)[0]
    assert process.returncode == 130, output
    assert output.splitlines()[-1].startswith("Stopped after a checkpoint")
    assert last_step(tmp_path / "run") == 1


def test_nothing_but_its_own_lines_reaches_the_terminal(whole):
    own = r"\d+ training slices|1 device|step \d+/8  loss|Best Dice|Wrote |Next: "
    assert [line for line in whole[1].splitlines() if not re.match(own, line)] == []


def test_a_run_leaves_what_the_next_programs_need(data, whole):
    workdir, output = whole
    run = json.loads((workdir / "run.json").read_text())
    assert run["config"]["backbone"] == "resnet18" and run["organs"] == list(slices.NAMES)
    assert run["recipe"]["context"] == 3 and run["replicas"] == 1
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["finished"] and summary["steps"] == REAL_STEPS
    assert set(summary["best"]) == {"step", "dice", *(f"dice_{n}" for n in slices.NAMES)}
    assert tf.train.latest_checkpoint(str(workdir / "checkpoints")).endswith(f"-{REAL_STEPS}")
    assert tf.train.latest_checkpoint(str(workdir / "best"))
    assert re.search(r"1 device\(s\) x 4 slices = 4 per step, 8 steps", output)
    assert "Next: python -m serving.export" in output


def test_the_best_checkpoint_comes_back_as_a_network(whole):
    from trainer import run as runs

    workdir, _ = whole
    network, record = runs.restore(str(workdir), "best")
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3)).astype(np.uint8)
    output = network(images)["segment"].numpy()
    assert output.shape == (2, 96, 96, 5) and output.dtype == np.float32
    np.testing.assert_allclose(output.sum(-1), 1, rtol=1e-5)
    stored = {value.shape: value for value in weights(workdir, "best").values()}
    assert any(np.array_equal(w, stored.get(w.shape)) for w in network.get_weights() if w.ndim > 1)
    assert record.config.ema == 0.9
    again, _ = runs.restore(str(workdir), "last")
    assert again(images)["segment"].shape == output.shape
    assert record.summary == json.loads((workdir / "summary.json").read_text())


def test_stopped_before_the_first_validation_the_averaged_network_is_whole(data, tmp_path, network):
    """Its BatchNorm statistics are the trained network's, not the 0 and 1 that they begin with."""
    from trainer import run as runs

    flags = ["--steps=1000", "--validate_every=1000", "--checkpoint_every=4", "--steps_per_call=2"]
    train = command(data, tmp_path / "run", *flags, "--ema=0.9")
    process = start(train, tiny=network == "tiny")
    while last_step(tmp_path / "run") < 4 and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    output = process.communicate(timeout=LIMIT_S)[0]
    assert process.returncode == 143, output[-2000:]
    stored = weights(tmp_path / "run")
    names = [n for n in stored if n.startswith("averaged/") and "/moving_" in n]
    assert len(names) > {"tiny": 1, "resnet18": 10}[network]
    for name in names:
        trained = stored[name.replace("averaged/", "model/", 1)]
        np.testing.assert_array_equal(stored[name], trained, err_msg=name)
        assert not np.array_equal(trained, np.full_like(trained, name.count("moving_variance")))
    restored, _ = runs.restore(str(tmp_path / "run"), "last")
    found = [v.numpy() for v in restored.non_trainable_variables]
    assert all(any(np.array_equal(v, stored[n]) for n in names) for v in found)


def test_a_second_trainer_in_a_folder_is_refused_and_one_after_a_kill_is_not(data, tmp_path):
    run = tmp_path / "run"
    flags = ["--steps=1000", "--checkpoint_every=2", "--steps_per_call=2", "--validate_every=1000"]
    flags += slices.NO_AUGMENTATION
    first = start(command(data, run, *flags), tiny=True)
    while last_step(run) < 2 and first.poll() is None:
        time.sleep(0.05)
    second = start(command(data, run, *flags), tiny=True)
    output = second.communicate(timeout=LIMIT_S)[0]
    assert second.returncode == 2 and first.poll() is None
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert str(run) in line and "another process is writing there" in line
    first.kill()
    again = start(command(data, run, *flags), tiny=True)  # before the killed one is waited for
    reached = last_step(run)
    while last_step(run) <= reached and again.poll() is None:
        time.sleep(0.05)
    assert again.poll() is None and last_step(run) > reached
    again.kill()
    first.communicate(), again.communicate()


def test_an_organ_that_no_validation_patient_has_leaves_json_that_is_json(tmp_path):
    names = {f"Patient_{n:02d}": slices.NAMES if n % 3 else ("heart",) for n in range(1, 7)}
    slices.make(tmp_path / "data", size=96, contoured=names)
    flags = ["--steps=2", "--organs=heart,aorta", "--surface_distances"]
    (output,) = finish([start(command(tmp_path / "data", tmp_path / "run", *flags), tiny=True)])
    assert "no validation patient has contours of aorta" in output
    assert re.search(r"Best Dice 0\.\d+ at step 2 \(heart 0\.\d+, aorta -\)", output)

    def refuse(constant):
        raise AssertionError(f"no JSON: {constant}")

    for name in ("run.json", "summary.json"):
        json.loads((tmp_path / "run" / name).read_text(), parse_constant=refuse)
    best = json.loads((tmp_path / "run/summary.json").read_text())["best"]
    assert best["dice_aorta"] is None and best["dice"] == best["dice_heart"] >= 0
    (events,) = (tmp_path / "run/tensorboard").iterdir()
    found = [
        (value.tag, float(tf.make_ndarray(value.tensor)))
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
        if value.tag.startswith("dice/") and value.tensor.dtype == tf.float32.as_datatype_enum
    ]
    assert {tag for tag, _ in found} == {"dice/mean", "dice/heart"}
    assert np.isfinite([value for _, value in found]).all()


def test_another_configuration_is_refused_with_the_difference(data, whole):
    workdir, _ = whole
    process = start(command(data, workdir, *REAL, "--learning_rate=0.5", "--augment_noise=0.2"))
    output = process.communicate(timeout=LIMIT_S)[0]
    assert process.returncode == 2
    line = output.strip().splitlines()[-1]
    assert line.startswith("error: --workdir=")
    assert "learning_rate is 0.001 there and 0.5 here" in line
    assert "augment.noise is 0.05 there and 0.2 here" in line


def test_two_processes_train_as_two_devices_do_and_the_chief_writes_alone(data, tmp_path):
    # few steps of many slices: BatchNorm over few values would blow up rounding
    flags = ["--steps=2", "--validate_every=1", "--batch_size=8"]
    flags += ["--optimizer=sgd", "--learning_rate=0.01", "--schedule=constant"]
    flags += slices.NO_AUGMENTATION
    finish([start(command(data, tmp_path / "one", "--cpu_devices=2", *flags), tiny=True)])
    both = [
        start(command(data, tmp_path / "two", *flags), each, tiny=True) for each in tf_configs(2)
    ]
    chief, other = finish(both)
    assert "Best Dice" in chief and "Best Dice" not in other
    expected = weights(tmp_path / "one", "best")
    for name, value in weights(tmp_path / "two", "best").items():
        np.testing.assert_allclose(value, expected[name], atol=1e-4, err_msg=name)
    names = [sorted(os.listdir(tmp_path / run)) for run in ("one", "two")]
    assert names[0] == names[1]
