"""The driver of a build: reads the choices, finds and deals the patients, runs the pipeline."""

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
_PHANTOMS = "phantoms.json"  # lies in every folder of segthor.phantom, whose import takes a while


@dataclass(frozen=True)
class Settings:
    """What a user may choose; the fields are the flags of `beam_jobs.build`."""

    input: str
    output: str
    recipe: Recipe = part(Recipe(), "")
    runner: str = option(runners.LOCAL[0], "Any runner of Apache Beam.")
    split: str = option(
        "auto",
        "original: the eight validation patients of the original system; hash: by chance; csv: the "
        "CSV's column; auto: the first of csv, original, hash that fits.",
        plan.SPLITS,
    )
    validation_fraction: float = option(
        0.2, "Share of validation patients with --split=hash.", (0, 1)
    )
    folds: int = option(5, "Folds for cross-validation.", (1, 1000))
    shards: int = option(0, "Shards per split and fold; 0: about 100 to 200 MB each.", (0, 100_000))
    seed: int = option(0, "Deals patients and orders slices.", SEEDS)
    level_masks: str | None = option(
        None,
        "Folder of an earlier model's label maps, for level and centre of patients without "
        "contours of the organs asked for.",
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

    Raises:
      InputError: no patient, none with contours, all rejected, or the output folder is in use.
    """
    started = time.monotonic()
    output = files.absolute(settings.output)
    dataset.claim(output)
    patients = _find(settings, files.join(output, dataset.FOUND))
    contoured = [one for one in patients if one.labels and not one.fault]
    if not contoured:
        faults = [one.fault for one in patients if one.fault]
        raise InputError(
            f"{settings.input}: none of the {len(patients)} patients found has contours"
            f"{' and can be used: ' + faults[0] if faults else ''}; nothing to train on; predict "
            "them with python -m serving.predict"
        )
    job = Job(
        output,
        settings.recipe,
        settings.seed,
        settings.severities,
        patients[0].label_values,
        settings.roi_names,
        int(settings.most_scan_gb * 1e9) or None,
        organs=settings.organs,
    )
    dealt = dict.fromkeys([one.name for one in patients], (UNLABELLED, 0))
    dealt |= _deal(contoured, settings)
    with locks.alone(output):
        from beam_jobs import pipeline  # slow import (Beam takes a second): report bad input first

        dataset.clear_leftovers(output)
        names = pipeline.write_shards(patients, dealt, job, settings, beam_arguments)
        del patients, contoured
        gc.collect()  # Beam leaves its copies of the plans in cycles; the manifest needs room
        rejected = audit_page.write(names, output, job.organs)
        if rejected and settings.strict:
            table = files.join(output, "audit.csv")
            raise InputError(f"{rejected} patients were rejected (--strict); see {table}")
        made = pipeline.write_manifest(names, job, settings.folds)
    return _say(made, settings, time.monotonic() - started)


def _find(settings: Settings, kept: str) -> tuple[Patient, ...]:
    """kept: see `inputs.find`."""
    if inputs.is_dataset(settings.input):
        raise InputError(
            f"{settings.input}: is a dataset that was built; name the folder or CSV of its patients"
        )
    patients = inputs.find(
        settings.input,
        label_values=settings.label_values,
        organs=settings.organs,
        kept=kept,
        series=settings.series,
    )
    if settings.level_masks:
        _check_numbers(settings.level_masks, settings.organs)
        patients = inputs.with_masks(patients, settings.level_masks)
    return patients


def _check_numbers(level_masks: str, organs: Organs) -> None:
    """Raises InputError where the label maps number organs otherwise than the table."""
    theirs = inputs.noted_organs(level_masks)
    for name, label in (theirs.numbers if theirs else {}).items():
        ours = organs.numbers.get(name, label)
        if ours != label:
            raise InputError(
                f"--level_masks={level_masks}: notes {name} as {label}, the table of organs has "
                f"{ours}; expected predictions of a model that was trained with this table"
            )


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


def _say(made: Dataset, settings: Settings, seconds: float) -> int:
    output = settings.output
    warned = sum(bool(one.audit.findings) for one in (*made.patients, *made.unlabelled))
    print(
        f"Wrote {sum(shard.records for shard in made.shards)} slices of {len(made.patients)} "
        f"patients in {len(made.shards)} shards to {output} in {progress.duration(seconds)}; "
        f"{len(made.unlabelled)} patients without contours are listed for prediction"
    )
    if warned or made.rejected:
        print(f"The audit warned about {warned} patients: {files.join(output, 'audit.html')}")
    _warn_of_names(made)
    print(_next(made, settings))
    if not made.rejected:
        return 0
    for patient in made.rejected:
        print(f"rejected {patient.patient}: {patient.reason}", file=sys.stderr)
    total = len(made.rejected) + len(made.patients) + len(made.unlabelled)
    print(f"{len(made.rejected)} of {total} patients were rejected", file=sys.stderr)
    return REJECTED_STATUS


def _warn_of_names(made: Dataset) -> None:
    """Names each organ whose --roi_names no structure set of some patients has."""
    rows = [*made.patients, *made.rejected]
    findings = [row.findings if row in made.rejected else row.audit.findings for row in rows]
    messages = Counter(f.message for own in findings for f in own if f.code == _UNMATCHED)
    for message, count in sorted(messages.items()):
        print(f"warning: {message} ({count} of {len(rows)} patients)", file=sys.stderr)


def _next(made: Dataset, settings: Settings) -> str:
    """The command that trains on what was built, or why nothing can."""
    contoured = {
        side: {name for one in made.patients if one.split == side for name in one.organs}
        for side in (TRAIN, VALIDATION)
    }
    learned = [name for name in made.organs.names if name in contoured[TRAIN]]
    if not contoured[VALIDATION] & set(learned):
        return (
            "Not to be trained on: no organ is contoured in patients of both splits; --split, "
            "--seed or --validation_fraction deal others"
        )
    phantoms = files.exists(files.join(settings.input, _PHANTOMS))
    return hint(
        "trainer.main",
        flagfile=f"configs/{'smoke' if phantoms else 'all'}.flags",
        # ImageNet's weights, which all.flags takes, want three channels.
        encoder_weights=None if phantoms or made.recipe.context == 3 else "none",
        organs=None if len(learned) == len(made.organs) else learned,
        data=settings.output,
        workdir="RUN",
    )
