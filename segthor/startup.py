"""Loads TensorFlow for a program, without the notes that TensorFlow prints.

TensorFlow prints notes on standard error while it is imported and looks for GPUs; on a machine
without a GPU one of them looks like an error. No setting suppresses them all. Meanwhile standard
error therefore goes through a small process (`segthor/startup_filter.py`), which drops these lines
and passes on all others at once. Later warnings and errors of TensorFlow's C++ code are printed as
usual; --verbosity=1 shows the notes.
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
    """Imports TensorFlow and looks for GPUs; warns where it cannot use one that is there.

    Takes seconds: call it after all checks that do not need TensorFlow.
    """
    removed = environment.prepare()
    if removed:
        print(f"warning: {', '.join(removed)} would change results; ignored", file=sys.stderr)
    with quiet():
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
    if not logging.level_debug():
        logging.set_verbosity(logging.WARNING)  # TensorFlow's Python code also logs notes
    if not gpus and environment.has_nvidia_gpu():
        print(
            "warning: there is an NVIDIA GPU, but TensorFlow cannot use it and computes on the "
            "processor; install the driver and CUDA's libraries (pip install "
            "'tensorflow[and-cuda]'); --verbosity=1 shows its reasons",
            file=sys.stderr,
        )


@contextlib.contextmanager
def quiet():
    """Drops TensorFlow's known notes from standard error while the block runs.

    All other lines are printed at once, even if the process is killed meanwhile.
    """
    if logging.level_debug():
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", _WARNINGS)
    # In a new session, so that Ctrl-C does not end it before this process has printed its message.
    line_filter = subprocess.Popen(
        [sys.executable, "-IS", str(_FILTER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    sys.stderr.flush()
    terminal = os.dup(2)
    os.dup2(line_filter.stdin.fileno(), 2)
    line_filter.stdin.close()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)  # closes the last writer, so the filter ends
        os.close(terminal)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a child process may keep it open
            line_filter.wait(_WAIT_S)
