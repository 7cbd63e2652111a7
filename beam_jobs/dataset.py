"""The dataset's folder: whether a build may write there, what is up to date, what is removed."""

import re
from collections.abc import Iterator

from beam_jobs import audit_page, shards
from beam_jobs.job import Job
from beam_jobs.plan import ShardPlan
from beam_jobs.same_scan import ScanReport
from beam_jobs.shards import Part
from segthor import files, outputs, scans, underway
from segthor.errors import InputError
from segthor.manifest import FILE_NAME, Dataset

PATIENTS_CACHE = "found.json"  # patients of a DICOM tree, for the next build of an unchanged tree
_OWN = {FILE_NAME, PATIENTS_CACHE, shards.SHARDS, shards.PARTS, *audit_page.FILES, "inspect"}
_KINDS = {
    FILE_NAME: outputs.json_with("format", "recipe"),
    "audit.csv": outputs.csv_with("patient", "status", "codes"),
    "audit.html": outputs.page,
}
_SHARD_FILE = re.compile(r"(train|validation)-fold\d+(-\d+)?-[0-9a-f]{8}\.tfrecord$")


def check_output(output: str) -> None:
    """Raises InputError where the folder holds anything but a dataset of this job."""
    if not files.exists(output):
        return
    if outputs.result_in(output) != outputs.DATASET:  # empty, or of a build that was killed
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
    """Removes the temporary files of runs that were killed, and names the patients they were at.

    No other run may be writing into the folder.
    """
    underway.warn_about_notes(files.join(output, shards.PARTS))
    for folder in (output, files.join(output, shards.SHARDS), files.join(output, shards.PARTS)):
        files.remove_partial(folder)


def read_scan_reports(output: str) -> Iterator[dict[str, ScanReport]]:
    """Yields patient -> report, for every part file in the folder that can be read."""
    folder = files.join(output, shards.PARTS)
    for name in files.listdir(folder) if files.exists(folder) else ():
        if name != shards.STATISTICS:
            try:
                yield Part.load(output, name.removesuffix(".json")).scans
            except InputError:  # damaged; the part is written again
                continue


def remove_outdated(plans: list[ShardPlan], job: Job) -> list[tuple[int, ShardPlan]]:
    """Removes the part files of shards that have to be written.

    Returns:
      (bytes of CT to read, plan) of each plan; 0 bytes where the shard is up to date.
    """
    folder = files.join(job.output, shards.PARTS)
    files.makedirs(folder)
    files.makedirs(files.join(job.output, shards.SHARDS))
    planned = {f"{plan.name}.json": plan for plan in plans}
    ready = set()
    for name in files.listdir(folder):
        if name in planned and _is_ready(planned[name], job):
            ready.add(name)
        else:
            files.remove(files.join(folder, name))
    return [
        (0 if name in ready else 1 + sum(scans.size(s.ct, s.ct_files) for s in plan.patients), plan)
        for name, plan in planned.items()
    ]


def make_counter(plans: list[ShardPlan], output: str):
    """A function that returns the number of patients in complete shards."""
    patients = {f"{plan.name}.json": len(plan.patients) for plan in plans}
    folder = files.join(output, shards.PARTS)
    return lambda: sum(patients.get(name, 0) for name in files.listdir(folder))


def publish(dataset: Dataset, output: str) -> Dataset:
    """Writes the manifest, then removes the shards that it does not name."""
    for shard in dataset.shards:  # the manifest must never name a shard that a power cut lost
        files.sync(files.join(output, shard.file))
    dataset.save(output)
    folder, named = files.join(output, shards.SHARDS), {files.name(s.file) for s in dataset.shards}
    for name in set(files.listdir(folder)) - named:
        files.remove(files.join(folder, name))
    clear_leftovers(output)  # of workers that an engine lost and replaced
    return dataset


def _is_ready(plan: ShardPlan, job: Job) -> bool:
    """Whether the shard exists and was written from the same files and rules."""
    part = shards.load_finished(plan, job)
    if not part:
        return False
    if any(finding.code == "file_too_large" for row in part.rejected for finding in row.findings):
        return False  # this machine, or --most_scan_gb, may allow more memory
    if not part.shard:
        return True
    path = files.join(job.output, part.shard.file)
    return files.exists(path) and files.size(path) == part.shard.bytes
