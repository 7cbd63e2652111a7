"""The one reader and writer of JSON files: keys in order, lines a person can compare, no NaN."""

import dataclasses
import json
import sys

from segthor import files
from segthor.errors import InputError


def read(path: str):
    """The file's JSON value; raises InputError where it is not JSON."""
    try:
        return json.loads(files.read_bytes(path).decode("utf-8-sig"), object_pairs_hook=_share_keys)
    except RecursionError as error:
        raise InputError(f"{path}: expected JSON of a few levels, found too many") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected JSON, found something else ({error})") from error


def write(path: str, value, durable: bool = True) -> None:
    """Writes `value` atomically, keys in the order given, one line per key and per list's item.

    Raises:
      ValueError: it holds NaN or an infinity, which no JSON can; nothing is written.
    """
    with files.atomic_write(path, durable=durable) as stream:
        for piece in _lines(value):
            stream.write(piece.encode())


def _share_keys(pairs) -> dict:
    """Keys are one string in all files, so that the rows of many small files fit into memory."""
    return {sys.intern(key): value for key, value in pairs}


def _text(value) -> str:
    return json.dumps(value, default=_fields, allow_nan=False)


def _fields(row) -> dict:
    """A dataclass's fields as they are; `asdict` and `vars` would leave copies of many rows."""
    return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}


def _lines(value):
    """Lines a person can read and compare, each made by the fast encoder."""
    if not isinstance(value, dict):
        yield _text(value) + "\n"
        return
    separator = "{\n"
    for key, item in value.items():
        yield f"{separator}{json.dumps(str(key))}: "
        separator = ",\n"
        if hasattr(item, "from_rows"):
            item = item.to_json()
        if isinstance(item, list | tuple) and item:
            yield "[\n "
            for number, row in enumerate(item):
                yield (",\n " if number else "") + _text(row)
            yield "\n]"
        else:
            yield _text(item)
    yield "\n}\n" if value else "{}\n"
