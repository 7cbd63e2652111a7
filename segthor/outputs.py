"""Checks of output paths: programs overwrite neither their inputs nor files of other programs.

A program checks its output before it reads an input. An empty path is refused: it is the result of
`--output=$FOLDER` where the shell's variable is not set.
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

SOFTWARE = "segthor"  # written into each picture and page, so that programs recognize their own
_HEAD_BYTES = 1 << 16
_MOST_PATH_BYTES = 4000  # Linux allows 4096, which include the names of files in the folder
DATASET, PHANTOMS, RUN, PREDICTIONS = "a dataset", "phantoms", "a run", "predictions"
MODEL = "a model"

Kind = Callable[[str], bool]  # whether the content of the file at a path is of this kind


def check_folder(
    path: str | None,
    inputs: Mapping[str, str | Iterable[str] | None],
    own: str = "",
    written: Mapping[str, Kind] | None = None,
    flag: str = "output",
) -> None:
    """Checks a folder that a program is going to write into.

    Args:
      path: The folder; it need not exist.
      inputs: Flag to its path or paths. Neither the folder nor a file of `written` may be one of
        them. A folder inside an input is allowed: readers of patients skip predictions and scores.
      own: The result that the program makes of the whole folder, one of the constants above. A
        folder that is another result, or lies inside any result, is refused.
      written: Name to kind of each file that the program writes into the folder. Existing files of
        these names must be of this kind.
      flag: The flag that gave the path.

    Raises:
      InputError: The program must not write into the folder.
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
) -> None:
    """Checks a file that a program is going to write.

    Args:
      path: The file; it need not exist.
      ending: The required end of its name.
      kind: The kind that an existing file must have.
      inputs: As in `check_folder`.

    Raises:
      InputError: It has another ending, is an input, lies in a result, or is of another kind.
    """
    _check_named(path, "output", f"a file {ending}")
    if not path.lower().endswith(ending) or files.is_dir(path):
        raise InputError(f"--output={path}: expected the name of a file that ends in {ending}")
    _check_inputs(path, inputs, "output")
    for folder, result in _results_about(files.parent(path)):
        raise InputError(f"--output={path}: {folder} is {result}; name another folder")
    check_files(files.parent(path), {files.name(path): kind})


def check_files(folder: str, written: Mapping[str, Kind], flag: str = "output") -> None:
    """Raises InputError where a file of one of these names exists and is of another kind."""
    for name, is_kind in written.items():
        path = files.join(folder, name)
        if files.exists(path) and not is_kind(path):
            raise InputError(
                f"--{flag}: {path} exists and was not written by this program; move it, or name "
                "another folder"
            )


@contextlib.contextmanager
def lock_folder(folder: str, written: Iterable[str]):
    """Locks the folder while the block runs.

    written: Names of files; their temporary files, of runs that were killed, are removed.
    """
    with locks.lock_folder(folder):
        for name in written:
            files.remove_partial(folder, f"-{name}")
        yield


