"""Processes that our programs start end with them."""

import os
import re
import signal
import sys

import pytest
from programs import ROOT, is_running, start, wait_until

PARENT = """
import sys
from segthor import children
child = children.start([sys.executable, "-c", "import time; print(1); time.sleep(600)"])
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system has no such signal")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_child_ends_with_its_parent_however_that_ends(number):
    parent = start(["-c", PARENT])
    child = int(parent.stdout.readline())
    assert is_running(child)
    os.kill(parent.pid, number)
    parent.wait()
    wait_until(lambda: not is_running(child), limit_s=10)


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
