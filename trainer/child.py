"""A run of trainer.main in a process of its own, for programs that train several."""

import ctypes
import signal
import subprocess
import sys

from absl import logging

from segthor.errors import InputError

# Exit statuses whose reason the trainer has said in one line.
_TOLD_WHY = (2, 128 + signal.SIGINT, 128 + signal.SIGTERM)
_PR_SET_PDEATHSIG = 1


def train(flags_of_trainer, name: str) -> int:
    """Trains with these flags; SIGTERM is handed on.

    Returns 0, or an exit status whose reason the trainer has said. Raises InputError, with the
    run's name in front, where it ended in another one.
    """
    command = [sys.executable, "-m", "trainer.main", *flags_of_trainer]
    command += [f"--verbosity={logging.get_verbosity()}"]
    process = subprocess.Popen(command, preexec_fn=_end_with_parent)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    status = process.wait()
    if status and status not in _TOLD_WHY:
        raise InputError(f"{name} ended with status {status}; mend that and repeat the command")
    return status


def _end_with_parent() -> None:
    """In the trainer's process: Linux ends it with this one, in whatever way this one ends.

    Otherwise it would train on after a kill -9, and keep its folder from the repeated command.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
