"""Worker processes: they share the work, pass results on in order, and end with their parent."""

import itertools
import os
import signal
import subprocess
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from cases import TINY_RECIPE, save_patients
from programs import is_running, run, start

from beam_jobs import processes

TINY_FLAGS = [f"--{name}={value}" for name, value in TINY_RECIPE.items()]

# A build whose first shard takes until it is ended; what a worker does is told on stdout.
SLOW = """
import os, signal, time
from beam_jobs import shards
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job of a shell ignores it

def examine(source, job):
    os.write(1, f"worker {os.getpid()}\\n".encode())  # in one piece, unlike print
    time.sleep(600)

shards.examine = examine
from beam_jobs import build
from segthor.errors import run
run(build.main, known_only=True)
"""


def pid_after(seconds):
    time.sleep(seconds)
    return os.getpid()


def refuse():
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("spawn", [False, True])
def test_calls_run_in_as_many_processes_as_asked_for(spawn):
    with processes.start_workers(2, spawn):
        assert processes.max_waiting() >= 2
        pids = {one.result() for one in [processes.submit(pid_after, 0.2) for _ in range(4)]}
    assert len(pids) == 2 and os.getpid() not in pids


def test_one_process_is_this_one_and_nothing_waits():
    with processes.start_workers(1):
        assert processes.submit(pid_after, 0).result() == os.getpid()
        assert processes.max_waiting() == 0
    assert processes.submit(pid_after, 0).result() == os.getpid()  # as on an engine's worker


@pytest.mark.parametrize("count", [1, 2])
def test_errors_come_back_as_they_were_raised(count):
    with pytest.raises(OSError, match="No space left"), processes.start_workers(count):
        processes.submit(refuse).result()
    assert processes.max_waiting() == 0


def test_a_killed_process_is_an_error_not_a_hang():
    with pytest.raises(BrokenProcessPool), processes.start_workers(2):
        processes.submit(os.kill, processes.submit(os.getpid).result(), signal.SIGKILL)
        processes.submit(pid_after, 1).result()


@pytest.fixture(params=[2])
def slow_build(tmp_path, request):
    """A build in the midst of its first shards, and the processes that write them."""
    count = request.param
    patients = save_patients(tmp_path / "patients", 6)
    command = ["-c", SLOW, f"--input={patients}", f"--output={tmp_path / 'out'}"]
    command += [f"--direct_num_workers={count}", *TINY_FLAGS]
    process = start(command, stderr=subprocess.PIPE, start_new_session=True)
    lines = iter(process.stdout.readline, "")
    told = (line for line in lines if line.startswith("worker"))
    workers = [int(line.split()[1]) for line in itertools.islice(told, count)]
    yield process, workers
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_driver(slow_build, number):
    process, workers = slow_build
    assert len(set(workers)) == 2 and all(is_running(pid) for pid in workers)
    process.send_signal(number)
    process.wait(20)
    ended = time.monotonic() + 20
    while any(map(is_running, workers)) and time.monotonic() < ended:
        time.sleep(0.01)
    assert not any(map(is_running, workers))


@pytest.mark.parametrize("slow_build", [1, 2], indirect=True)
def test_control_c_reaches_all_and_says_one_line(slow_build):
    process, workers = slow_build
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr.splitlines()[-1]) == (130, "error: interrupted")
    assert "Traceback" not in stderr and not any(map(is_running, workers))


def test_a_killed_worker_is_one_clear_line(slow_build):
    process, workers = slow_build
    os.kill(workers[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=20)
    line = stderr.splitlines()[-1]
    assert process.returncode == 2 and line.startswith("error: the system killed a worker process")
    assert "--direct_num_workers" in line and "Traceback" not in stderr
    assert not any(map(is_running, workers))


def again(process):
    """The same build in earnest, while or after the slow one runs."""
    arguments = process.args[3:]
    return run(["-m", "beam_jobs.build", *arguments])


def test_a_second_build_into_one_folder_ends_in_one_line(slow_build, tmp_path):
    process, _ = slow_build
    done = again(process)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and f"{tmp_path / 'out'}: another process is writing" in line
    assert process.poll() is None


def test_at_once_after_a_kill_the_next_build_runs_and_names_what_was_under_way(slow_build):
    process, _ = slow_build
    process.kill()
    done = again(process)
    assert done.returncode == 0, done.stderr
    named = [line for line in done.stderr.splitlines() if line.startswith("warning: a process was")]
    assert len(named) == 2 and all("Patient_0" in line and ".nii.gz)" in line for line in named)
    output = Path(next(one for one in process.args if one.startswith("--output="))[9:])
    assert not [str(path) for path in output.rglob(".*")]


@pytest.mark.parametrize("number", ["-1", "two"])
def test_a_number_of_workers_that_makes_no_sense_is_one_clear_line(tmp_path, number):
    patients = save_patients(tmp_path / "patients", 6)
    command = ["-m", "beam_jobs.build", f"--input={patients}", *TINY_FLAGS]
    command += [f"--output={tmp_path / 'out'}", f"--direct_num_workers={number}"]
    done = run(command)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: ")
    assert "--direct_num_workers" in line and number in line
