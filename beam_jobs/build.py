"""Builds a dataset of TFRecord shards from patients' CT and contours.

python -m beam_jobs.build --input=DIR|CSV --output=DIR [--runner=DirectRunner]

--input is a folder in SegTHOR's or nnU-Net's layout, or a CSV with the columns
patient,ct,labels,split,organs. Without --input, phantom patients are made and built. Options of
Apache Beam pass through. A second run rewrites only what changed.

Exit status: 0; 3 where patients were rejected and the others built; 2 for an error.
"""

import dataclasses
import sys
import time

from absl import flags

from beam_jobs import dataset, patients, pipeline, plan, progress, report, table
from beam_jobs.job import Job
from segthor import audit, files, organs, phantom
from segthor.errors import InputError, run
from segthor.manifest import DEFAULT_DATASET, TRAIN, VALIDATION
from segthor.recipe import Recipe

DEFAULT_PHANTOMS = "data/phantoms"
PHANTOM_RECIPE = {"crop_mm": 264.0, "pixel_mm": 2.75}  # a matrix of 96, as in demo_build.flags
REJECTED_STATUS = 3

_INPUT = flags.DEFINE_string("input", None, "Folder of patients, or CSV; phantoms if not given.")
_OUTPUT = flags.DEFINE_string("output", DEFAULT_DATASET, "Folder of the dataset.")
_RUNNER = flags.DEFINE_string("runner", "DirectRunner", "Any runner of Apache Beam.")
_SPLIT = flags.DEFINE_enum(
    "split",
    "auto",
    plan.SPLITS,
    "original: the eight validation patients of the original system; hash: by chance; csv: the "
    "CSV's column; auto: the first of csv, original, hash that fits.",
)
_FRACTION = flags.DEFINE_float(
    "validation_fraction", 0.2, "Share of validation patients with --split=hash.", 0, 1
)
_FOLDS = flags.DEFINE_integer("folds", 5, "Folds for cross-validation.", lower_bound=1)
_SHARDS = flags.DEFINE_integer(
    "shards", 0, "Shards per split and fold; 0: about 100 to 200 MB each.", lower_bound=0
)
_SEED = flags.DEFINE_integer("seed", 0, "Deals patients and orders slices.", lower_bound=0)
_CROP_MM = flags.DEFINE_float("crop_mm", None, "Side of the square box (default: 256).")
_PIXEL_MM = flags.DEFINE_float("pixel_mm", None, "In-plane pixel; 0: the scan's own (default: 1).")
_CONTEXT = flags.DEFINE_integer("context", None, "Slices per image, odd (default: 3).")
_WIDTH = flags.DEFINE_float("window_width", None, "Width of the window in HU (default: 350).")
_LEVEL = flags.DEFINE_string(
    "window_level", None, "HU, or median:ORGANS or mean:ORGANS, the patient's own (default: 50)."
)
_CENTER = flags.DEFINE_string(
    "crop_center", None, "Centre of the box: body or organs:ORGANS (default: body)."
)
_MASKS = flags.DEFINE_string(
    "level_masks", None, "Folder of an earlier model's label maps, for level and centre of "
    "patients whose contours lack the organs asked for."
)  # fmt: skip
_LABELS = flags.DEFINE_list(
    "labels", [], "The input's label values, ORGAN=VALUE,...; other values are background."
)
_SEVERITY = flags.DEFINE_list(
    "severity",
    [],
    "CODE=reject|warn|ignore,... for the audit's findings; docs/data.md has them.",
)
_STRICT = flags.DEFINE_bool("strict", False, "Whether one rejected patient fails the build.")


def main(argv):
    """Finds the patients, writes the shards that are not up to date, then the manifest."""
    started = time.monotonic()
    pipeline.check_options(_RUNNER.value, argv[1:])
    job = _job()
    dataset.claim(job.output)
    found = _find()
    job = dataclasses.replace(job, label_values=job.label_values or found.label_values)
    found = patients.only(found, [name for name, _ in job.label_values] or organs.NAMES)
    contoured = [source for source in found.sources if source.labels]
    if not contoured:
        raise InputError(
            f"{_INPUT.value}: none of the {len(found.sources)} patients found has contours: "
            "nothing to train on; predict them with python -m serving.predict"
        )
    dealt = _deal(contoured)
    plans = _write_shards(contoured, dealt, job, argv[1:])
    rejected = report.write(plans, job.output)
    if rejected and _STRICT.value:
        raise InputError(f"{rejected} patients were rejected (--strict); {job.output}/audit.csv")
    unlabelled = [source for source in found.sources if not source.labels]
    made = dataset.finish(plans, unlabelled, job, _FOLDS.value)
    return _say(made, job.output, time.monotonic() - started)


