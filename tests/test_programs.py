"""Programs that the tests fork behave as in new interpreters do, and end with pytest."""

import os
import signal

import pytest
from programs import ROOT, is_running, run, start, wait_until

TELL = """
import os, signal, sys
print(sys.argv, os.getcwd(), os.environ["SEEN"], "HIDDEN" in os.environ, os.getppid(), __name__)
print(os.getsid(0) == os.getpid(), signal.getsignal(signal.SIGINT) is signal.default_int_handler)
print(sys.stdin.read(), file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


def told(tmp_path, monkeypatch, cold):
    monkeypatch.setenv("HIDDEN", "1")
    chosen = {"environment": {"SEEN": "yes", "HIDDEN": None}, "cwd": tmp_path, "stdin": -1}
    program = start(["-c", TELL, 7], cold=cold, stderr=-1, start_new_session=True, **chosen)
    return *program.communicate("typed", timeout=60), program.returncode


def test_a_forked_program_sees_and_answers_what_a_new_interpreter_does(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job of a shell ignores it
    forked, cold = (told(tmp_path, monkeypatch, cold) for cold in (False, True))
    signal.signal(signal.SIGINT, before)
    assert forked == cold
    assert forked[1:] == ("typed\n", 7) and f"False {os.getpid()} __main__" in forked[0]


@pytest.mark.parametrize(
    "code",
    [
        "pass",
        "raise SystemExit('last words')",
        "raise KeyError('fault')",
        "raise KeyboardInterrupt",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import atexit; atexit.register(print, 'at the end')",
        "import threading, time\nthreading.Timer(0.1, print, ['from a thread']).start()",
    ],
)
def test_a_forked_program_ends_as_a_new_interpreter_does(code):
    forked, cold = (run(["-c", code], cold=cold) for cold in (False, True))
    assert (forked.returncode, forked.stdout) == (cold.returncode, cold.stdout)
    assert forked.stderr.splitlines()[-1:] == cold.stderr.splitlines()[-1:]


def test_modules_and_scripts_are_run_as_such(tmp_path):
    for command in (["-m", "segthor.phantom", "--help"], ["scripts/train_hosts.py"]):
        forked, cold = (run(command, cold=cold) for cold in (False, True))
        assert forked.stdout == cold.stdout and forked.stderr == cold.stderr
    (tmp_path / "beside.py").write_text("import sys; print(sys.argv, sys.path[0])")
    assert run(["-m", "beside", 1], cwd=tmp_path).stdout.endswith(f"'1'] {tmp_path}\n")


def test_the_server_has_loaded_tensorflow_and_started_none_of_its_threads():
    code = (
        "import sys\n"
        "from tensorflow.python.eager import context\n"
        "print('trainer.loop' in sys.modules, context._context is None or "
        "context._context._context_handle is None)\n"
        "import tensorflow as tf\n"
        "print(int(tf.function(lambda x: x + 1)(tf.constant(2))))\n"
    )
    assert run(["-c", code]).stdout == "True True\n3\n"


WAITS = "import sys, time; print('waits', flush=True); time.sleep(600)"
STARTS = f"""
import os, sys, time
sys.path.insert(0, {str(ROOT / "tests")!r})
from programs import start

def test_programs_are_at_work():
    programs = [start(["-c", {WAITS!r}], cold=cold) for cold in (False, True)]
    assert [program.stdout.readline() for program in programs] == ["waits\\n"] * 2
    with open(os.environ["PIDS"] + ".part", "w") as stream:
        print(*(program.pid for program in programs), file=stream)
    os.rename(stream.name, os.environ["PIDS"])
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("workers", "number"),
    [
        (0, signal.SIGTERM),
        (1, signal.SIGKILL),
        # As the one above.
        pytest.param(0, signal.SIGINT, marks=pytest.mark.thorough),
        pytest.param(0, signal.SIGKILL, marks=pytest.mark.thorough),
    ],
)
def test_programs_end_with_pytest(workers, number, tmp_path):
    (tmp_path / "test_it.py").write_text(STARTS)
    pids = tmp_path / "pids"
    command = ["-m", "pytest", f"-n{workers}", "-p", "no:cacheprovider", f"--rootdir={tmp_path}"]
    command += [f"--confcutdir={tmp_path}", "-p", "conftest", tmp_path / "test_it.py"]
    environment = {"PIDS": pids, "PYTHONPATH": ROOT / "tests", "PYTEST_XDIST_WORKER": None}
    environment["SEGTHOR_TESTS_LOAD"] = "0"  # the server's libraries have no part in it
    with start(command, cold=True, environment=environment, start_new_session=True) as tests:
        wait_until(lambda: pids.exists() or tests.poll() is not None)
        assert pids.exists(), tests.stdout.read()
        programs = [int(pid) for pid in pids.read_text().split()]
        assert all(map(is_running, programs))
        tests.send_signal(number)
        wait_until(lambda: not any(map(is_running, programs)))
        tests.kill()
