"""What a user may choose: fields of frozen dataclasses with default, meaning and range.

`segthor.flags_of` makes the flags of the programs from these fields.
"""

import dataclasses
import numbers
import typing

from segthor.errors import InputError

SEEDS = (0, 2**31 - 1)  # what every random generator used here takes
_WORDS = {bool: "true or false", tuple: "a list of names", str: "a text"}


def option(default, text: str, within: tuple = (), flag: str | None = None):
    """A dataclass's field that is a flag.

    within: For a number the lowest and the highest value, both included; for a text the values that
      it may have; empty: any.
    flag: The flag's name; None: the field's name.
    """
    metadata = {"help": text, "within": within} | ({"flag": flag} if flag else {})
    return dataclasses.field(default=default, metadata=metadata)


def required(text: str, flag: str | None = None):
    """A field that is a flag without a default: a text, or a list of names if typed as a tuple."""
    return option(dataclasses.MISSING, text, flag=flag)


def part(default, prefix: str):
    """A dataclass's field that is such a dataclass itself; `prefix` opens its flags' names."""
    return dataclasses.field(default=default, metadata={"prefix": prefix})


def flag_name(spec: dataclasses.Field) -> str:
    """What users call the field."""
    return spec.metadata.get("flag", spec.name)


def range_text(spec: dataclasses.Field) -> str:
    """'1 to 4096', 'one of adamw, sgd', or '' where the field may be anything of its kind."""
    within = spec.metadata["within"]
    if not within:
        return ""
    if isinstance(within[0], str):
        return f"one of {', '.join(within)}"
    return " to ".join(f"{end:g}" if isinstance(end, float) else str(end) for end in within)


def check(value) -> None:
    """Checks every option of a dataclass, for its `__post_init__`.

    Raises:
      InputError: one is of another kind or out of its range; NaN and infinity always are.
    """
    for spec in dataclasses.fields(value):
        if "within" in spec.metadata:
            found = getattr(value, spec.name)
            expected = range_text(spec) or _WORDS[kind_of(spec)]
            require(_fits(spec, found), flag_name(spec), expected, found)


def require(holds: bool, name: str, expected: str, found) -> None:
    """Raises InputError with what was expected and found, unless the condition holds."""
    if not holds:
        raise InputError(f"{name}: expected {expected}, found {found}")


def kind_of(spec: dataclasses.Field) -> type:
    """The type of an option's values: bool, int, float, tuple (of names) or str."""
    if spec.default is dataclasses.MISSING:
        return typing.get_origin(spec.type) or spec.type
    return str if spec.default is None else type(spec.default)


def _fits(spec, found) -> bool:
    default, within, kind = spec.default, spec.metadata["within"], kind_of(spec)
    if kind is bool:
        return isinstance(found, bool)
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        right = isinstance(found, number) and not isinstance(found, bool)
        return right and within[0] <= found <= within[1]
    if kind is tuple:
        return isinstance(found, tuple) and all(isinstance(one, str) for one in found)
    return found in within if within else found is default or isinstance(found, str)
