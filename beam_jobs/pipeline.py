"""The Beam pipeline: an element is the plan of one shard, and no pixel ever crosses workers."""

from collections import deque

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows

from beam_jobs import counts, processes, shards
from beam_jobs.job import Job
from segthor import files, json_files, memory, runners


class WriteShard(beam.DoFn):
    """Writes the shard of a plan, or takes the one that an earlier run completed."""

    def __init__(self, job: Job):
        self._job = job

    def start_bundle(self):
        """Nothing is under way yet."""
        self._waiting = deque()

    def process(self, plan):
        """Yields counts of shards, in the order of the plans."""
        self._waiting.append(processes.submit(_counts, plan, self._job))
        while len(self._waiting) > processes.most_waiting():
            yield self._waiting.popleft().result()

    def finish_bundle(self):
        """Yields the counts of the remaining shards."""
        while self._waiting:
            yield GlobalWindows.windowed_value(self._waiting.popleft().result())


def _counts(plan, job: Job) -> dict:
    memory.keep_freed()  # patient after patient fills the same memory
    # The key again: where a driver was killed, an engine may still write parts by its older rules.
    part = shards.finished(plan, job) or shards.write(plan, job)
    return part.statistics


class AddCounts(beam.CombineFn):
    """Adds mappings name -> value -> count; order and grouping do not matter."""

    def create_accumulator(self):
        """Nothing counted yet."""
        return {}

    def add_input(self, total, of_shard):
        """Adds the counts of one shard."""
        counts.add(total, of_shard)
        return total

    def merge_accumulators(self, totals):
        """Adds what several workers counted."""
        merged = {}
        for total in totals:
            self.add_input(merged, total)
        return merged

    def extract_output(self, total):
        """Plain values, sorted, for JSON."""
        return {name: dict(sorted(total[name].items())) for name in sorted(total)}


def run(work, job: Job, runner: str, arguments: list[str]) -> None:
    """Writes every shard and the statistics over all of them; returns when done.

    work: (bytes left to read, plan) of each shard. arguments: options for Beam.
    """
    # Largest first: so the workers end at about the same time.
    plans = [plan for _, plan in sorted(work, key=lambda one: (-one[0], one[1].name))]
    options, runner = runners.choose(runner, arguments)
    path = files.join(job.output, shards.PARTS, shards.STATISTICS)
    with runners.trouble_in_one_line(), beam.Pipeline(runner=runner, options=options) as pipeline:
        (
            pipeline
            | "Plans" >> beam.Create(plans)
            | "Write shards" >> beam.ParDo(WriteShard(job))
            | "Add counts" >> beam.CombineGlobally(AddCounts())
            | "Write statistics" >> beam.Map(lambda total: json_files.write(path, total))
        )
