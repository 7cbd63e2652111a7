"""Makes frozen dataclasses from JSON values; checks every field against its type."""

import dataclasses
import functools
import math
import sys
import types
import typing

from segthor.errors import InputError


def from_json(kind, value, where: str):
    """Converts a JSON value to the type `kind`, usually a dataclass.

    Types may be str, int (0 or more, unless the field is an option with a range), float (finite),
    bool, dict, tuples and dicts of these, dataclasses, and unions with None. Fields with a default
    may be missing.

    Args:
      kind: The type.
      value: The value that `json` returned.
      where: Start of an error's message, such as the path of the file.

    Raises:
      InputError: A field is missing, unknown or of another type; the message names it.
    """
    try:
        return _reader(kind)(value)
    except _Wrong as error:
        text = str(error)
        raise InputError(where + (f": {text[1:]}" if text.startswith(".") else text)) from error


class _Wrong(Exception):
    """A problem; the message starts with its path in the value, as in '.shards[3].bytes: ...'."""


@functools.cache
def _reader(hint):
    """A function that checks a JSON value against a type and converts it."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hasattr(hint, "from_rows"):  # a dataclass that is a list in JSON
        return functools.partial(_rows, hint)
    if hint in _LEAVES:
        return functools.partial(_leaf, *_LEAVES[hint])
    if origin is dict:
        return functools.partial(_dict, inner[1])
    if origin in (typing.Union, types.UnionType):
        (present,) = (_reader(one) for one in inner if one is not types.NoneType)
        return lambda value: None if value is None else present(value)
    if origin is tuple:
        return functools.partial(_tuple, inner)
    names = typing.get_type_hints(hint)
    readers = {
        field.name: _field_reader(field, names[field.name]) for field in dataclasses.fields(hint)
    }
    needed = {
        field.name
        for field in dataclasses.fields(hint)
        if field.default is field.default_factory is dataclasses.MISSING
    }
    return functools.partial(_dataclass, hint, readers, needed)


def _leaf(expected: str, fits, value):
    if not fits(value):
        raise _Wrong(f": expected {expected}, found {_short(value)}")
    return value


def _rows(hint, value):
    try:
        return hint.from_rows(value)
    except InputError as error:
        raise _Wrong(f": {error}") from error


def _field_reader(field, hint):
    ranged = "within" in field.metadata  # an option checks its own range, which may be negative
    return functools.partial(_leaf, *_WHOLE) if hint is int and ranged else _reader(hint)


def _dict(inner, value):
    reader = _reader(inner)
    pairs = _reader(dict)(value).items()
    return {name: _read_at("[{!r}]", name, reader, item) for name, item in pairs}


def _tuple(inner, value):
    if not isinstance(value, list | tuple):
        raise _Wrong(f": expected a list, found {_short(value)}")
    if inner[-1] is not Ellipsis and len(inner) != len(value):
        raise _Wrong(f": expected {len(inner)} values, found {len(value)}")
    readers = [_reader(one) for one in inner if one is not Ellipsis]
    readers = readers * (len(value) if inner[-1] is Ellipsis else 1)
    # Lists in many rows hold the same few names; interning stores each of them once.
    items = [sys.intern(item) if type(item) is str else item for item in value]
    return tuple(
        _read_at("[{}]", number, reader, item)
        for number, (reader, item) in enumerate(zip(readers, items, strict=True))
    )


def _dataclass(kind, readers, needed, value):
    if not isinstance(value, dict):
        raise _Wrong(f": expected an object, found {_short(value)}")
    for name in sorted(needed - value.keys()):
        raise _Wrong(f".{name}: missing")
    values = {}
    for name, item in value.items():
        if name not in readers:
            raise _Wrong(f".{name}: unknown; another version of this program wrote it")
        values[name] = _read_at(".{}", name, readers[name], item)
    try:
        return kind(**values)
    except InputError as error:
        raise _Wrong(f": {error}") from error


def _read_at(place: str, key, reader, item):
    """reader(item); the path of a problem then starts with the place, formatted with the key."""
    try:
        return reader(item)
    except _Wrong as error:
        raise _Wrong(f"{place.format(key)}{error}") from None


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_WHOLE = ("a whole number", lambda value: type(value) is int)
_LEAVES = {
    str: ("a text", lambda value: type(value) is str),
    int: ("a whole number from 0 on", lambda value: type(value) is int and value >= 0),
    float: ("a finite number", lambda v: type(v) in (int, float) and math.isfinite(v)),
    bool: ("true or false", lambda value: type(value) is bool),
    dict: ("an object", lambda value: type(value) is dict),
}
