"""Builds a dataset of TFRecord shards from patients' CT and contours.

python -m beam_jobs.build --input=DIR|CSV --output=DIR [--runner=DirectRunner]

--input is a folder in the SegTHOR data set's layout or a CSV with the columns
patient,ct,labels,split,organs. Without --input, phantom patients are made and built. Options of
Apache Beam pass through. A second run rewrites only what changed.

Exit status: 0, or 3 where patients were rejected and the rest was built, or 2 for an error.
"""

import importlib.metadata
import os
import sys
import time

from absl import flags

from beam_jobs import dataset, patients, pipeline, plan, progress, shards
from beam_jobs.job import Job
from segthor import files, phantom
from segthor.errors import InputError, run
from segthor.manifest import DEFAULT_DATASET, TRAIN, VALIDATION
from segthor.recipe import Recipe

DEFAULT_PHANTOMS = "data/phantoms"
PHANTOM_RECIPE = {"crop_mm": 264.0, "pixel_mm": 2.75}  # for scans of 128x128 pixels
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


def main(argv):
    """Finds the patients, plans the shards, runs the pipeline, writes the manifest."""
    started = time.monotonic()
    job = Job(_absolute(_OUTPUT.value), _recipe(), _SEED.value)
    dataset.claim(job.output)
    sources = patients.discover(_absolute(_INPUT.value or _make_phantoms()))
    contoured = [source for source in sources if source.labels]
    if not contoured:
        raise InputError(
            f"{_INPUT.value}: {len(sources)} patients found, none with contours: nothing to train "
            "on; predict them with python -m serving.predict"
        )
    plans = _plan(contoured)
    bytes_left = dataset.prepare(plans, job)
    options, runner = pipeline.options_of(_RUNNER.value, argv[1:], bytes_left)
    todo = [one for one in plans if shards.load_part(job.output, one) is None]
    print(
        f"{len(contoured)} patients with contours, {len(sources) - len(contoured)} without; "
        f"{len(plans) - len(todo)} of {len(plans)} shards are up to date"
    )
    done = lambda: dataset.patients_done(plans, job.output)  # noqa: E731
    with progress.watch(done, len(contoured), "patients"):
        pipeline.run(plans, job, options, runner)
    unlabelled = [source for source in sources if not source.labels]
    made = dataset.finish(plans, unlabelled, job, _FOLDS.value, _versions())
    return _report(made, job.output, time.monotonic() - started)


def _recipe() -> Recipe:
    given = {
        "crop_mm": _CROP_MM.value,
        "pixel_mm": _PIXEL_MM.value,
        "context": _CONTEXT.value,
        "window_width_hu": _WIDTH.value,
        "window_level": _LEVEL.value,
        "crop_center": _CENTER.value,
    }
    given = {field: value for field, value in given.items() if value is not None}
    return Recipe(**({} if _INPUT.value else PHANTOM_RECIPE) | given)


def _make_phantoms() -> str:
    print(
        f"No --input: making 24 phantom patients with contours and 4 without in {DEFAULT_PHANTOMS}"
    )
    phantom.write_dataset(DEFAULT_PHANTOMS, 24, 4, "small", 0)
    return DEFAULT_PHANTOMS


def _plan(contoured) -> list[plan.ShardPlan]:
    split = plan.choose_split(_SPLIT.value, contoured)
    dealt = plan.deal(contoured, split, _FRACTION.value, _FOLDS.value, _SEED.value)
    sides = [side for side, _ in dealt.values()]
    print(f"Split: {split}, {sides.count(TRAIN)} for training, {sides.count(VALIDATION)} held out")
    for side in {TRAIN, VALIDATION} - set(sides):
        print(
            f"warning: no patient for {side}; another --split or --seed deals differently",
            file=sys.stderr,
        )
    most = plan.patients_per_shard(_recipe())
    return plan.plan_shards(contoured, dealt, most, _SHARDS.value, _SEED.value)


def _report(made, output: str, seconds: float):
    for patient in made.rejected:
        for finding in patient.findings:
            print(f"rejected: {patient.patient}: {finding['message']}", file=sys.stderr)
    print(
        f"Wrote {sum(shard.records for shard in made.shards)} slices of {len(made.patients)} "
        f"patients in {len(made.shards)} shards to {output} ({progress.duration(seconds)})"
    )
    print(
        "Next: python -m trainer.main --flagfile=configs/smoke.flags "
        f"--data={_OUTPUT.value} --workdir=run"
    )
    if made.rejected:
        count = f"{len(made.rejected)} of {len(made.rejected) + len(made.patients)} patients"
        print(f"{count} were rejected; {output}/dataset.json says why", file=sys.stderr)
        return REJECTED_STATUS
    return 0


def _versions() -> dict:
    names = ("segthor", "numpy", "scipy", "nibabel", "isal", "apache-beam")
    return {name: importlib.metadata.version(name) for name in names}


def _absolute(path: str) -> str:
    return path if files.is_url(path) else os.path.abspath(path)


if __name__ == "__main__":
    run(main, known_only=True)
