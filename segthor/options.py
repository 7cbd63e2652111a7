"""Options: fields of frozen dataclasses with a default, a help text and a range.

`segthor.flags_of` makes the flags of the programs from these fields.
"""

import dataclasses
import numbers
import typing

from segthor.errors import InputError

SEEDS = (0, 2**31 - 1)  # the range that every random generator used here accepts
_WORDS = {bool: "true or false", tuple: "a list of names", str: "a text"}


def option(default, text: str, within: tuple = (), flag: str | None = None):
    """A field of a dataclass that is a flag.

    Args:
      default: The default.
      text: Help text of the flag.
      within: Lowest and highest value of a number, both included, or all values of a text; empty:
        any.
      flag: Name of the flag; None: that of the field.
    """
    metadata = {"help": text, "within": within} | ({"flag": flag} if flag else {})
    return dataclasses.field(default=default, metadata=metadata)


def required(text: str, flag: str | None = None):
    """A field that is a required flag: a text, or a list of names if its type is a tuple."""
    return option(dataclasses.MISSING, text, flag=flag)


def part(default, prefix: str):
    """A field that is a dataclass with options; its flags' names start with `prefix`."""
    return dataclasses.field(default=default, metadata={"prefix": prefix})


def flag_name(spec: dataclasses.Field) -> str:
    """The name of the field's flag, without prefixes."""
    return spec.metadata.get("flag", spec.name)


def range_text(spec: dataclasses.Field) -> str:
    """'1 to 4096', 'one of adamw, sgd', or '' where the field has no range."""
    within = spec.metadata["within"]
    if not within:
        return ""
    if isinstance(within[0], str):
        return f"one of {', '.join(within)}"
    return " to ".join(f"{end:g}" if isinstance(end, float) else str(end) for end in within)


def check(value) -> None:
    """Checks every option of a dataclass; to be called in its `__post_init__`.

    Raises:
      InputError: An option has another type or is out of its range; NaN and infinity always are.
    """
    for spec in dataclasses.fields(value):
        if "within" in spec.metadata:
            given = getattr(value, spec.name)
            expected = range_text(spec) or _WORDS[kind_of(spec)]
            require(_fits(spec, given), flag_name(spec), expected, given)


def require(condition: bool, name: str, expected: str, given) -> None:
    """Raises InputError '`name`: expected ..., found ...' unless the condition holds."""
    if not condition:
        raise InputError(f"{name}: expected {expected}, found {given}")


def kind_of(spec: dataclasses.Field) -> type:
    """The type of an option's values: bool, int, float, tuple (of names) or str."""
    if spec.default is dataclasses.MISSING:
        return typing.get_origin(spec.type) or spec.type
    return str if spec.default is None else type(spec.default)


def _fits(spec, value) -> bool:
    default, within, kind = spec.default, spec.metadata["within"], kind_of(spec)
    if kind is bool:
        return isinstance(value, bool)
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        is_number = isinstance(value, number) and not isinstance(value, bool)
        return is_number and within[0] <= value <= within[1]
    if kind is tuple:
        return isinstance(value, tuple) and all(isinstance(one, str) for one in value)
    return value in within if within else value is default or isinstance(value, str)
