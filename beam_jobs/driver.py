"""The driver of a build: finds the patients, assigns them to splits, runs the pipeline, reports."""

import gc
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from beam_jobs import audit_page, dataset, plan
from beam_jobs.job import Job
from segthor import files, inputs, locks, progress, runners
from segthor.errors import InputError, hint
from segthor.findings import check_severities
from segthor.manifest import TRAIN, UNLABELLED, VALIDATION, Dataset
from segthor.options import SEEDS, check, option, part
from segthor.organs import Organs
from segthor.patients import Patient
from segthor.recipe import Recipe

REJECTED_STATUS = 3
_UNMATCHED = "roi_names_unmatched"
_PHANTOMS = "phantoms.json"  # in each folder of segthor.phantom, whose import would take a while


@dataclass(frozen=True)
class Settings:
    """What a user may choose. Fields with a help text are flags of `beam_jobs.build`.

    input: Folder or CSV of the patients.
    output: Folder of the dataset.
    organs: The table of organs.
    label_values, roi_names, severities: See `job.Job`.
    series: Which volumes of a DICOM patient are built; see `patient_table.read_series`.
    """

    input: str
    output: str
    recipe: Recipe = part(Recipe(), "")
    runner: str = option(runners.LOCAL[0], "Any runner of Apache Beam.")
    split: str = option(
        "auto",
        "original: the eight validation patients of the original system; hash: at random, by the "
        "patient's name; csv: the CSV's column; auto: the first of csv, original, hash that fits.",
        plan.SPLITS,
    )
    validation_fraction: float = option(
        0.2, "Share of validation patients with --split=hash.", (0, 1)
    )
    folds: int = option(5, "Folds for cross-validation.", (1, 1000))
    shards: int = option(0, "Shards per split and fold; 0: about 100 to 200 MB each.", (0, 100_000))
    seed: int = option(0, "Seed of --split=hash, of the folds and of the slices' order.", SEEDS)
    level_masks: str | None = option(
        None,
        "Folder of an earlier model's label maps, which give level and centre of patients without "
        "contours of the organs of --window_level and --crop_center.",
    )
    organs: Organs = field(kw_only=True)
    label_values: tuple[tuple[str, int], ...] = ()
    roi_names: tuple[tuple[str, str], ...] = ()
    series: str | tuple[tuple[str, str], ...] = ""
    severities: tuple[tuple[str, str], ...] = ()
    strict: bool = option(False, "Whether one rejected patient fails the build.")
    most_scan_gb: float = option(
        0.0,
        "Memory that one scan may fill; 0: a third of what is free, shared by the local workers.",
        (0, 1e6),
    )

    def __post_init__(self):
        check(self)
        check_severities(dict(self.severities))
        self.recipe.require_organs(self.organs)


def build(settings: Settings, beam_arguments=()) -> int:
    """Writes the shards that are not up to date, then the manifest; returns the exit status.

    beam_arguments: Options of Apache Beam from the command line.

    Raises:
      InputError: No patient with contours, all rejected, or another process writes to the output.
    """
    started = time.monotonic()
    output = files.absolute(settings.output)
    dataset.check_output(output)
    patients = _find_patients(settings, files.join(output, dataset.PATIENTS_CACHE))
    assigned = dict.fromkeys([one.name for one in patients], (UNLABELLED, 0))
    assigned |= _assign_splits(_require_contours(patients, settings.input), settings)
    job = _make_job(output, settings, patients)
    with locks.lock_folder(output):
        from beam_jobs import pipeline  # slow import (Beam takes a second): report bad input first

        dataset.clear_leftovers(output)
        names = pipeline.write_shards(patients, assigned, job, settings, beam_arguments)
        del patients
        gc.collect()  # frees Beam's copies of the plans, which lie in cycles, before the manifest
        rejected = audit_page.write(names, output, job.organs)
        if rejected and settings.strict:
            table = files.join(output, "audit.csv")
            raise InputError(f"{rejected} patients were rejected (--strict); see {table}")
        made = pipeline.write_manifest(names, job, settings.folds)
    return _report(made, settings, time.monotonic() - started)


def _make_job(output: str, settings: Settings, patients) -> Job:
    return Job(
        output,
        settings.recipe,
        settings.seed,
        settings.severities,
        patients[0].label_values,
        settings.roi_names,
        int(settings.most_scan_gb * 1e9) or None,
        organs=settings.organs,
    )


