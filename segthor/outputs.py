"""The one door for the paths that programs write to: no input, and nothing that is not ours.

A program checks its output before it reads an input. An empty path is what an unset variable of a
shell leaves of `--output=$FOLDER`.
"""

import contextlib
import csv
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

from segthor import files, locks
from segthor.errors import InputError

SOFTWARE = "segthor"  # in each picture and page, so that a program knows its own
_HEAD_BYTES = 1 << 16
DATASET, PHANTOMS, RUN, PREDICTIONS = "a dataset", "phantoms", "a run", "predictions"
MODEL = "a model"

Kind = Callable[[str], bool]  # whether the file at a path is of this kind, by its content


def check_folder(
    path: str | None,
    inputs: Mapping[str, str | Iterable[str] | None],
    own: str = "",
    written: Mapping[str, Kind] | None = None,
    flag: str = "output",
) -> None:
    """Checks a folder that a program is about to write into.

    Args:
      path: The folder; it may be new.
      inputs: Flag to its path or paths; neither the folder nor a file of `written` may be one. It
        may lie inside a folder of patients, where predictions and scores are passed over.
      own: What the program makes of a whole folder, one of the constants above. A folder or file
        that holds another of these results is refused, and one inside any of them.
      written: Name of each file that the program writes in the folder, to its kind; such a file
        that is there already must be of this kind.
      flag: The flag that named the folder.

    Raises:
      InputError: The folder cannot be written to for one of these reasons.
    """
    _check_named(path, flag, "a folder")
    if files.exists(path) and not files.is_dir(path):
        raise InputError(f"--{flag}={path}: expected a folder, found a file")
    _check_inputs(path, inputs, flag, written or ())
    for folder, result in _results_about(path):
        if folder != path or result != own:
            raise InputError(f"--{flag}={path}: {folder} is {result}; name another folder")
    check_files(path, written or {}, flag)


def check_file(
    path: str | None,
    ending: str,
    kind: Kind,
    inputs: Mapping[str, str | Iterable[str] | None],
    flag: str = "output",
) -> None:
    """Checks a file that a program is about to write; `kind` is what may be there already.

    Raises:
      InputError: It has another ending, is an input, lies in a result, or another file is there.
    """
    _check_named(path, flag, f"a file {ending}")
    if not path.lower().endswith(ending) or files.is_dir(path):
        raise InputError(f"--{flag}={path}: expected the name of a file that ends in {ending}")
    _check_inputs(path, inputs, flag)
    for folder, result in _results_about(files.parent(path)):
        raise InputError(f"--{flag}={path}: {folder} is {result}; name another folder")
    check_files(files.parent(path), {files.name(path): kind}, flag)


def check_files(folder: str, written: Mapping[str, Kind], flag: str = "output") -> None:
    """Raises InputError where a file of one of these names is there and of another kind."""
    for name, is_kind in written.items():
        path = files.join(folder, name)
        if files.exists(path) and not is_kind(path):
            raise InputError(
                f"--{flag}: {path} is there and was not written by this program; move it, or name "
                "another place"
            )


@contextlib.contextmanager
def alone(folder: str, written: Iterable[str]):
    """Keeps other processes out of the folder while the block runs.

    Removes what killed runs left of the files that are named in `written`.
    """
    with locks.alone(folder):
        for name in written:
            files.remove_partial(folder, f"-{name}")
        yield


class Staging:
    """Files that get their final names together, when all of them are written.

    Leaving the block removes those that were not published.
    """

    def __init__(self):
        self._staged: list[tuple[str, str]] = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for staged, _ in self._staged:
            if files.exists(staged):
                files.remove(staged)

    def path(self, final: str) -> str:
        """Where to write the file that is to be called `final`."""
        self._staged.append((files.partial_path(final), final))
        return self._staged[-1][0]

    def publish(self) -> None:
        """Renames the files that were written, in the order in which `path` named them."""
        for staged, final in self._staged:
            if files.exists(staged):
                files.move(staged, final)


def csv_with(*columns: str) -> Kind:
    """A CSV whose header has these columns, as our own writer writes it."""

    def is_kind(path: str) -> bool:
        header = _head(path).partition(b"\n")[0].decode(errors="replace")
        return set(columns) <= set(next(csv.reader([header]), ()))

    return is_kind


