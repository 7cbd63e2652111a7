"""Processes that our programs start end with them."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARENT = """
import sys
from segthor import children
child = children.start([sys.executable, "-c", "import time; print(1); time.sleep(600)"])
print(child.pid, flush=True)
child.wait()
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system has no such signal")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_child_ends_with_its_parent_however_that_ends(number):
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert is_alive(child)
    os.kill(parent.pid, number)
    parent.wait()
    deadline = time.monotonic() + 10
    while is_alive(child):
        assert time.monotonic() < deadline, "the child goes on without its parent"
        time.sleep(0.02)


def test_every_program_starts_others_in_this_way_or_one_that_ends_them_too():
    # These end with what they read: the filter of TensorFlow's notes with its pipe, a decoder with
    # its connection, a Flink worker with its TaskManager's.
    own_way = {"segthor/startup.py", "segthor/dicom/decoder.py", "scripts/flink_workers.py"}
    starts = re.compile(r"subprocess\.(Popen\(|run|call|check_)|os\.(system|spawn|fork)")
    folders = ("segthor", "beam_jobs", "trainer", "serving", "scripts")
    sources = {path for folder in folders for path in (ROOT / folder).rglob("*.py")}
    sources -= {ROOT / "scripts/draw_structures.py"}  # a tool of ours, which waits for each command
    starting = {str(path.relative_to(ROOT)) for path in sources if starts.search(path.read_text())}
    assert starting == own_way | {"segthor/children.py"}
