"""Flags made of a dataclass's options, and the dataclass made of its flags; for entries."""

import dataclasses

from absl import flags

from segthor import options
from segthor.errors import InputError

flags.disclaim_key_flags()  # they are the entry's, which shows them with --help


def define(kind, prefix: str = "") -> None:
    """One flag per option of the dataclass and of those in it; the help ends with the range."""
    for spec in dataclasses.fields(kind):
        if "prefix" in spec.metadata:
            define(type(spec.default), prefix + spec.metadata["prefix"])
        elif "help" in spec.metadata:
            _define(spec, prefix + options.flag_name(spec))


def read(kind, prefix: str = "", **others):
    """The dataclass that the flags describe; `others` are the fields that are no flags.

    Raises:
      InputError: the dataclass refuses a value; the message opens with the flag.
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
    """Names of the flags among arguments that a program hands on to another one."""
    return {argument.lstrip("-").partition("=")[0] for argument in arguments}


def refuse(arguments: list[str], reasons: dict[str, str]) -> None:
    """Raises InputError for a flag that must not be handed on; reasons: name to what to do."""
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
