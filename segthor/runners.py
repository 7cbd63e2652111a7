"""Beam's runner and its options: this process, or an engine that the options name."""

import argparse
import contextlib
import logging
import os
import re
from concurrent.futures.process import BrokenProcessPool

from segthor.errors import InputError

# Before Beam is imported, because it logs which optional packages are missing.
logging.getLogger("apache_beam").setLevel(logging.WARNING)

LOCAL = ("DirectRunner", "direct")
_RUNNING_MODE = "--direct_running_mode"
# Starting another process is worth it only for more bytes of input than this.
_BYTES_PER_PROCESS = 20 << 20
_REFUSAL = re.compile(
    r"((?:No space left on device|Disk quota exceeded|Read-only file system|Permission denied"
    r"|Input/output error|File too large|Stale file handle)"
    r"(?:: '[^']*')?)"
)


def check_options(runner: str, arguments: list[str]) -> None:
    """Checks the options of Beam that the user gave.

    Raises:
      InputError: An option has a value of another type, or the local runner does not know it. Other
        runners may have more options than Beam lists.
    """
    if not arguments and runner in LOCAL:
        return  # importing Beam takes a second
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


def choose_runner(name: str, arguments: list[str]):
    """(Beam's options, runner).

    The local runner runs in this process and never accesses the network, unlike Beam's own default
    for the same name, which may download another runner.

    name: The runner's name. arguments: Options of the command line that are not the program's own.
    """
    from apache_beam.options import pipeline_options

    options = pipeline_options.PipelineOptions(arguments)
    if name not in LOCAL:
        options.view_as(pipeline_options.StandardOptions).runner = name
        return options, name
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    # It would also log the traceback of an error that reaches this process anyway.
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)
    if _RUNNING_MODE not in " ".join(arguments):
        options.view_as(pipeline_options.DirectOptions).direct_num_workers = 1
    return options, FnApiRunner()


def count_processes(name: str, arguments: list[str], input_bytes: int) -> int:
    """Number of processes on this machine: --direct_num_workers, or as the size of the input pays.

    1 where an engine has its own workers, or Beam's --direct_running_mode starts some.
    """
    given = " ".join(arguments)
    if name not in LOCAL or _RUNNING_MODE in given:
        return 1
    from apache_beam.options import pipeline_options

    options = pipeline_options.PipelineOptions(arguments)
    workers = options.view_as(pipeline_options.DirectOptions).direct_num_workers
    if workers < 0:
        raise InputError(f"--direct_num_workers: expected 0 (every core) or more, found {workers}")
    cores = os.cpu_count() or 1
    if "--direct_num_workers" in given:
        return workers or cores
    return max(1, min(cores, input_bytes // _BYTES_PER_PROCESS))


@contextlib.contextmanager
def one_line_errors():
    """Converts errors of workers, which Beam reports as text only, to errors of one line.

    Raises:
      KeyboardInterrupt: The user interrupted the program.
      InputError: The system killed a worker, or refused to write one of its files.
    """
    try:
        yield
    except BrokenProcessPool as error:
        raise InputError(
            "the system killed a worker process, most often for lack of memory; repeat the "
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
