"""Predicts the organs on CT scans, each label map on its scan's own grid.

  python -m serving.predict --model=models/all --input=scans --output=predictions

A second run of the same command does what is missing. One broken scan does not stop the others: it
is named at the end, and the exit status is 1.
"""

import os
import time

from absl import flags

from segthor import files
from segthor.errors import InputError, run
from serving import cases, pipeline

MODEL = flags.DEFINE_list(
    "model",
    None,
    "Model directories from serving.export, with commas between: models of the same organs are "
    "averaged, those of different organs put together.",
    required=True,
)
INPUT = flags.DEFINE_string(
    "input",
    None,
    "A scan; a folder of scans, SegTHOR's train/ and test/ or a folder per patient; a CSV with the "
    "columns patient and ct; or a dataset's folder.",
    required=True,
)
OUTPUT = flags.DEFINE_string("output", None, "Where the label maps go.", required=True)
SPLIT = flags.DEFINE_enum(
    "split", None, ["train", "validation"], "Only the patients that a dataset puts there."
)
LEVEL_MODEL = flags.DEFINE_list(
    "level_model",
    [],
    "Models with a fixed window that run first; their organs give the patient's own level and crop "
    "centre to models that want them.",
)
GATE = flags.DEFINE_string(
    "gate", "", "A classifier; slices that it says do not hold an organ are left empty of it."
)
TTA = flags.DEFINE_boolean("tta", False, "Average over flipped slices.")
POSTPROCESS = flags.DEFINE_boolean(
    "postprocess", True, "Apply what serving.tune stored with the model."
)
PROBABILITIES = flags.DEFINE_boolean(
    "probabilities", False, "Also write a map of each organ's probability."
)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "Predict finished cases again.")
CASE_TIMEOUT = flags.DEFINE_float(
    "case_timeout",
    1800,
    "Seconds that reading, predicting or writing one case may take; then it is given up.",
    lower_bound=0.1,
)


def main(_):
    """Finds the scans, loads the models, walks over the cases."""
    found = cases.scans(INPUT.value, SPLIT.value)
    if any(_same_folder(files.parent(scan.ct), OUTPUT.value) for scan in found):
        raise InputError(f"--output={OUTPUT.value}: the scans lie there; choose another folder")
    from serving.worker import Plan, Worker  # tensorflow takes seconds; bad input is told before

    worker = Worker(
        Plan(
            output=OUTPUT.value,
            models=tuple(MODEL.value),
            level_models=tuple(LEVEL_MODEL.value),
            gate=GATE.value,
            tta=TTA.value,
            rules=POSTPROCESS.value,
            probabilities=PROBABILITIES.value,
            case_timeout_s=CASE_TIMEOUT.value,
        )
    )
    worker.results.claim(OVERWRITE.value)
    todo = [s for s in found if OVERWRITE.value or not worker.results.is_finished(s)]
    print(f"{len(found)} scans in {INPUT.value}, {len(found) - len(todo)} of them done before.")
    failed = _walk(todo, worker)
    return _conclude(len(todo), failed)


def _walk(todo, worker) -> list[pipeline.Outcome]:
    """Predicts with a line per case; returns those that failed."""
    began, failed = time.monotonic(), []
    outcomes = pipeline.walk(
        todo, worker.read, worker.compute, worker.write, worker.plan.case_timeout_s
    )
    for number, outcome in enumerate(outcomes, 1):
        left_s = (time.monotonic() - began) / number * (len(todo) - number)
        state = f"FAILED: {outcome.reason}" if outcome.reason else f"{outcome.seconds:.1f} s"
        print(
            f"[{number}/{len(todo)}] {outcome.case.patient}  {state}  ({_span(left_s)} left)",
            flush=True,
        )
        if outcome.reason:
            worker.results.write_failure(outcome.case, outcome.reason)
            failed.append(outcome)
    return failed


def _conclude(count: int, failed) -> int:
    for outcome in failed:
        print(f"failed: {outcome.case.patient} ({outcome.case.ct}): {outcome.reason}")
    again = "; the same command tries them again" if failed else ""
    print(
        f"{count - len(failed)} label maps written to {OUTPUT.value}, {len(failed)} failed{again}."
    )
    print(
        f"Next, with contours: python -m serving.evaluate --predictions={OUTPUT.value} "
        f"--labels=LABELS --scans={INPUT.value} --output=evaluation"
    )
    return 1 if failed else 0


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _same_folder(one: str, other: str) -> bool:
    if files.is_url(one) or files.is_url(other):
        return one.rstrip("/") == other.rstrip("/")
    return os.path.realpath(one) == os.path.realpath(other)


if __name__ == "__main__":
    run(main)
