"""The dataset's folder as the driver sees it: claimed, swept of what is outdated, finished."""

import re

from beam_jobs import shards, statistics
from beam_jobs.job import Job
from beam_jobs.patients import Source
from beam_jobs.pipeline import STATISTICS
from beam_jobs.plan import ShardPlan
from segthor import files
from segthor.errors import InputError
from segthor.manifest import FILE_NAME, Dataset, Patient, Rejected, Shard, Unlabelled

_OWN = {FILE_NAME, shards.SHARDS, shards.PARTS, "audit.csv", "audit.html", "inspect"}
_SHARD_FILE = re.compile(r"(train|validation)-fold\d+(-\d+)?(-[0-9a-f]{8}\.tfrecord|\.unnamed)$")


def claim(output: str) -> None:
    """Raises InputError where the folder holds anything but a dataset of this job."""
    if not files.exists(output):
        return
    foreign = [name for name in files.listdir(output) if name not in _OWN]
    folder = files.join(output, shards.SHARDS)
    if not foreign and files.exists(folder):
        foreign = [name for name in files.listdir(folder) if not _SHARD_FILE.match(name)]
    if foreign:
        raise InputError(
            f"{output}: expected a new or empty folder, or a dataset of this job; found "
            f"{foreign[0]}; choose another --output"
        )


def prepare(plans: list[ShardPlan], job: Job) -> int:
    """Removes the parts that do not hold any more; returns the bytes of input left to read."""
    folder = files.join(job.output, shards.PARTS)
    files.makedirs(folder)
    files.makedirs(files.join(job.output, shards.SHARDS))
    wanted = {f"{plan.name}.json": plan for plan in plans}
    kept = set()
    for name in files.listdir(folder):
        if name in wanted and _holds(shards.load_part(job.output, wanted[name]), wanted[name], job):
            kept.add(name)
        else:
            files.remove(files.join(folder, name))
    left = [plan for name, plan in wanted.items() if name not in kept]
    return sum(_size(source.ct) for plan in left for source in plan.patients)


def patients_done(plans: list[ShardPlan], output: str) -> int:
    """How many patients' shards are complete."""
    present = set(files.listdir(files.join(output, shards.PARTS)))
    return sum(len(plan.patients) for plan in plans if f"{plan.name}.json" in present)


def finish(
    plans: list[ShardPlan],
    unlabelled: list[Source],
    job: Job,
    folds: int,
    versions: dict,
) -> Dataset:
    """Writes the manifest from the workers' parts, then removes the shards it does not name.

    Raises:
      InputError: every patient was rejected; the manifest that was there stays.
    """
    parts = [shards.load_part(job.output, plan) for plan in plans]
    rejected = _sorted(Rejected, [row for part in parts for row in part["rejected"]])
    written = [part["shard"] for part in parts if part["shard"]]
    if not written:
        first = rejected[0]
        raise InputError(
            f"all {len(rejected)} patients were rejected, the first, {first.patient}: "
            f"{first.findings[0]['message']}"
        )
    counts = files.read_json(files.join(job.output, shards.PARTS, STATISTICS))
    made = Dataset(
        recipe=job.recipe,
        folds=folds,
        shards=tuple(sorted((Shard(**_tuples(row)) for row in written), key=lambda s: s.file)),
        patients=_sorted(Patient, [row for part in parts for row in part["patients"]]),
        rejected=rejected,
        unlabelled=tuple(Unlabelled(source.patient, source.ct) for source in unlabelled),
        statistics=statistics.summary(counts),
        versions=versions,
    )
    made.save(job.output)
    _sweep(job.output, {files.name(shard.file) for shard in made.shards})
    return made


def _holds(part: dict, plan: ShardPlan, job: Job) -> bool:
    """Whether the shard was made from these very files and recipe, and lies there."""
    if part.get("key") != shards.key_of(plan, job):
        return False
    shard = part["shard"]
    return not shard or _size(files.join(job.output, shard["file"])) == shard["bytes"]


def _size(path: str) -> int:
    return int(files.stamp(path).partition("-")[0]) if files.exists(path) else 0


def _sweep(output: str, wanted: set[str]) -> None:
    folder = files.join(output, shards.SHARDS)
    for name in files.listdir(folder):
        if name not in wanted:
            files.remove(files.join(folder, name))


def _sorted(kind, rows) -> tuple:
    return tuple(sorted((kind(**_tuples(row)) for row in rows), key=lambda row: row.patient))


def _tuples(row: dict) -> dict:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
