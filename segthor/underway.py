"""Notes about work in progress, so that the run after a killed one can name the patient.

A process that the system kills for lack of memory prints nothing, but its note remains.
"""

import contextlib
import sys
import uuid

from segthor import files

_PREFIX = f"{files.TEMPORARY_PREFIX}under-way-"


@contextlib.contextmanager
def keep_note(folder: str, text: str):
    """Keeps a note in `folder` while the block runs. Cheap: does not wait for the disk."""
    files.makedirs(folder)
    note = files.join(folder, f"{_PREFIX}{uuid.uuid4().hex}")
    with files.open_write(note) as stream:
        stream.write(text.encode(errors="backslashreplace"))
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            files.remove(note)


def warn_about_notes(folder: str) -> None:
    """Prints a warning for each note of a killed process, and removes the notes.

    No other process may be working in the folder.
    """
    for text in remove_notes(folder):
        print(
            f"warning: a process was killed while it worked on {text}; if that happens again, for "
            "lack of memory, lower --most_scan_gb or leave that patient out",
            file=sys.stderr,
        )


def remove_notes(folder: str) -> list[str]:
    """Removes the notes of killed processes and returns their texts, sorted.

    No other process may be working in the folder.
    """
    texts = []
    for path in files.temporary(folder):
        if files.name(path).startswith(_PREFIX):
            texts.append(files.read_bytes(path).decode(errors="replace"))
            files.remove(path)
    return sorted(filter(None, texts))
