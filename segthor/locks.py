"""One process at a time writes into a folder."""

import contextlib
import errno
import fcntl
import os
import time

from segthor import files
from segthor.errors import InputError

# The workers of a run that was just killed hold its lock until they notice, a moment later.
_PATIENCE_S = 3.0
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


@contextlib.contextmanager
def alone(folder: str):
    """Keeps other processes out of a folder, which is made if missing, while the block runs.

    The lock is the kernel's, on the folder itself: it ends with the process in whatever way that
    ends, and leaves no file. Where there are no such locks (another file system than the local one,
    some network file systems) the block runs without.

    Raises:
      InputError: another process is at work there.
    """
    if files.is_url(folder):
        yield
        return
    files.makedirs(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: str) -> None:
    began = time.monotonic()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in _HELD:  # no locks on this file system
                return
        if time.monotonic() - began > _PATIENCE_S:
            raise InputError(
                f"{folder}: another process is writing there; wait until it has ended, or choose "
                "another folder"
            )
        time.sleep(0.1)
