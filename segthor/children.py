"""Processes that a program of ours starts: they end with it, in whatever way it ends."""

import ctypes
import functools
import os
import signal
import subprocess
import sys

_PR_SET_PDEATHSIG = 1


def start(command: list[str], **options) -> subprocess.Popen:
    """Starts a command as `subprocess.Popen` does; on Linux it ends with this process.

    To be called in the main thread: Linux ends the command with the thread that started it.
    """
    parent = os.getpid()
    return subprocess.Popen(command, preexec_fn=functools.partial(end_with, parent), **options)


def end_with(parent: int) -> None:
    """Has Linux end this process when its parent ends; elsewhere it does nothing.

    Without it a process would go on after a kill -9 of its parent and keep its folder's lock.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(128 + signal.SIGKILL)