def json_with(*keys: str) -> Kind:
    """A JSON object that begins with these keys, as our own writer writes it."""

    def is_kind(path: str) -> bool:
        begun = re.findall(rb'^"(\w+)": ', _head(path), re.MULTILINE)
        return set(keys) <= {key.decode() for key in begun}

    return is_kind


def json_rows_with(*keys: str) -> Kind:
    """A JSON list whose first row is an object that begins with these keys."""
    expected = ", ".join(rf'"{key}": [^,]*' for key in keys)
    return lambda path: bool(re.match(rf"\[(\{{{expected}|\])".encode(), _head(path)))


def picture(path: str) -> bool:
    """Whether it is a PNG or GIF of ours."""
    head = _head(path)
    return head.startswith((b"\x89PNG", b"GIF8")) and SOFTWARE.encode() in head


def page(path: str) -> bool:
    """Whether it is an HTML page of ours."""
    return f'<meta name="generator" content="{SOFTWARE}"'.encode() in _head(path)


def archive_of(ending: str) -> Kind:
    """A zip of files with this ending alone, at its root."""

    def is_kind(path: str) -> bool:
        try:
            with files.open_read(path) as stream, zipfile.ZipFile(stream) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, OSError):
            return False
        return all(name.endswith(ending) and "/" not in name for name in names)

    return is_kind


def dicom_object(path: str, model: str) -> bool:
    """Whether it is a DICOM object that this software made of `model`, which its origin names."""
    head = _head(path)
    ours = head[128:132] == b"DICM" and SOFTWARE.upper().encode() in head[:1024]
    return ours and model.encode() in head


# File that marks a whole folder as a result: what it then is, and how the file begins.
_MARKS = {
    "dataset.json": (DATASET, json_with("format", "recipe")),
    "phantoms.json": (PHANTOMS, json_with("size", "seed", "patients")),
    "predictions.json": (PREDICTIONS, json_with("format", "models")),
    "run.json": (RUN, json_with("config", "recipe")),
}


def result_in(folder: str) -> str:
    """What a folder is as a whole, by its content: one of the constants above, or ''."""
    if files.exists(files.join(folder, "saved_model.pb")):
        return MODEL
    for name, (result, is_kind) in _MARKS.items():
        path = files.join(folder, name)
        if files.exists(path) and is_kind(path):
            return result
    return ""


def _holds_versions(folder: str) -> bool:
    """Whether it is the folder of a model's versions."""
    names = files.entries(folder)[1] if files.is_dir(folder) else []
    return any(result_in(files.join(folder, name)) == MODEL for name in names if name.isdecimal())


def _results_about(folder: str) -> list[tuple[str, str]]:
    """(folder, what it is) of the folder itself and of those above it that are results."""
    own = MODEL if _holds_versions(folder) else result_in(folder)
    named = [(folder, own), *((above, result_in(above)) for above in _above(folder))]
    # Phantoms are patients, and results may lie in a folder of patients.
    return [(at, what) for at, what in named if what and (what != PHANTOMS or at == folder)]


def _above(folder: str) -> list[str]:
    if files.is_url(folder):  # the two nearest: each question is a request
        scheme, _, inner = folder.partition("://")
        above = PurePosixPath(inner).parents
        return [f"{scheme}://{one}" for one in above if one.name][:2]
    return [str(above) for above in Path(os.path.abspath(folder)).parents]


def _check_named(path: str | None, flag: str, expected: str) -> None:
    if not path or not path.strip():
        raise InputError(f"--{flag}={path or ''}: expected the name of {expected}, found nothing")


def _check_inputs(path: str, inputs: Mapping, flag: str, written: Iterable[str] = ()) -> None:
    places = [path, *(files.join(path, name) for name in written)]
    for name, given in inputs.items():
        for place in [given] if isinstance(given, str) else given or ():
            if place and any(files.is_same(one, place) for one in places):
                raise InputError(f"--{flag}={path}: --{name} is read there; name another place")


def _head(path: str) -> bytes:
    with files.open_read(path, block_bytes=_HEAD_BYTES) as stream:
        return stream.read(_HEAD_BYTES)