def _find_patients(settings: Settings, cache: str) -> tuple[Patient, ...]:
    """The patients of the input. cache: See `inputs.find`."""
    if inputs.is_dataset(settings.input):
        raise InputError(
            f"{settings.input}: is a dataset that was built; name the folder or CSV of its patients"
        )
    patients = inputs.find(
        settings.input,
        label_values=settings.label_values,
        organs=settings.organs,
        cache=cache,
        series=settings.series,
    )
    if settings.level_masks:
        _check_mask_labels(settings.level_masks, settings.organs)
        patients = inputs.add_masks(patients, settings.level_masks)
    return patients


def _require_contours(patients, path: str) -> list[Patient]:
    """The patients that can be trained on; InputError where there is none."""
    contoured = [one for one in patients if one.labels and not one.fault]
    if not contoured:
        faults = [one.fault for one in patients if one.fault]
        raise InputError(
            f"{path}: none of the {len(patients)} patients found has contours"
            f"{' and can be used: ' + faults[0] if faults else ''}; nothing to train on; predict "
            "them with python -m serving.predict"
        )
    return contoured


def _check_mask_labels(level_masks: str, organs: Organs) -> None:
    """Raises InputError where an organ has another label in the label maps than in the table."""
    predicted = inputs.read_predicted_organs(level_masks)
    for name, label in (predicted.numbers if predicted else {}).items():
        expected = organs.numbers.get(name, label)
        if expected != label:
            raise InputError(
                f"--level_masks={level_masks}: {name} has the label {label}, in the table of "
                f"organs {expected}; expected predictions of a model trained with this table"
            )


def _assign_splits(contoured, settings: Settings) -> dict[str, tuple[str, int]]:
    split = plan.choose_split(settings.split, contoured)
    assigned = plan.assign_splits(
        contoured, split, settings.validation_fraction, settings.folds, settings.seed
    )
    sides = [side for side, _ in assigned.values()]
    print(f"Split {split}: {sides.count(TRAIN)} for training, {sides.count(VALIDATION)} held out")
    lacking = {
        TRAIN: "no patient to train on",
        VALIDATION: "no patient is held out: training will give no scores",
    }
    for side in sorted(set(lacking) - set(sides)):
        print(
            f"warning: {lacking[side]}; another --split, --seed or --validation_fraction gives "
            "other splits",
            file=sys.stderr,
        )
    return assigned


def _report(made: Dataset, settings: Settings, seconds: float) -> int:
    """Prints what was built and rejected, and the next command; returns the exit status."""
    output = settings.output
    warned = sum(bool(one.audit.findings) for one in (*made.patients, *made.unlabelled))
    print(
        f"Wrote {sum(shard.records for shard in made.shards)} slices of {len(made.patients)} "
        f"patients in {len(made.shards)} shards to {output} in {progress.duration(seconds)}; "
        f"{len(made.unlabelled)} patients without contours are listed for prediction"
    )
    if warned or made.rejected:
        print(f"The audit warned about {warned} patients: {files.join(output, 'audit.html')}")
    _warn_unmatched_names(made)
    print(_suggest_next(made, settings))
    if not made.rejected:
        return 0
    for patient in made.rejected:
        print(f"rejected {patient.patient}: {patient.reason}", file=sys.stderr)
    total = len(made.rejected) + len(made.patients) + len(made.unlabelled)
    print(f"{len(made.rejected)} of {total} patients were rejected", file=sys.stderr)
    return REJECTED_STATUS


def _warn_unmatched_names(made: Dataset) -> None:
    """Prints each finding about --roi_names once, with its number of patients."""
    findings = [one.audit.findings for one in made.patients]
    findings += [one.findings for one in made.rejected]
    messages = Counter(f.message for own in findings for f in own if f.code == _UNMATCHED)
    for message, count in sorted(messages.items()):
        print(f"warning: {message} ({count} of {len(findings)} patients)", file=sys.stderr)


def _suggest_next(made: Dataset, settings: Settings) -> str:
    """The command that trains on the dataset, or the reason why that is not possible."""
    contoured = {
        side: {name for one in made.patients if one.split == side for name in one.organs}
        for side in (TRAIN, VALIDATION)
    }
    learned = [name for name in made.organs.names if name in contoured[TRAIN]]
    held_out = any(one.split == VALIDATION for one in made.patients)
    if not learned or held_out and not contoured[VALIDATION] & set(learned):
        where = "patients of both splits" if held_out else "the training patients"
        return (
            f"Cannot be trained on: no organ is contoured in {where}; another --split, --seed or "
            "--validation_fraction gives other splits"
        )
    phantoms = files.exists(files.join(settings.input, _PHANTOMS))
    return hint(
        "trainer.main",
        flagfile=f"configs/{'smoke' if phantoms else 'all'}.flags",
        organs=None if len(learned) == len(made.organs) else learned,
        data=settings.output,
        workdir="RUN",
    )
