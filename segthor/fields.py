"""Frozen dataclasses from JSON: every field checked against its type, whatever a file holds."""

import dataclasses
import functools
import math
import sys
import types
import typing

from segthor.errors import InputError


def from_json(kind, value, where: str):
    """A value of the type `kind`, most often a dataclass, from a JSON value.

    Types may be str, int (from 0 on, as all counts in our files are; an option has a range of its
    own), float (finite), bool, dict, tuples and dicts of these, dataclasses, and any of them or
    None. Fields with a default may be missing.

    Args:
      kind: The type.
      value: What `json` gives.
      where: The beginning of an error's message, such as the file's path.

    Raises:
      InputError: a field that is missing, unknown or of another type; names it.
    """
    try:
        return _reader(kind)(value)
    except _Wrong as error:
        text = str(error)
        raise InputError(where + (f": {text[1:]}" if text.startswith(".") else text)) from error


class _Wrong(Exception):
    """What is wrong, after the way to it from the outermost value: '.shards[3].bytes: ...'."""


@functools.cache
def _reader(hint):
    """A function that checks a JSON value against a type and gives that type's value."""
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
    ranged = "within" in field.metadata  # an option checks its range, which may begin below 0
    return functools.partial(_leaf, *_WHOLE) if hint is int and ranged else _reader(hint)


def _dict(inner, value):
    reader, values = _reader(inner), {}
    for name, item in _reader(dict)(value).items():
        try:
            values[name] = reader(item)
        except _Wrong as error:
            raise _Wrong(f"[{name!r}]{error}") from None
    return values


def _tuple(inner, value):
    if not isinstance(value, list | tuple):
        raise _Wrong(f": expected a list, found {_short(value)}")
    if inner[-1] is not Ellipsis and len(inner) != len(value):
        raise _Wrong(f": expected {len(inner)} values, found {len(value)}")
    readers = [_reader(one) for one in inner if one is not Ellipsis]
    readers = readers * (len(value) if inner[-1] is Ellipsis else 1)
    items = []
    for reader, item in zip(readers, value, strict=True):
        try:
            # The strings in lists are the same few names in many rows: held once.
            items.append(reader(sys.intern(item) if type(item) is str else item))
        except _Wrong as error:
            raise _Wrong(f"[{len(items)}]{error}") from None
    return tuple(items)


def _dataclass(kind, readers, needed, value):
    if not isinstance(value, dict):
        raise _Wrong(f": expected an object, found {_short(value)}")
    for name in sorted(needed - value.keys()):
        raise _Wrong(f".{name}: missing")
    values = {}
    for name, item in value.items():
        if name not in readers:
            raise _Wrong(f".{name}: unknown; another version of this program wrote it")
        try:
            values[name] = readers[name](item)
        except _Wrong as error:
            raise _Wrong(f".{name}{error}") from None
    try:
        return kind(**values)
    except InputError as error:
        raise _Wrong(f": {error}") from error


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_count(value) -> bool:
    return type(value) is int and value >= 0


def _is_finite(value) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


_WHOLE = ("a whole number", lambda value: type(value) is int)
_LEAVES = {
    str: ("a text", lambda value: type(value) is str),
    int: ("a whole number from 0 on", _is_count),
    float: ("a finite number", _is_finite),
    bool: ("true or false", lambda value: type(value) is bool),
    dict: ("an object", lambda value: type(value) is dict),
}
