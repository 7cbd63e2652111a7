"""The configurations that come with the package: flag files, and tables of organs.

They are the checkout's folder configs/; a wheel holds a copy. `configs/x.flags` in a command names
the user's own file where there is one, and else the package's, so that the commands of the
documentation work in any folder.
"""

import os
from pathlib import Path

PACKAGED = "config_files"  # the copy's folder inside this package; setup.py makes it
_NAMED = "configs"  # how commands and flag files name the folder
_PACKAGE = Path(__file__).resolve().parent
_FLAGFILE = ("--flagfile", "-flagfile")


def folder() -> Path:
    """The folder of the configurations."""
    packaged = _PACKAGE / PACKAGED
    return packaged if packaged.is_dir() else _PACKAGE.parent / _NAMED


def resolve(path: str) -> str:
    """The path; of a file configs/... that does not exist, the package's file of that name."""
    first, *inner = Path(path).parts or ("",)
    packaged = folder().joinpath(*inner)
    missing = first == _NAMED and inner and ".." not in inner and not os.path.exists(path)
    return str(packaged) if missing and packaged.is_file() else path


def expand_flagfiles(arguments, including: tuple[str, ...] = ()) -> list[str]:
    """The arguments of a program, with the lines of each flag file in place of --flagfile=FILE.

    As absl does it, but files are found by `resolve`. A file that cannot be read, or that includes
    itself, stays as it is, so that absl says so.

    including: The flag files that lead here.
    """
    expanded, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":  # what follows is no flag
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
    with open(path, errors="replace") as stream:
        lines = [line.strip() for line in stream]
    return [line for line in lines if line and not line.startswith(("#", "//"))]
