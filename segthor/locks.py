"""Locks on folders, so that one process at a time writes into a folder."""

import contextlib
import errno
import fcntl
import os
import sys
import time

from segthor import files
from segthor.errors import InputError

# The workers of a run that was just killed hold its lock until they notice, a moment later.
_TIMEOUT_S = 3.0
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


@contextlib.contextmanager
def lock_folder(folder: str):
    """Locks a folder, which is made if missing, while the block runs.

    The kernel holds the lock, on the folder itself: it ends with the process, however that ends,
    and leaves no file. On file systems without locks the block runs without one: some network file
    systems, with a warning, and URLs.

    Raises:
      InputError: Another process holds the lock.
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
            if error.errno not in _HELD:
                print(
                    f"warning: {folder}: this file system has no locks ({error.strerror}); make "
                    "sure that no other process writes there",
                    file=sys.stderr,
                )
                return
        if time.monotonic() - began > _TIMEOUT_S:
            raise InputError(
                f"{folder}: another process is writing there; wait until it has ended, or choose "
                "another folder"
            )
        time.sleep(0.1)
