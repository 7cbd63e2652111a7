"""Makes flags from the options of a dataclass, and the dataclass from the flags; for entries."""

import dataclasses

from absl import flags

from segthor import options
from segthor.errors import InputError

flags.disclaim_key_flags()  # the flags belong to the entry, which lists them with --help


def define(kind, prefix: str = "") -> None:
    """Defines a flag for each option of the dataclass and of the dataclasses in it."""
    for spec in dataclasses.fields(kind):
        if "prefix" in spec.metadata:
            define(type(spec.default), prefix + spec.metadata["prefix"])
        elif "help" in spec.metadata:
            _define(spec, prefix + options.flag_name(spec))


def read(kind, prefix: str = "", **others):
    """Makes the dataclass from its flags; `others` are its fields that are no flags.

    Raises:
      InputError: The dataclass refuses a value; the message starts with the flag.
    """
    values = {}
    for spec in dataclasses.fields(kind):
        if "prefix" in spec.metadata:
            values[spec.name] = read(type(spec.default), prefix + spec.metadata["prefix"])
        elif "help" in spec.metadata:
            value = flags.FLAGS[prefix + options.flag_name(spec)].value
            values[spec.name] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**values, **others)
    except InputError as error:
        raise InputError(f"--{prefix}{error}") from error


def given(arguments: list[str]) -> set[str]:
    """Names of the flags among the arguments that a program passes on to another one."""
    return {argument.lstrip("-").partition("=")[0] for argument in arguments}


def refuse(arguments: list[str], reasons: dict[str, str]) -> None:
    """Raises InputError for a flag that must not be passed on. reasons: Flag to what to do."""
    for name in sorted(given(arguments) & set(reasons)):
        raise InputError(f"--{name}: {reasons[name]}")


def _define(spec, name: str) -> None:
    kind, text, within = options.kind_of(spec), spec.metadata["help"], spec.metadata["within"]
    required = spec.default is dataclasses.MISSING
    default = None if required else spec.default
    if within and kind is str:
        flags.DEFINE_enum(name, default, within, text)
    elif kind is bool:
        flags.DEFINE_bool(name, default, text)
    elif kind is tuple:
        flags.DEFINE_list(name, default and list(default), text, required=required)
    elif kind in (int, float):
        make = flags.DEFINE_integer if kind is int else flags.DEFINE_float
        make(name, default, f"{text} [{options.range_text(spec)}]")
    else:
        flags.DEFINE_string(name, default, text, required=required)
