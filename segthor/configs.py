"""The configurations of the package: flag files and tables of organs.

They are in the checkout's folder configs/; a wheel contains a copy. `configs/x.flags` in a command
is the user's own file if it exists, otherwise the package's, so that the commands of the
documentation work in any folder.
"""

import os
from pathlib import Path

PACKAGED = "config_files"  # folder of the copy inside this package; made by setup.py
_NAMED = "configs"  # name of the folder in commands and flag files
_PACKAGE = Path(__file__).resolve().parent
_FLAGFILE = ("--flagfile", "-flagfile")


def folder() -> Path:
    """The folder of the configurations."""
    packaged = _PACKAGE / PACKAGED
    return packaged if packaged.is_dir() else _PACKAGE.parent / _NAMED


def resolve(path: str) -> str:
    """The path, or the package's file for a path configs/... that does not exist."""
    first, *inner = Path(path).parts or ("",)
    packaged = folder().joinpath(*inner)
    missing = first == _NAMED and inner and ".." not in inner and not os.path.exists(path)
    return str(packaged) if missing and packaged.is_file() else path


def expand_flagfiles(arguments, including: tuple[str, ...] = ()) -> list[str]:
    """Replaces --flagfile=FILE in a program's arguments by the lines of the file.

    Works like absl, but finds files with `resolve`. A file that cannot be read, or that includes
    itself, is not replaced, so that absl reports it.

    including: The flag files that include the one of these arguments.
    """
    expanded, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":  # no flags follow
            return [*expanded, argument, *rest]
        name, _, path = argument.partition("=")
        if name in _FLAGFILE and not path and rest:  # --flagfile FILE
            path = rest.pop(0)
            argument = f"{name}={path}"
        path = resolve(os.path.expanduser(path.strip()))
        if name not in _FLAGFILE or path in including or not os.path.isfile(path):
            expanded.append(argument)
        else:
            expanded += expand_flagfiles(_flags_in(path), (*including, path))
    return expanded


def _flags_in(path: str) -> list[str]:
    """The lines of a flag file, without comments and empty lines."""
    with open(path, encoding="utf-8") as stream:
        lines = [line.strip() for line in stream]
    return [line for line in lines if line and not line.startswith(("#", "//"))]
