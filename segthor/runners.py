"""Where a Beam job runs: this process, or an engine that the options name."""

import argparse
import contextlib
import logging
import os
import re

from apache_beam.options import pipeline_options

from segthor.errors import InputError

LOCAL = ("DirectRunner", "direct")
# Below this many bytes of input a second worker costs more than it brings.
_BYTES_PER_WORKER = 100 << 20
_REFUSAL = re.compile(
    r"((?:No space left on device|Disk quota exceeded|Read-only file system|Permission denied)"
    r"(?:: '[^']*')?)"
)


def check_options(runner: str, arguments: list[str]) -> None:
    """Raises InputError for an option that neither the program nor Beam's local runner knows.

    Other runners know options that only they can judge.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    kinds = {str(kind): kind for kind in pipeline_options.PipelineOptions.__subclasses__()}
    for kind in kinds.values():
        kind._add_argparse_args(parser)
    unknown = parser.parse_known_args(arguments)[1]
    if unknown and runner in LOCAL:
        raise InputError(f"unknown option {unknown[0]!r}; --help lists those of this program")


def choose(name: str, arguments: list[str], input_bytes: int = 0):
    """(options, runner) for the runner's name and the options that are not the program's own.

    The local runner runs in this process, with as many threads as the work is worth, and never
    looks for anything on the network, which Beam's own switch of the same name would.
    """
    options = pipeline_options.PipelineOptions(arguments)
    if name not in LOCAL:
        options.view_as(pipeline_options.StandardOptions).runner = name
        return options, name
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    # It logs the traceback of an error that reaches this process anyway.
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)
    direct = options.view_as(pipeline_options.DirectOptions)
    given = " ".join(arguments)
    if "--direct_num_workers" not in given:
        worth = max(1, input_bytes // _BYTES_PER_WORKER)
        direct.direct_num_workers = min(os.cpu_count() or 1, worth)
    if "--direct_running_mode" not in given and direct.direct_num_workers != 1:
        direct.direct_running_mode = "multi_threading"
    return options, FnApiRunner()


@contextlib.contextmanager
def refusal_in_one_line():
    """Raises InputError where a worker met a full or read-only disk; Beam hands on text alone."""
    try:
        yield
    except RuntimeError as error:
        refusal = _REFUSAL.search(str(error))
        if not refusal:
            raise
        raise InputError(f"{refusal[1]}; make room, then repeat the command") from error
