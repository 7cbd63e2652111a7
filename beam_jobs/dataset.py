"""The folder of the dataset: who may write there, which shards are up to date, what is removed."""

import re
from collections.abc import Iterator

from beam_jobs import audit_page, shards
from beam_jobs.job import Job
from beam_jobs.plan import ShardPlan
from beam_jobs.same_scan import ScanMark
from beam_jobs.shards import Part
from segthor import files, outputs, scans, underway
from segthor.errors import InputError
from segthor.manifest import FILE_NAME, Dataset

FOUND = "found.json"  # who the patients of a DICOM tree are, so that a second run need not look
_OWN = {FILE_NAME, FOUND, shards.SHARDS, shards.PARTS, *audit_page.FILES, "inspect"}
_KINDS = {
    FILE_NAME: outputs.json_with("format", "recipe"),
    "audit.csv": outputs.csv_with("patient", "status", "codes"),
    "audit.html": outputs.page,
}
_SHARD_FILE = re.compile(r"(train|validation)-fold\d+(-\d+)?-[0-9a-f]{8}\.tfrecord$")


def claim(output: str) -> None:
    """Raises InputError where the folder holds anything but a dataset of this job."""
    if not files.exists(output):
        return
    if outputs.result_in(output) != outputs.DATASET:  # at most a build that was killed
        outputs.check_files(output, _KINDS)
    foreign = [name for name in files.listdir(output) if name not in _OWN]
    folder = files.join(output, shards.SHARDS)
    if not foreign and files.exists(folder):
        foreign = [name for name in files.listdir(folder) if not _SHARD_FILE.match(name)]
    if foreign:
        raise InputError(
            f"{output}: expected a new or empty folder, or a dataset of this job; found "
            f"{foreign[0]}; choose another --output"
        )


def clear_leftovers(output: str) -> None:
    """Removes the temporary files of runs that were killed, and says what those had under way.

    No other run may be writing there.
    """
    underway.warn(files.join(output, shards.PARTS))
    for place in (output, files.join(output, shards.SHARDS), files.join(output, shards.PARTS)):
        files.remove_partial(place)


def scan_marks(output: str) -> Iterator[dict[str, ScanMark]]:
    """Yields patient -> mark of every shard that earlier runs or passes left a part of."""
    folder = files.join(output, shards.PARTS)
    for name in files.listdir(folder) if files.exists(folder) else ():
        if name != shards.STATISTICS:
            try:
                yield Part.load(output, name.removesuffix(".json")).scans
            except InputError:  # the part will be written anew
                continue


def remove_outdated(plans: list[ShardPlan], job: Job) -> list[tuple[int, ShardPlan]]:
    """Removes the parts that do not hold any more.

    Returns each plan with the bytes of CT left to read for it: 0 where the shard is up to date.
    """
    folder = files.join(job.output, shards.PARTS)
    files.makedirs(folder)
    files.makedirs(files.join(job.output, shards.SHARDS))
    wanted = {f"{plan.name}.json": plan for plan in plans}
    ready = set()
    for name in files.listdir(folder):
        if name in wanted and _is_ready(wanted[name], job):
            ready.add(name)
        else:
            files.remove(files.join(folder, name))
    return [
        (0 if name in ready else 1 + sum(scans.size(s.ct, s.ct_files) for s in plan.patients), plan)
        for name, plan in wanted.items()
    ]


def counter(plans: list[ShardPlan], output: str):
    """A function that says how many patients' shards are complete."""
    patients = {f"{plan.name}.json": len(plan.patients) for plan in plans}
    folder = files.join(output, shards.PARTS)
    return lambda: sum(patients.get(name, 0) for name in files.listdir(folder))


def publish(made: Dataset, output: str) -> Dataset:
    """Writes the manifest once its shards are on the disk; then removes what it does not name."""
    for shard in made.shards:
        files.sync(files.join(output, shard.file))
    made.save(output)
    folder, named = files.join(output, shards.SHARDS), {files.name(s.file) for s in made.shards}
    for name in set(files.listdir(folder)) - named:
        files.remove(files.join(folder, name))
    clear_leftovers(output)  # of workers that an engine lost and replaced
    return made


def _is_ready(plan: ShardPlan, job: Job) -> bool:
    """Whether the shard was made from these very files and rules, and lies there."""
    part = shards.finished(plan, job)
    if not part:
        return False
    if any(finding.code == "file_too_large" for row in part.rejected for finding in row.findings):
        return False  # for the memory of that run's machine and flags
    if not part.shard:
        return True
    path = files.join(job.output, part.shard.file)
    return files.exists(path) and files.size(path) == part.shard.bytes
