"""Notes of what is under way, so that the run after one that was killed can name it.

A process that the system ends for lack of memory says nothing. Its note stays.
"""

import contextlib
import sys
import uuid

from segthor import files

_PREFIX = f"{files.TEMPORARY_PREFIX}under-way-"


@contextlib.contextmanager
def noted(folder: str, what: str):
    """Keeps a note in `folder` while the block runs. Cheap: nothing waits for the disk."""
    files.makedirs(folder)
    note = files.join(folder, f"{_PREFIX}{uuid.uuid4().hex}")
    with files.open_write(note) as stream:
        stream.write(what.encode(errors="backslashreplace"))
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            files.remove(note)


def warn(folder: str) -> None:
    """Says what killed processes had under way, and forgets it. None may be at work there."""
    for what in left_behind(folder):
        print(
            f"warning: a process was ended in the midst of {what}; if that happens again, for lack "
            "of memory, lower --most_scan_gb or leave that patient out",
            file=sys.stderr,
        )


def left_behind(folder: str) -> list[str]:
    """What killed processes had under way; their notes are removed. None may be at work there."""
    found = []
    for path in files.temporary(folder):
        if files.name(path).startswith(_PREFIX):
            found.append(files.read_bytes(path).decode(errors="replace"))
            files.remove(path)
    return sorted(filter(None, found))
