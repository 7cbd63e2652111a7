"""Starts processes that end with the program that started them, however that ends."""

import ctypes
import functools
import os
import signal
import subprocess
import sys

_PR_SET_PDEATHSIG = 1


def start(command: list[str], **options) -> subprocess.Popen:
    """Starts a command as `subprocess.Popen` does; on Linux it ends with this process.

    Must be called in the main thread: Linux ends the command with the thread that started it.
    """
    parent = os.getpid()
    return subprocess.Popen(command, preexec_fn=functools.partial(end_with, parent), **options)


def end_with(parent: int) -> None:
    """Makes Linux end this process when its parent ends; does nothing on other systems.

    Without it a process would continue after a kill -9 of its parent and keep its folder's lock.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the call above
        os._exit(128 + signal.SIGKILL)
