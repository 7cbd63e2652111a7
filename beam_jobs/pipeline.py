"""A build on one page: plans, the Beam pipeline over them, and the manifest.

  Plans              which patients go into which shard; one element of the pipeline for each
  Examine and write  a worker reads, audits and prepares the patients of a plan, and writes the
                     shard and, beside it, a part file: its report to the driver
  Counts             of slices, HU and spacings, added up over the shards
  Manifest           made by the driver from the part files; names every shard and every patient

What crosses the wire: plans to the workers (names and paths, a few hundred bytes each), counts back
(a few kilobytes). No voxel does: workers read scans, and write shards, where they lie.
"""

import importlib.metadata
from collections import deque
from dataclasses import replace
from operator import attrgetter

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows

from beam_jobs import counts, dataset, plan, processes, same_scan, shards
from beam_jobs.job import Job
from beam_jobs.plan import ShardPlan
from segthor import files, json_files, memory, progress, runners
from segthor.errors import InputError
from segthor.manifest import UNLABELLED, Dataset

_MADE_BY = ("segthor", "numpy", "scipy", "nibabel", "isal", "apache-beam")


def write_shards(patients, dealt, job: Job, settings, arguments: list[str]) -> list[str]:
    """Writes every shard that is not up to date; returns the names of all.

    Which patients are one scan under two names is known only once the scans are read: where that
    changes, the shards concerned are written again.

    dealt: Patient -> (split, fold). settings: `driver.Settings`. arguments: Options for Beam.
    """
    most = plan.patients_per_shard(job.recipe)
    marked = same_scan.mark_repeated(patients, dataset.scan_marks(job.output), job.severities)
    while True:
        plans = plan.plan_shards(marked, dealt, most, settings.shards, settings.seed)
        work = dataset.remove_outdated(plans, job)
        _announce(work, dealt)
        _run(work, job, settings.runner, settings.most_scan_gb, arguments)
        before = marked
        marked = same_scan.mark_repeated(patients, dataset.scan_marks(job.output), job.severities)
        if marked == before:
            return [one.name for one in plans]


def _announce(work, dealt) -> None:
    ready = [not size for size, one in work if one.split != UNLABELLED]
    unlabelled = sum(split == UNLABELLED for split, _ in dealt.values())
    print(
        f"{len(dealt) - unlabelled} patients in {len(ready)} shards, {sum(ready)} of them up "
        f"to date; {unlabelled} patients without contours"
    )


def _run(work, job: Job, runner: str, most_scan_gb: float, arguments: list[str]) -> None:
    """Has the shards written and their counts added up; returns when done.

    work: (bytes left to read, plan) of each shard.
    """
    workers = runners.local_processes(runner, arguments, sum(size for size, _ in work))
    if workers > 1 and not most_scan_gb:
        job = replace(job, most_scan_bytes=memory.scan_limit(workers))
    # Largest first, so that the workers end at about the same time.
    plans = [one for _, one in sorted(work, key=lambda pair: (-pair[0], pair[1].name))]
    sources = [source for one in plans for source in one.patients]
    places = [place for one in sources for place in (one.ct, one.labels, one.masks) if place]
    options, runner = runners.choose(runner, arguments)
    path = files.join(job.output, shards.PARTS, shards.STATISTICS)
    done = dataset.counter(plans, job.output)
    with (
        processes.started(workers, afresh=any(map(files.is_url, [job.output, *places]))),
        progress.watch(done, len(sources), "patients"),
        runners.trouble_in_one_line(),
        beam.Pipeline(runner=runner, options=options) as pipeline,
    ):
        (
            pipeline
            | "Plans" >> beam.Create(plans)
            | "Examine and write" >> beam.ParDo(WriteShard(job))
            | "Counts" >> beam.CombineGlobally(AddCounts())
            | "Write counts" >> beam.Map(lambda total: json_files.write(path, total))
        )


class WriteShard(beam.DoFn):
    """Writes the shard of a plan, or takes the one that an earlier run completed."""

    def __init__(self, job: Job):
        self._job = job

    def start_bundle(self):
        """Nothing is under way yet."""
        self._waiting = deque()

    def process(self, plan: ShardPlan):
        """Yields counts of shards, in the order of the plans."""
        self._waiting.append(processes.submit(_write, plan, self._job))
        while len(self._waiting) > processes.most_waiting():
            yield self._waiting.popleft().result()

    def finish_bundle(self):
        """Yields the counts of the remaining shards."""
        while self._waiting:
            yield GlobalWindows.windowed_value(self._waiting.popleft().result())


def _write(plan: ShardPlan, job: Job) -> dict:
    """Runs in a worker, or in a process of one."""
    memory.keep_freed()  # the next patient fills the same memory
    # Check the key again: workers of a killed driver may still write parts of an older plan.
    part = shards.finished(plan, job) or shards.write(plan, job)
    return part.statistics


class AddCounts(beam.CombineFn):
    """Adds mappings name -> value -> count; order and grouping do not matter."""

    def create_accumulator(self):
        """No counts."""
        return {}

    def add_input(self, total, of_shard):
        """Adds the counts of one shard."""
        counts.add(total, of_shard)
        return total

    def merge_accumulators(self, totals):
        """Adds the counts of several workers."""
        merged = {}
        for total in totals:
            self.add_input(merged, total)
        return merged

    def extract_output(self, total):
        """Plain values, sorted, for JSON."""
        return {name: dict(sorted(total[name].items())) for name in sorted(total)}


def write_manifest(names: list[str], job: Job, folds: int) -> Dataset:
    """Writes the manifest from the parts of these shards, then removes all other shards.

    Raises InputError where every patient was rejected; the manifest that was there stays.
    """
    written, rows = [], {"patients": [], "rejected": [], "unlabelled": []}
    for name in names:  # one part at a time: most of a part is not for the manifest
        part = shards.Part.load(job.output, name)
        written += [part.shard] if part.shard else []
        for kind, of_kind in rows.items():
            of_kind += getattr(part, kind)
    rows = {kind: sorted(of_kind, key=attrgetter("patient")) for kind, of_kind in rows.items()}
    if not written:
        first, *others = rows["rejected"]
        raise InputError(
            f"every patient was rejected ({1 + len(others)}); the first, {first.patient}: "
            f"{first.reason}; all are in {files.join(job.output, 'audit.html')}"
        )
    counted = json_files.read(files.join(job.output, shards.PARTS, shards.STATISTICS))
    made = Dataset(
        recipe=job.recipe,
        folds=folds,
        shards=tuple(sorted(written, key=attrgetter("file"))),
        **{kind: tuple(of_kind) for kind, of_kind in rows.items()},
        statistics=counts.summary(counted),
        versions={name: importlib.metadata.version(name) for name in _MADE_BY},
        label_values=job.label_values,
        organs=job.organs,
    )
    return dataset.publish(made, job.output)
