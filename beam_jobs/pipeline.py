"""A build on one page: plans, the Beam pipeline over them, and the manifest.

  Plans              which patients go into which shard; each plan is one element of the pipeline
  Examine and write  a worker reads, audits and prepares the patients of a plan, and writes the
                     shard and a part file, its report to the driver
  Counts             slices, HU and spacings, summed over the shards
  Manifest           the driver makes it from the part files; it names every shard and patient

What crosses the wire: plans to the workers (names and paths, a few hundred bytes each), counts back
(a few kilobytes). Voxels never do: workers read scans from storage and write shards to storage.
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


def write_shards(patients, assigned, job: Job, settings, arguments: list[str]) -> list[str]:
    """Writes every shard that is not up to date; returns the names of all shards.

    assigned: Patient's name to (split, fold). settings: `driver.Settings`. arguments: Of Beam.
    """
    max_patients = plan.patients_per_shard(job.recipe)
    marked = _mark_same_scans(patients, job)
    # Only reading the scans shows which patients repeat another's scan. Where a pass finds such
    # patients, the next one writes their shards again.
    while True:
        plans = plan.plan_shards(marked, assigned, max_patients, settings.shards, settings.seed)
        work = dataset.remove_outdated(plans, job)
        _print_plan(work, assigned)
        _run(work, job, settings.runner, settings.most_scan_gb, arguments)
        before, marked = marked, _mark_same_scans(patients, job)
        if marked == before:
            return [one.name for one in plans]


def _mark_same_scans(patients, job: Job):
    reports = dataset.read_scan_reports(job.output)
    return same_scan.assign_same_scan(patients, reports, job.severities)


def _print_plan(work, assigned) -> None:
    ready = [not size for size, one in work if one.split != UNLABELLED]
    unlabelled = sum(split == UNLABELLED for split, _ in assigned.values())
    print(
        f"{len(assigned) - unlabelled} patients in {len(ready)} shards, {sum(ready)} of them up "
        f"to date; {unlabelled} patients without contours"
    )


def _run(work, job: Job, runner: str, most_scan_gb: float, arguments: list[str]) -> None:
    """Runs the pipeline until all shards are written.

    work: (bytes of CT to read, plan) of each shard.
    """
    workers = runners.count_processes(runner, arguments, sum(size for size, _ in work))
    if workers > 1 and not most_scan_gb:
        job = replace(job, most_scan_bytes=memory.scan_limit(workers))
    # Largest first, so that all workers end at about the same time.
    plans = [one for _, one in sorted(work, key=lambda pair: (-pair[0], pair[1].name))]
    sources = [source for one in plans for source in one.patients]
    paths = [path for one in sources for path in (one.ct, one.labels, one.masks) if path]
    options, runner = runners.choose_runner(runner, arguments)
    statistics_path = files.join(job.output, shards.PARTS, shards.STATISTICS)
    with (
        processes.start_workers(workers, spawn=any(map(files.is_url, [job.output, *paths]))),
        progress.watch(dataset.make_counter(plans, job.output), len(sources), "patients"),
        runners.one_line_errors(),
        beam.Pipeline(runner=runner, options=options) as pipeline,
    ):
        (
            pipeline
            | "Plans" >> beam.Create(plans)
            | "Examine and write" >> beam.ParDo(WriteShard(job))
            | "Counts" >> beam.CombineGlobally(counts.total)
            | "Write counts" >> beam.Map(lambda total: json_files.write(statistics_path, total))
        )


class WriteShard(beam.DoFn):
    """Writes the shard of a plan, unless an earlier run completed it; yields its counts.

    Calls run ahead of the results in the local worker processes, if there are any.
    """

    def __init__(self, job: Job):
        self._job = job

    def start_bundle(self):
        """Starts without waiting calls."""
        self._waiting = deque()

    def process(self, plan: ShardPlan):
        """Starts writing a shard; yields the counts of earlier ones, in the order of the plans."""
        self._waiting.append(processes.submit(_write, plan, self._job))
        while len(self._waiting) > processes.max_waiting():
            yield self._waiting.popleft().result()

    def finish_bundle(self):
        """Yields the counts of the remaining shards."""
        while self._waiting:
            yield GlobalWindows.windowed_value(self._waiting.popleft().result())


def _write(plan: ShardPlan, job: Job) -> dict:
    """Runs in a Beam worker, or in one of the local worker processes."""
    memory.keep_freed()  # the next patient needs memory of the same size
    # Check the key again: workers of a killed driver may still write parts of an older plan.
    part = shards.load_finished(plan, job) or shards.write(plan, job)
    return part.statistics


def write_manifest(names: list[str], job: Job, folds: int) -> Dataset:
    """Writes the manifest from the parts of these shards, then removes all other shards.

    Raises InputError where every patient was rejected; an earlier manifest stays as it is.
    """
    written, rows = [], {"patients": [], "rejected": [], "unlabelled": []}
    for name in names:  # one part at a time: its pictures and counts need not stay in memory
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
