"""The Beam pipeline: an element is the plan of one shard, and no pixel ever crosses workers."""

import argparse
import contextlib
import logging
import os
import re

import apache_beam as beam
from apache_beam.options import pipeline_options

from beam_jobs import shards
from beam_jobs.job import Job
from beam_jobs.statistics import AddCounts
from segthor import files
from segthor.errors import InputError

STATISTICS = "statistics.json"
LOCAL = ("DirectRunner", "direct")
_REFUSAL = re.compile(
    r"((?:No space left on device|Disk quota exceeded|Read-only file system|Permission denied)"
    r"(?:: '[^']*')?)"
)
# Below this many bytes of input a second worker costs more than it brings.
_BYTES_PER_WORKER = 100 << 20


class WriteShard(beam.DoFn):
    """Writes the shard of a plan, or takes the one that an earlier run completed."""

    def __init__(self, job: Job):
        self._job = job

    def process(self, plan):
        """Yields the shard's counts."""
        part = shards.load_part(self._job.output, plan.name) or shards.write(plan, self._job)
        yield part["statistics"]


def run(work, job: Job, runner: str, arguments: list[str]) -> None:
    """Writes every shard and the statistics over all of them; returns when done.

    work: (bytes left to read, plan) of each shard. arguments: options for Beam.
    """
    options, runner = _options(runner, arguments, sum(size for size, _ in work))
    workers = max(1, options.view_as(pipeline_options.DirectOptions).direct_num_workers)
    path = files.join(job.output, shards.PARTS, STATISTICS)
    with _refusal_in_one_line(), beam.Pipeline(runner=runner, options=options) as pipeline:
        (
            pipeline
            | "Plans" >> beam.Create(dealt_evenly(work, workers))
            | "Write shards" >> beam.ParDo(WriteShard(job))
            | "Add counts" >> beam.CombineGlobally(AddCounts())
            | "Write statistics" >> beam.Map(lambda counts: files.write_json(path, counts))
        )


@contextlib.contextmanager
def _refusal_in_one_line():
    """Raises InputError where a worker met a full or read-only disk; Beam hands on text alone."""
    try:
        yield
    except RuntimeError as error:
        refusal = _REFUSAL.search(str(error))
        if not refusal:
            raise
        raise InputError(f"{refusal[1]}; make room, then repeat the command") from error


def dealt_evenly(work, workers: int) -> list:
    """The plans in an order that gives each worker about the same bytes.

    The local runner deals elements to its workers in turn: largest first, each round the other way.
    """
    ordered = sorted(work, key=lambda one: (-one[0], one[1].name))
    rounds = [ordered[start : start + workers] for start in range(0, len(ordered), workers)]
    return [plan for n, part in enumerate(rounds) for _, plan in part[:: -1 if n % 2 else 1]]


def check_options(runner: str, arguments: list[str]) -> None:
    """Raises InputError for an option that neither this job nor Beam's local runner knows.

    Other runners know options that only they can judge.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    kinds = {str(kind): kind for kind in pipeline_options.PipelineOptions.__subclasses__()}
    for kind in kinds.values():
        kind._add_argparse_args(parser)
    unknown = parser.parse_known_args(arguments)[1]
    if unknown and runner in LOCAL:
        raise InputError(f"unknown option {unknown[0]!r}; --help lists those of this program")


def _options(name: str, arguments: list[str], input_bytes: int):
    """(options, runner) for the runner's name and the options that are not this job's own.

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