class Staging:
    """Files that get their final names together, once all of them are written.

    A context manager: files that were not published are removed at its end.
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
        """The temporary path to which the file `final` must be written."""
        self._staged.append((files.partial_path(final), final))
        return self._staged[-1][0]

    def publish(self) -> None:
        """Renames the files that were written, in the order of the calls of `path`."""
        for staged, final in self._staged:
            if files.exists(staged):
                files.move(staged, final)


def csv_with(*columns: str) -> Kind:
    """The kind of a CSV of ours whose header has these columns."""

    def is_kind(path: str) -> bool:
        header = _head(path).partition(b"\n")[0].decode(errors="replace")
        return set(columns) <= set(next(csv.reader([header]), ()))

    return is_kind


def json_with(*keys: str) -> Kind:
    """The kind of a JSON object of ours that starts with these keys."""

    def is_kind(path: str) -> bool:
        first = re.findall(rb'^"(\w+)": ', _head(path), re.MULTILINE)
        return set(keys) <= {key.decode() for key in first}

    return is_kind


def json_rows_with(*keys: str) -> Kind:
    """The kind of a JSON list whose first row is an object that starts with these keys."""
    expected = ", ".join(rf'"{key}": [^,]*' for key in keys)
    return lambda path: bool(re.match(rf"\[(\{{{expected}|\])".encode(), _head(path)))


def picture(path: str) -> bool:
    """Whether the file is a PNG or GIF of ours."""
    head = _head(path)
    return head.startswith((b"\x89PNG", b"GIF8")) and SOFTWARE.encode() in head


def page(path: str) -> bool:
    """Whether the file is an HTML page of ours."""
    return f'<meta name="generator" content="{SOFTWARE}"'.encode() in _head(path)


def archive_of(ending: str) -> Kind:
    """The kind of a zip that holds nothing but files with this ending, at its root."""

    def is_kind(path: str) -> bool:
        try:
            with files.open_read(path) as stream, zipfile.ZipFile(stream) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, OSError):
            return False
        return all(name.endswith(ending) and "/" not in name for name in names)

    return is_kind


def dicom_object(path: str, model: str) -> bool:
    """Whether the file is a DICOM object of ours that names `model` as its origin."""
    head = _head(path)
    ours = head[128:132] == b"DICM" and SOFTWARE.upper().encode() in head[:1024]
    return ours and model.encode() in head


# File that identifies a folder as a result: the result, and the kind of the file.
_RESULTS = {
    "dataset.json": (DATASET, json_with("format", "recipe")),
    "phantoms.json": (PHANTOMS, json_with("size", "seed", "patients")),
    "predictions.json": (PREDICTIONS, json_with("format", "models")),
    "run.json": (RUN, json_with("config", "recipe")),
}


def result_in(folder: str) -> str:
    """The result that a folder is, by its content: one of the constants above, or ''."""
    if files.exists(files.join(folder, "saved_model.pb")):
        return MODEL
    for name, (result, is_kind) in _RESULTS.items():
        path = files.join(folder, name)
        if files.exists(path) and is_kind(path):
            return result
    return ""


def _holds_versions(folder: str) -> bool:
    """Whether the folder holds versions of a model."""
    names = files.entries(folder)[1] if files.is_dir(folder) else []
    return any(result_in(files.join(folder, name)) == MODEL for name in names if name.isdecimal())


def _results_about(folder: str) -> list[tuple[str, str]]:
    """(folder, result) of the folder itself and its parents, where they are results."""
    own = MODEL if _holds_versions(folder) else result_in(folder)
    pairs = [(folder, own), *((parent, result_in(parent)) for parent in _parents(folder))]
    # Phantoms are patients, and results may lie in a folder of patients.
    return [(at, result) for at, result in pairs if result and (result != PHANTOMS or at == folder)]


def _parents(folder: str) -> list[str]:
    if files.is_url(folder):  # the two nearest only, because each check is a request
        scheme, _, inner = folder.partition("://")
        return [f"{scheme}://{one}" for one in PurePosixPath(inner).parents if one.name][:2]
    return list(map(str, Path(os.path.abspath(folder)).parents))


def _check_named(path: str | None, flag: str, expected: str) -> None:
    if not path or not path.strip():
        raise InputError(f"--{flag}={path or ''}: expected the name of {expected}, found nothing")
    if "\0" in path:  # as from a flag file
        raise InputError(f"--{flag}={path!r}: expected the name of {expected}, found a zero byte")
    if len(path.encode(errors="surrogatepass")) > _MOST_PATH_BYTES:
        found = f"{path[:40]}... of {len(path)} characters"
        raise InputError(
            f"--{flag}: expected a path of at most {_MOST_PATH_BYTES} bytes, found {found}"
        )


def _check_inputs(path: str, inputs: Mapping, flag: str, written: Iterable[str] = ()) -> None:
    outputs = [path, *(files.join(path, name) for name in written)]
    for name, given in inputs.items():
        for source in [given] if isinstance(given, str) else given or ():
            if source and any(files.is_same(one, source) for one in outputs):
                raise InputError(f"--{flag}={path}: --{name} is read there; name another path")


def _head(path: str) -> bytes:
    with files.open_read(path, block_bytes=_HEAD_BYTES) as stream:
        return stream.read(_HEAD_BYTES)
