"""Several hosts, as processes of one machine: a run goes on after a loss, and none is half dead.

That they train as one process does is tested in test_replicas.py.
"""

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import programs
import pytest
import slices
import tensorflow as tf

NETWORK = ["--decoder=pspnet", "--backbone=resnet18", "--batch_size=2", "--shuffle_buffer=16"]
# AdamW would divide tiny gradients by themselves and blow up their rounding.
EXACT = ["--steps=20", "--deterministic", "--optimizer=sgd", "--learning_rate=0.01"]
EXACT += ["--clip_norm=1", "--ema=0.9", "--checkpoint_every=2", "--validate_every=10"]
EXACT += slices.NO_AUGMENTATION
WAIT_S = 400
KILLS = int(os.environ.get("SEGTHOR_TEST_KILLS", "2"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    slices.make(folder, size=96)
    return folder


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The run of two processes that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    output = finish(start(data, workdir))
    return workdir, output


def start(data, workdir, *flags, hosts=2):
    program = ["scripts/train_hosts.py", str(hosts)] if hosts else ["-m", "trainer.main"]
    both = [f"--data={data}", f"--workdir={workdir}", *NETWORK, *EXACT]
    return programs.start([*program, *both, *flags], tiny=True)


def finish(process, status=0):
    output = process.communicate(timeout=WAIT_S)[0]
    assert process.returncode == status, output[-4000:]
    return output


def weights(workdir):
    """Every value of the latest checkpoint."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(f"{workdir}/checkpoints"))
    names = [name for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name]
    return {name: reader.get_tensor(name) for name in names if name != "save_counter"}


def last_step(workdir):
    path = tf.train.latest_checkpoint(f"{workdir}/checkpoints")
    return int(path.rpartition("-")[2]) if path else 0


def children(process):
    """Process ids of the trainers, in the order in which they were started."""
    pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    named = {int(pid): Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids}
    return sorted(pid for pid, name in named.items() if name == "main.py")  # set by absl


def test_a_killed_process_ends_the_run_and_the_same_command_continues_it(data, whole, tmp_path):
    rng, workdir, steps = random.Random(3), tmp_path / "killed", []
    for number in range(KILLS):
        run = start(data, workdir)
        reach = rng.randint(last_step(workdir), min(last_step(workdir) + 2 + 12 // KILLS, 16))
        while last_step(workdir) < reach and run.poll() is None:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.5))
        assert run.poll() is None, run.communicate()[0][-4000:]
        victim = children(run)[number % 2]
        os.kill(victim, signal.SIGKILL)
        lines = finish(run, status=1).strip().splitlines()
        assert "was killed by signal 9" in lines[-1] and "the same command continues" in lines[-1]
        assert not any("Traceback" in line for line in lines)
        steps.append(last_step(workdir))
    finish(start(data, workdir))
    expected, found = weights(whole[0]), weights(workdir)
    assert steps[-1] > 0
    # Sums over processes are not taken in a fixed order, so not bit for bit.
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_sigterm_to_one_process_stops_all_after_the_same_step(data, tmp_path):
    run = start(data, tmp_path / "run")
    said = ""
    while not all(f"[{index}] 2 device(s)" in said for index in (0, 1)):
        said += run.stdout.readline()
    os.kill(children(run)[1], signal.SIGTERM)
    said += finish(run, status=143)
    for index in (0, 1):
        assert f"[{index}] Stopped after a checkpoint" in said
    assert last_step(tmp_path / "run") == 1
