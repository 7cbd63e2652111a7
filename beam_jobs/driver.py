"""The driver of a build: finds the patients, has the shards written, writes the manifest."""

import gc
import sys
import time
from dataclasses import dataclass, replace

from beam_jobs import audit_page, dataset, pipeline, plan, processes
from beam_jobs.job import Job
from segthor import audit, files, inputs, progress, runners
from segthor.errors import InputError, hint
from segthor.manifest import TRAIN, UNLABELLED, VALIDATION, Dataset
from segthor.patients import Patient
from segthor.recipe import Recipe

REJECTED_STATUS = 3


@dataclass(frozen=True)
class Settings:
    """What a user may choose; the fields are the flags of `beam_jobs.build`."""

    input: str
    output: str
    recipe: Recipe = Recipe()
    runner: str = runners.LOCAL[0]
    split: str = "auto"
    validation_fraction: float = 0.2
    folds: int = 5
    shards: int = 0
    seed: int = 0
    level_masks: str | None = None
    label_values: tuple[tuple[str, int], ...] = ()
    severities: tuple[tuple[str, str], ...] = ()
    strict: bool = False

    def __post_init__(self):
        audit.check_severities(dict(self.severities))


def build(settings: Settings, beam_arguments=()) -> int:
    """Writes the shards that are not up to date, then the manifest; returns the exit status.

    Raises:
      InputError: no patient, none with contours, all rejected, or the output folder is in use.
    """
    started = time.monotonic()
    output = files.absolute(settings.output)
    dataset.claim(output)
    patients = _find(settings)
    contoured = [one for one in patients if one.labels and not one.fault]
    if not contoured:
        faults = [one.fault for one in patients if one.fault]
        raise InputError(
            f"{settings.input}: none of the {len(patients)} patients found has contours"
            f"{' and a usable name: ' + faults[0] if faults else ''}; nothing to train on; predict "
            "them with python -m serving.predict"
        )
    values = patients[0].label_values
    job = Job(output, settings.recipe, settings.seed, settings.severities, values)
    dealt = dict.fromkeys([one.name for one in patients], (UNLABELLED, 0))
    dealt |= _deal(contoured, settings)
    names = _write_shards(patients, dealt, job, settings, beam_arguments)
    del patients, contoured
    gc.collect()  # Beam leaves its copies of the plans in cycles; the manifest needs room
    rejected = audit_page.write(names, output)
    if rejected and settings.strict:
        raise InputError(f"{rejected} patients were rejected (--strict); see {output}/audit.csv")
    made = dataset.finish(names, job, settings.folds)
    return _say(made, settings, time.monotonic() - started)


def _find(settings: Settings) -> tuple[Patient, ...]:
    if inputs.is_dataset(settings.input):
        raise InputError(
            f"{settings.input}: is a dataset that was built; name the folder or CSV of its patients"
        )
    patients = inputs.find(settings.input, label_values=settings.label_values)
    if settings.level_masks:
        patients = inputs.with_masks(patients, settings.level_masks)
    return patients


def _deal(contoured, settings: Settings) -> dict[str, tuple[str, int]]:
    split = plan.choose_split(settings.split, contoured)
    dealt = plan.deal(contoured, split, settings.validation_fraction, settings.folds, settings.seed)
    sides = [side for side, _ in dealt.values()]
    print(f"Split {split}: {sides.count(TRAIN)} for training, {sides.count(VALIDATION)} held out")
    for side in sorted({TRAIN, VALIDATION} - set(sides)):
        print(
            f"warning: no patient for {side}; --split, --seed or --validation_fraction deal others",
            file=sys.stderr,
        )
    return dealt


def _write_shards(patients, dealt, job: Job, settings: Settings, beam_arguments):
    """Plans and writes; again where the scans read turn out to hold one under two names.

    Returns the shards' names.
    """
    most = plan.patients_per_shard(job.recipe)
    twins = _twins(patients, job)
    places = (place for one in patients for place in (one.ct, one.labels, one.masks) if place)
    remote = files.is_url(job.output) or any(map(files.is_url, places))
    while True:
        judged = [_with_twin(patient, twins) for patient in patients]
        plans = plan.plan_shards(judged, dealt, most, settings.shards, settings.seed)
        work = dataset.prepare(plans, job)
        ready = [not size for size, one in work if one.split != UNLABELLED]
        bare = sum(split == UNLABELLED for split, _ in dealt.values())
        print(
            f"{len(dealt) - bare} patients in {len(ready)} shards, {sum(ready)} of them up to date"
            f"; {bare} patients without contours"
        )
        done = dataset.counter(plans, job.output)
        left = sum(size for size, _ in work)
        workers = runners.local_processes(settings.runner, beam_arguments, left)
        with processes.started(workers, remote), progress.watch(done, len(dealt), "patients"):
            pipeline.run(work, job, settings.runner, beam_arguments)
        known, twins = twins, _twins(patients, job)
        if known == twins:
            return [one.name for one in plans]


def _with_twin(patient: Patient, twins: dict[str, str]) -> Patient:
    """The patient itself where there is none: so that many patients are held once."""
    known = twins.get(patient.name)
    return replace(patient, same_scan_as=known) if known else patient


def _twins(patients, job: Job) -> dict[str, str]:
    ignored = dict(job.severities).get("same_scan") == audit.IGNORE
    return {} if ignored else dataset.twins(job.output, patients)


def _say(made: Dataset, settings: Settings, seconds: float) -> int:
    output = settings.output
    warned = sum(bool(one.audit["findings"]) for one in (*made.patients, *made.unlabelled))
    print(
        f"Wrote {sum(shard.records for shard in made.shards)} slices of {len(made.patients)} "
        f"patients in {len(made.shards)} shards to {output} in {progress.duration(seconds)}; "
        f"{len(made.unlabelled)} patients without contours are listed for prediction"
    )
    if warned or made.rejected:
        print(f"The audit warned about {warned} patients: {files.join(output, 'audit.html')}")
    if made.shards_of(TRAIN) and made.shards_of(VALIDATION):
        phantoms = files.exists(files.join(settings.input, "phantoms.json"))
        flagfile = "configs/smoke.flags" if phantoms else "configs/all.flags"
        print(hint("trainer.main", flagfile=flagfile, data=output, workdir="run"))
    if not made.rejected:
        return 0
    for patient in made.rejected:
        print(f"rejected {patient.patient}: {patient.reason}", file=sys.stderr)
    total = len(made.rejected) + len(made.patients) + len(made.unlabelled)
    print(f"{len(made.rejected)} of {total} patients were rejected", file=sys.stderr)
    return REJECTED_STATUS
