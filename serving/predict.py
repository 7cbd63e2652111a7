"""Predicts the organs on CT scans, each label map on its scan's own grid.

  python -m serving.predict --model=models/all --input=scans --output=predictions

A second run of the same command does what is missing. One broken scan does not stop the others.
"""

import time

from absl import flags

from segthor import files
from segthor.errors import InputError, run
from serving import bundle, cases, pipeline, predictor
from serving.results import Results

MODEL = flags.DEFINE_string("model", None, "Model directory, from serving.export.", required=True)
INPUT = flags.DEFINE_string(
    "input",
    None,
    "A scan; a folder of scans, SegTHOR's train/ and test/ or a folder per patient; a CSV with the "
    "columns patient and ct; or a dataset's folder.",
    required=True,
)
OUTPUT = flags.DEFINE_string("output", None, "Where the label maps go.", required=True)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "Predict finished cases again.")
CASE_TIMEOUT = flags.DEFINE_float(
    "case_timeout", 1800, "Seconds after which a case that hangs is given up.", lower_bound=0.1
)


def main(_):
    """Finds the scans, loads the model, walks over the cases."""
    found = cases.scans(INPUT.value)
    if any(_same(files.parent(scan.ct), OUTPUT.value) for scan in found):
        raise InputError(f"--output={OUTPUT.value}: the scans lie there; choose another folder")
    model = bundle.load(MODEL.value).require(bundle.PROBABILITIES)
    if model.recipe.needs_masks:
        raise InputError(
            f"{model.folder}: its window level or crop centre comes from organs "
            f"({model.recipe.window_level}, {model.recipe.crop_center}); name the model that "
            "finds them with --level_model"
        )
    results = Results(OUTPUT.value, {"model": model.digest}, OVERWRITE.value)
    todo = [scan for scan in found if not results.is_finished(scan)]
    print(f"{len(found)} scans in {INPUT.value}, {len(found) - len(todo)} finished before.")
    failed = _predict(todo, model, results)
    return _conclude(len(todo), failed)


def _predict(todo, model, results) -> list[pipeline.Outcome]:
    from segthor import nifti

    def read(scan):
        volume = nifti.read(scan.ct)
        return volume.grid, predictor.prepare_input(model, volume)

    def compute(scan, given):
        grid, prepared = given
        facts = {"level_hu": prepared.prepared.level_hu}
        return predictor.segment(model, prepared), grid, facts

    def write(scan, computed):
        results.write(scan, *computed)

    began, failed = time.monotonic(), []
    outcomes = pipeline.walk(todo, read, compute, write, CASE_TIMEOUT.value)
    for number, outcome in enumerate(outcomes, 1):
        left = (time.monotonic() - began) / number * (len(todo) - number)
        state = f"FAILED: {outcome.reason}" if outcome.reason else f"{outcome.seconds:.1f} s"
        print(f"[{number}/{len(todo)}] {outcome.case.patient}  {state}  ({left:.0f} s left)")
        if outcome.reason:
            failed.append(outcome)
    return failed


def _conclude(count: int, failed) -> int:
    for outcome in failed:
        print(f"failed: {outcome.case.patient}: {outcome.reason}")
    print(f"{count - len(failed)} label maps written to {OUTPUT.value}/, {len(failed)} failed.")
    print(
        f"Next: python -m serving.evaluate --predictions={OUTPUT.value} --labels=LABELS "
        "--output=evaluation"
    )
    return 1 if failed else 0


def _same(one: str, other: str) -> bool:
    import os

    return os.path.realpath(one) == os.path.realpath(other)


if __name__ == "__main__":
    run(main)
