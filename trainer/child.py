"""Runs trainer.main in a process of its own, for programs that train several networks."""

import signal
import sys

from absl import logging

from segthor import children
from segthor.errors import InputError

# Exit statuses whose reason the trainer has printed.
_EXPLAINED = (2, 128 + signal.SIGINT, 128 + signal.SIGTERM)


def train(flags_of_trainer, name: str) -> int:
    """Trains with these flags and forwards SIGTERM.

    name: Name of the run, for messages.

    Returns 0, or an exit status whose reason the trainer has printed.

    Raises:
      InputError: The trainer ended with another status.
    """
    command = [sys.executable, "-m", "trainer.main", *flags_of_trainer]
    process = children.start([*command, f"--verbosity={logging.get_verbosity()}"])
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    status = process.wait()
    if status and status not in _EXPLAINED:
        raise InputError(f"{name} ended with status {status}; see above, then repeat the command")
    return status
