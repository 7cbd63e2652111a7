"""The folder that a scoring program writes into: never an input's, one process at a time."""

import contextlib

from segthor import files, locks
from segthor.errors import InputError


@contextlib.contextmanager
def alone(folder: str, written: tuple[str, ...], inputs: dict[str, str | None]):
    """Keeps the folder for this process while the block runs, rid of what killed runs left there.

    written: names of the files that the program may write into it. inputs: path by flag, None where
    the flag was not given.

    Raises:
      InputError: no folder can be there, an input lies there, or another process writes there.
    """
    if not folder or (files.exists(folder) and not files.is_dir(folder)):
        found = "a file" if folder else "nothing"
        raise InputError(f"--output={folder}: expected a folder, found {found}")
    ours = [folder, *(files.join(folder, name) for name in written)]
    for flag, path in inputs.items():
        if path and any(files.is_same(path, own) for own in ours):
            raise InputError(f"--output={folder}: --{flag} is read there; choose another folder")
    with locks.alone(folder):
        for name in written:
            files.remove_partial(folder, f"-{name}")
        yield
