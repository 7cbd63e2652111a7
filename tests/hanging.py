"""A file that whoever opens it waits for, as on a network that is gone."""

import contextlib
import fcntl
import os
import signal

import pytest


@contextlib.contextmanager
def file(path):
    """Writes a file, and makes other processes wait in `open` (45 s on Linux as it is set up).

    A pipe would not do: only regular files are opened.
    """
    path.write_bytes(b"x")
    descriptor = os.open(path, os.O_RDWR)
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # "somebody opens it"
    try:
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except (AttributeError, OSError):
            pytest.skip("no leases on this file system")
        yield
    finally:
        os.close(descriptor)
        signal.signal(signal.SIGIO, before)
