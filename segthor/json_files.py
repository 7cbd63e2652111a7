"""Reads and writes JSON files: keys in the given order, one line per key or row, no NaN."""

import dataclasses
import json
import sys

from segthor import files
from segthor.errors import InputError


def read(path: str):
    """Reads a JSON file; raises InputError where it cannot be read or is not JSON."""
    try:
        return json.loads(files.read_bytes(path).decode("utf-8-sig"), object_pairs_hook=_share_keys)
    except RecursionError as error:
        raise InputError(f"{path}: expected JSON of a few levels, found too many") from error
    except ValueError as error:
        raise InputError(f"{path}: expected JSON, found something else ({error})") from error


def write(path: str, value, durable: bool = True) -> None:
    """Writes `value` atomically; one line per key, and per item of a list under a key.

    value: JSON values and dataclasses. durable: See `files.atomic_write`.

    Raises:
      ValueError: It contains NaN or infinity, which JSON does not have; nothing is written.
    """
    with files.atomic_write(path, durable=durable) as stream:
        for piece in _lines(value):
            stream.write(piece.encode())


def _share_keys(pairs) -> dict:
    """Stores equal keys as one string, so that the rows of many small files fit into memory."""
    return {sys.intern(key): value for key, value in pairs}


def _text(value) -> str:
    return json.dumps(value, default=_fields, allow_nan=False)


def _fields(row) -> dict:
    """The fields of a dataclass, without the copies that `asdict` makes.

    A field with the metadata `omit_none` is left out where it is None.
    """
    return {
        field.name: getattr(row, field.name)
        for field in dataclasses.fields(row)
        if "omit_none" not in field.metadata or getattr(row, field.name) is not None
    }


def _lines(value):
    """Yields the text in pieces, each encoded by the fast C encoder."""
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
