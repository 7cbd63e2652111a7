"""Loading TensorFlow: the one place that does it for a program, without its page of notes.

TensorFlow writes notes on standard error while it is imported and first looks for GPUs, among them
a line that says E where a machine simply has none, and no setting keeps them all away. So standard
error goes through a small process of its own meanwhile (`segthor/startup_filter.py`), which drops
these lines and passes every other on as it comes. Warnings and errors of TensorFlow's C++ that come
later reach the terminal directly; its notes appear with --verbosity=1.
"""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from absl import logging

from segthor import environment

_FILTER = Path(__file__).with_name("startup_filter.py")
_WARNINGS = "1"  # of TF_CPP_MIN_LOG_LEVEL: 0 notes, 1 warnings, 2 errors
_WAIT_S = 5


def load_tensorflow() -> None:
    """Imports TensorFlow and has it look for GPUs; says so where it cannot use one that is there.

    To be called once the flags are parsed and what can be checked without it is checked: it takes
    seconds.
    """
    removed = environment.prepare()
    if removed:
        print(f"warning: {', '.join(removed)} would change results; ignored", file=sys.stderr)
    with quiet():
        import tensorflow as tf

        found = tf.config.list_physical_devices("GPU")
    if not logging.level_debug():
        logging.set_verbosity(logging.WARNING)  # else its Python part would take up notes
    if not found and environment.has_nvidia_gpu():
        print(
            "warning: there is an NVIDIA GPU, but TensorFlow cannot use it and computes on the "
            "processor; install the driver and CUDA's libraries (pip install "
            "'tensorflow[and-cuda]'); --verbosity=1 shows its reasons",
            file=sys.stderr,
        )


@contextlib.contextmanager
def quiet():
    """Keeps TensorFlow's known notes off standard error while the block runs.

    Everything else passes at once, also where the process is killed meanwhile.
    """
    if logging.level_debug():
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", _WARNINGS)
    # In a session of its own, so that Ctrl-C does not end it before this process has had its say.
    passing = subprocess.Popen(
        [sys.executable, "-IS", str(_FILTER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    sys.stderr.flush()
    terminal = os.dup(2)
    os.dup2(passing.stdin.fileno(), 2)
    passing.stdin.close()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)  # the last writer is gone: the filter comes to its end
        os.close(terminal)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a library's child may hold it open
            passing.wait(_WAIT_S)
