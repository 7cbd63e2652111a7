"""A run of trainer.main in a process of its own, for programs that train several."""

import ctypes
import signal
import subprocess
import sys

from absl import logging

STOPPED = 128 + signal.SIGTERM
TOLD_WHY = (2, STOPPED)  # the trainer has said it in one line
_PR_SET_PDEATHSIG = 1


def train(flags_of_trainer) -> int:
    """Trains with these flags; SIGTERM is handed on. Returns the exit status."""
    command = [sys.executable, "-m", "trainer.main", *flags_of_trainer]
    command += [f"--verbosity={logging.get_verbosity()}"]
    process = subprocess.Popen(command, preexec_fn=_end_with_parent)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    return process.wait()


def _end_with_parent() -> None:
    """In the trainer's process: Linux ends it with this one, in whatever way this one ends.

    Otherwise it would train on after a kill -9, and keep its folder from the repeated command.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
