"""The dataset's folder as the driver sees it: claimed, swept of what is outdated, finished."""

import importlib.metadata
import re
import sys
from collections import defaultdict

from beam_jobs import audit_page, counts, shards
from beam_jobs.examine import stamps
from beam_jobs.job import Job
from beam_jobs.pipeline import STATISTICS
from beam_jobs.plan import ShardPlan
from segthor import files
from segthor.errors import InputError
from segthor.manifest import FILE_NAME, Built, Dataset, Rejected, Shard, Unlabelled

_OWN = {FILE_NAME, shards.SHARDS, shards.PARTS, *audit_page.FILES, "inspect"}
_SHARD_FILE = re.compile(r"(train|validation)-fold\d+(-\d+)?-[0-9a-f]{8}\.tfrecord$")
_MADE_BY = ("segthor", "numpy", "scipy", "nibabel", "isal", "apache-beam")


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


def twins(output: str, sources) -> dict[str, str]:
    """Patient to the patient whose scan it repeats, as far as earlier runs have read the scans.

    Of several patients with one scan, the first by name that nothing else speaks against is kept;
    one with contours before one without.
    """
    by_name = {source.name: source for source in sources}
    alike = defaultdict(list)
    folder = files.join(output, shards.PARTS)
    for name in files.listdir(folder) if files.exists(folder) else ():
        for patient, row in files.read_json(files.join(folder, name)).get("likeness", {}).items():
            if patient in by_name and row["stamps"] == stamps(by_name[patient]):
                bare = not by_name[patient].labels
                alike[row["likeness"]].append((not row["sound"], bare, patient))
    ranked = [[patient for *_, patient in sorted(group)] for group in alike.values()]
    return {patient: kept for kept, *others in ranked for patient in others}


def prepare(plans: list[ShardPlan], job: Job) -> list[tuple[int, ShardPlan]]:
    """Removes the parts that do not hold any more.

    Returns each plan with the bytes of CT left to read for it: 0 where the shard is up to date.
    """
    folder = files.join(job.output, shards.PARTS)
    files.makedirs(folder)
    files.makedirs(files.join(job.output, shards.SHARDS))
    wanted = {f"{plan.name}.json": plan for plan in plans}
    ready = set()
    for name in files.listdir(folder):
        if name in wanted and _holds(wanted[name], job):
            ready.add(name)
        else:
            files.remove(files.join(folder, name))
    return [
        (0 if name in ready else 1 + sum(_size(source.ct) for source in plan.patients), plan)
        for name, plan in wanted.items()
    ]


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
    rows = _rows_of(names, job.output)
    if not rows[Shard]:
        first = min(rows[Rejected], key=lambda row: row.patient)
        raise InputError(
            f"every patient was rejected ({len(rows[Rejected])}); the first, {first.patient}: "
            f"{first.reason}; all are in {files.join(job.output, 'audit.html')}"
        )
    counted = files.read_json(files.join(job.output, shards.PARTS, STATISTICS))
    made = Dataset(
        recipe=job.recipe,
        folds=folds,
        shards=tuple(sorted(rows[Shard], key=lambda row: row.file)),
        patients=tuple(sorted(rows[Built], key=lambda row: row.patient)),
        rejected=tuple(sorted(rows[Rejected], key=lambda row: row.patient)),
        unlabelled=tuple(sorted(rows[Unlabelled], key=lambda row: row.patient)),
        statistics=counts.summary(counted),
        versions={name: importlib.metadata.version(name) for name in _MADE_BY},
        label_values=job.label_values,
    )
    for shard in made.shards:
        files.sync(files.join(job.output, shard.file))
    made.save(job.output)
    _sweep(job.output, {files.name(shard.file) for shard in made.shards})
    return made


def _holds(plan: ShardPlan, job: Job) -> bool:
    """Whether the shard was made from these very files and rules, and lies there."""
    part = shards.load_part(job.output, plan.name)
    if part.get("key") != shards.key_of(plan, job):
        return False
    shard = part["shard"]
    return not shard or _size(files.join(job.output, shard["file"])) == shard["bytes"]


def _size(path: str) -> int:
    return files.size(path) if files.exists(path) else 0


def _sweep(output: str, wanted: set[str]) -> None:
    folder = files.join(output, shards.SHARDS)
    for name in files.listdir(folder):
        if name not in wanted:
            files.remove(files.join(folder, name))
    for place in (output, folder, files.join(output, shards.PARTS)):
        files.remove_partial(place)


def _rows_of(names: list[str], output: str) -> dict:
    """The manifest's rows by their kind; one part at a time, of which most is for others."""
    rows = defaultdict(list)
    for name in names:
        part = shards.load_part(output, name)
        found = {
            Shard: [part["shard"]] if part["shard"] else [],
            Built: part["patients"],
            Rejected: part["rejected"],
            Unlabelled: part["unlabelled"],
        }
        for kind, of_kind in found.items():
            rows[kind] += [kind(**_tuples(row)) for row in of_kind]
    return rows


def _tuples(row: dict) -> dict:
    """Lists as tuples, the strings in them shared: they are the same few names in many rows."""
    return {
        key: tuple(sys.intern(one) if isinstance(one, str) else one for one in value)
        if isinstance(value, list)
        else value
        for key, value in row.items()
    }