def _find() -> patients.Found:
    path = files.absolute(_INPUT.value or _make_phantoms())
    if files.is_dir(path):
        found = patients.in_folder(path)
    elif path.lower().endswith(".csv"):
        found = table.in_csv(path)
    else:
        state = "a file" if files.exists(path) else "nothing"
        raise InputError(f"{path}: expected a folder of patients or a .csv, found {state}")
    if not _MASKS.value:
        return found
    masked = patients.with_masks(found.sources, files.absolute(_MASKS.value))
    return dataclasses.replace(found, sources=masked)


def _make_phantoms() -> str:
    print(f"No --input: making 24 phantoms with contours and 4 without in {DEFAULT_PHANTOMS}")
    phantom.write_dataset(DEFAULT_PHANTOMS, 24, 4, "small", 0)
    return DEFAULT_PHANTOMS


def _job() -> Job:
    given = {
        "crop_mm": _CROP_MM.value,
        "pixel_mm": _PIXEL_MM.value,
        "context": _CONTEXT.value,
        "window_width_hu": _WIDTH.value,
        "window_level": _LEVEL.value,
        "crop_center": _CENTER.value,
    }
    given = {field: value for field, value in given.items() if value is not None}
    severities = _pairs("severity", _SEVERITY.value)
    audit.check_severities(severities)
    return Job(
        output=files.absolute(_OUTPUT.value),
        recipe=Recipe(**(({} if _INPUT.value else PHANTOM_RECIPE) | given)),
        seed=_SEED.value,
        severities=tuple(sorted(severities.items())),
        label_values=_label_values(),
    )


def _label_values() -> tuple[tuple[str, int], ...]:
    values = _pairs("labels", _LABELS.value)
    for name, value in values.items():
        if name not in organs.NAMES or not value.isdigit() or not 0 < int(value) < 65536:
            known = ", ".join(organs.NAMES)
            raise InputError(f"labels: expected ORGAN=VALUE with {known}; found {name}={value}")
    return tuple((name, int(values[name])) for name in organs.NAMES if name in values)


def _pairs(flag: str, items: list[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in items]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise InputError(f"{flag}: expected NAME=VALUE,NAME=VALUE; found {name + equals!r}")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _deal(contoured) -> dict[str, tuple[str, int]]:
    split = plan.choose_split(_SPLIT.value, contoured)
    dealt = plan.deal(contoured, split, _FRACTION.value, _FOLDS.value, _SEED.value)
    sides = [side for side, _ in dealt.values()]
    print(f"Split {split}: {sides.count(TRAIN)} for training, {sides.count(VALIDATION)} held out")
    for side in sorted({TRAIN, VALIDATION} - set(sides)):
        print(
            f"warning: no patient for {side}; --split, --seed or --validation_fraction deal others",
            file=sys.stderr,
        )
    return dealt


def _write_shards(contoured, dealt, job: Job, beam_arguments) -> list[plan.ShardPlan]:
    """Plans and writes; again where the scans read turn out to hold one under two names."""
    most = plan.patients_per_shard(job.recipe)
    twins = dataset.twins(job.output, contoured)
    while True:
        sources = [dataclasses.replace(s, twin=twins.get(s.patient, "")) for s in contoured]
        plans = plan.plan_shards(sources, dealt, most, _SHARDS.value, _SEED.value)
        ready, bytes_left = dataset.prepare(plans, job)
        print(f"{len(contoured)} patients in {len(plans)} shards, {ready} of them up to date")
        options, runner = pipeline.options_of(_RUNNER.value, beam_arguments, bytes_left)
        done = dataset.counter(plans, job.output)
        with progress.watch(done, len(contoured), "patients"):
            pipeline.run(plans, job, options, runner)
        known, twins = twins, dataset.twins(job.output, contoured)
        if known == twins:
            return plans


def _say(made, output: str, seconds: float) -> int:
    warned = sum(bool(patient.audit["findings"]) for patient in made.patients)
    print(
        f"Wrote {sum(shard.records for shard in made.shards)} slices of {len(made.patients)} "
        f"patients in {len(made.shards)} shards to {output} in {progress.duration(seconds)}; "
        f"{len(made.unlabelled)} patients without contours are listed for prediction"
    )
    if warned or made.rejected:
        print(f"The audit warned about {warned} patients: {files.join(output, 'audit.html')}")
    print(
        "Next: python -m trainer.main --flagfile=configs/smoke.flags "
        f"--data={_OUTPUT.value} --workdir=run"
    )
    if not made.rejected:
        return 0
    for patient in made.rejected:
        print(f"rejected {patient.patient}: {patient.findings[0]['message']}", file=sys.stderr)
    total = len(made.rejected) + len(made.patients)
    print(f"{len(made.rejected)} of {total} patients were rejected", file=sys.stderr)
    return REJECTED_STATUS


if __name__ == "__main__":
    run(main, known_only=True)
