"""The dataset's folder as the driver sees it: claimed, swept of what is outdated, finished."""

import importlib.metadata
import re
from collections import defaultdict

from beam_jobs import audit_page, counts, shards
from beam_jobs.examine import stamps
from beam_jobs.job import Job
from beam_jobs.plan import ShardPlan
from beam_jobs.shards import Part
from segthor import files, json_files, outputs, scans, underway
from segthor.errors import InputError
from segthor.manifest import FILE_NAME, Dataset
from segthor.patients import Patient

FOUND = "found.json"  # who the patients of a DICOM tree are, so that a second run need not look
_OWN = {FILE_NAME, FOUND, shards.SHARDS, shards.PARTS, *audit_page.FILES, "inspect"}
_KINDS = {
    FILE_NAME: outputs.json_with("format", "recipe"),
    "audit.csv": outputs.csv_with("patient", "status", "codes"),
    "audit.html": outputs.page,
}
_SHARD_FILE = re.compile(r"(train|validation)-fold\d+(-\d+)?-[0-9a-f]{8}\.tfrecord$")
_MADE_BY = ("segthor", "numpy", "scipy", "nibabel", "isal", "apache-beam")


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


def repeated_scans(output: str, patients) -> dict[str, str]:
    """Patient to the patient whose scan it repeats, as far as earlier runs have read the scans.

    Of several patients with one scan, the first by name that nothing else speaks against is kept;
    one with contours before one without.
    """
    by_name = {patient.name: patient for patient in patients}
    alike = defaultdict(list)
    folder = files.join(output, shards.PARTS)
    for name in _part_names(folder) if files.exists(folder) else ():
        for patient, mark in _scans_of(output, name).items():
            if patient in by_name and mark.stamps == stamps(by_name[patient]):
                unlabelled = not by_name[patient].labels
                alike[mark.scan_digest].append((not mark.accepted, unlabelled, patient))
    ranked = [[patient for *_, patient in sorted(group)] for group in alike.values()]
    return {patient: kept for kept, *others in ranked for patient in others}


def _scans_of(output: str, name: str) -> dict[str, shards.ScanMark]:
    try:
        return Part.load(output, name).scans
    except InputError:  # it will be written anew
        return {}


def _part_names(folder: str) -> list[str]:
    """Of all parts that lie there: their shards' names."""
    names = [name for name in files.listdir(folder) if name != shards.STATISTICS]
    return [name.removesuffix(".json") for name in names]


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
        (0 if name in ready else 1 + sum(map(_ct_bytes, plan.patients)), plan)
        for name, plan in wanted.items()
    ]


def _ct_bytes(source: Patient) -> int:
    return scans.size(source.ct, source.ct_files)


def counter(plans: list[ShardPlan], output: str):
    """A function that says how many patients' shards are complete."""
    patients = {f"{plan.name}.json": len(plan.patients) for plan in plans}
    folder = files.join(output, shards.PARTS)
    return lambda: sum(patients.get(name, 0) for name in files.listdir(folder))


def finish(names: list[str], job: Job, folds: int) -> Dataset:
    """Writes the manifest from the named parts, then removes the shards it does not name.

    Raises:
      InputError: every patient was rejected; the manifest that was there stays.
    """
    held, patients, rejected, unlabelled = [], [], [], []
    for name in names:  # one part at a time: most of it is for others
        part = Part.load(job.output, name)
        held += [part.shard] if part.shard else []
        patients += part.patients
        rejected += part.rejected
        unlabelled += part.unlabelled
    if not held:
        first = min(rejected, key=_name)
        raise InputError(
            f"every patient was rejected ({len(rejected)}); the first, {first.patient}: "
            f"{first.reason}; all are in {files.join(job.output, 'audit.html')}"
        )
    counted = json_files.read(files.join(job.output, shards.PARTS, shards.STATISTICS))
    made = Dataset(
        recipe=job.recipe,
        folds=folds,
        shards=tuple(sorted(held, key=lambda row: row.file)),
        patients=tuple(sorted(patients, key=_name)),
        rejected=tuple(sorted(rejected, key=_name)),
        unlabelled=tuple(sorted(unlabelled, key=_name)),
        statistics=counts.summary(counted),
        versions={name: importlib.metadata.version(name) for name in _MADE_BY},
        label_values=job.label_values,
        organs=job.organs,
    )
    for shard in made.shards:
        files.sync(files.join(job.output, shard.file))
    made.save(job.output)
    _sweep(job.output, {files.name(shard.file) for shard in made.shards})
    clear_leftovers(job.output)  # of workers that an engine lost and replaced
    return made


def _name(row) -> str:
    return row.patient


def _is_ready(plan: ShardPlan, job: Job) -> bool:
    """Whether the shard was made from these very files and rules, and lies there."""
    part = shards.finished(plan, job)
    if not part:
        return False
    if any(finding.code == "file_too_large" for row in part.rejected for finding in row.findings):
        return False  # for the memory of that run's machine and flags
    return not part.shard or _size(files.join(job.output, part.shard.file)) == part.shard.bytes


def _size(path: str) -> int:
    return files.size(path) if files.exists(path) else 0


def _sweep(output: str, wanted: set[str]) -> None:
    folder = files.join(output, shards.SHARDS)
    for name in files.listdir(folder):
        if name not in wanted:
            files.remove(files.join(folder, name))
