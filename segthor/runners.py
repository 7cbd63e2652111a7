"""Where a Beam job runs: this process, or an engine that the options name."""

import argparse
import contextlib
import logging
import os
import re
from concurrent.futures.process import BrokenProcessPool

from segthor.errors import InputError

# Before Beam is imported: it notes what is not installed.
logging.getLogger("apache_beam").setLevel(logging.WARNING)

LOCAL = ("DirectRunner", "direct")
_RUNNING_MODE = "--direct_running_mode"
# Below this many bytes of input another process costs more than it brings.
_BYTES_PER_PROCESS = 20 << 20
_REFUSAL = re.compile(
    r"((?:No space left on device|Disk quota exceeded|Read-only file system|Permission denied)"
    r"(?:: '[^']*')?)"
)


def check_options(runner: str, arguments: list[str]) -> None:
    """Raises InputError for an option that neither the program nor Beam's local runner knows, or
    whose value is not of its kind.

    Other runners know options that only they can judge.
    """
    if not arguments and runner in LOCAL:
        return  # Beam, which takes a second, is not asked about nothing
    from apache_beam.options import pipeline_options

    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False, exit_on_error=False)
    kinds = {str(kind): kind for kind in pipeline_options.PipelineOptions.__subclasses__()}
    for kind in kinds.values():
        kind._add_argparse_args(parser)
    try:
        unknown = parser.parse_known_args(arguments)[1]
    except argparse.ArgumentError as error:
        raise InputError(str(error)) from error
    if unknown and runner in LOCAL:
        raise InputError(f"unknown option {unknown[0]!r}; --help lists those of this program")


def choose(name: str, arguments: list[str]):
    """(options, runner) for the runner's name and the options that are not the program's own.

    The local runner runs in this process, and never looks for anything on the network, which
    Beam's own switch of the same name would.
    """
    from apache_beam.options import pipeline_options

    options = pipeline_options.PipelineOptions(arguments)
    if name not in LOCAL:
        options.view_as(pipeline_options.StandardOptions).runner = name
        return options, name
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    # It logs the traceback of an error that reaches this process anyway.
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)
    if _RUNNING_MODE not in " ".join(arguments):
        options.view_as(pipeline_options.DirectOptions).direct_num_workers = 1
    return options, FnApiRunner()


def local_processes(name: str, arguments: list[str], input_bytes: int) -> int:
    """How many processes of this machine so many bytes are worth, or --direct_num_workers.

    1 where an engine has workers of its own, or Beam's --direct_running_mode starts some.
    """
    given = " ".join(arguments)
    if name not in LOCAL or _RUNNING_MODE in given:
        return 1
    from apache_beam.options import pipeline_options

    options = pipeline_options.PipelineOptions(arguments)
    asked = options.view_as(pipeline_options.DirectOptions).direct_num_workers
    if asked < 0:
        raise InputError(f"--direct_num_workers: expected 0 (every core) or more, found {asked}")
    cores = os.cpu_count() or 1
    if "--direct_num_workers" in given:
        return asked or cores
    return max(1, min(cores, input_bytes // _BYTES_PER_PROCESS))


@contextlib.contextmanager
def trouble_in_one_line():
    """Raises again, in a form that a program ends with one line, what Beam hands on as mere text.

    Raises:
      KeyboardInterrupt: the user's.
      InputError: the system refused a worker its disk, or ended it.
    """
    try:
        yield
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was ended from outside, most often for lack of memory; repeat the "
            "command, with a smaller --direct_num_workers"
        ) from error
    except RuntimeError as error:
        text = str(error)
        if text.startswith(KeyboardInterrupt.__name__):
            raise KeyboardInterrupt from error
        refusal = _REFUSAL.search(text)
        if not refusal:
            raise
        raise InputError(f"{refusal[1]}; make room, then repeat the command") from error
