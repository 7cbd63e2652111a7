"""The Beam pipeline: an element is the plan of one shard, and no pixel ever crosses workers."""

import apache_beam as beam
from apache_beam.options import pipeline_options

from beam_jobs import shards
from beam_jobs.job import Job
from beam_jobs.statistics import AddCounts
from segthor import files, runners

STATISTICS = "statistics.json"


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
    options, runner = runners.choose(runner, arguments, sum(size for size, _ in work))
    workers = max(1, options.view_as(pipeline_options.DirectOptions).direct_num_workers)
    path = files.join(job.output, shards.PARTS, STATISTICS)
    with runners.refusal_in_one_line(), beam.Pipeline(runner=runner, options=options) as pipeline:
        (
            pipeline
            | "Plans" >> beam.Create(dealt_evenly(work, workers))
            | "Write shards" >> beam.ParDo(WriteShard(job))
            | "Add counts" >> beam.CombineGlobally(AddCounts())
            | "Write statistics" >> beam.Map(lambda counts: files.write_json(path, counts))
        )


def dealt_evenly(work, workers: int) -> list:
    """The plans in an order that gives each worker about the same bytes.

    The local runner deals elements to its workers in turn: largest first, each round the other way.
    """
    ordered = sorted(work, key=lambda one: (-one[0], one[1].name))
    rounds = [ordered[start : start + workers] for start in range(0, len(ordered), workers)]
    return [plan for n, part in enumerate(rounds) for _, plan in part[:: -1 if n % 2 else 1]]
