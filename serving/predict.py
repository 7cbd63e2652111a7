"""Predicts the organs on CT scans, each label map on its scan's own grid.

  python -m serving.predict --model=models/all --input=scans --output=predictions

A second run of the same command does what is missing. One broken scan does not stop the others: it
is named at the end, and the exit status is 1.
"""

import os
import time

from absl import flags

from segthor import audit, files, inputs
from segthor.errors import InputError, run
from serving.prediction import walk

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
RUNNER = flags.DEFINE_string(
    "runner", None, "Run as a job of Apache Beam on this runner; its own options pass through."
)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "Predict finished cases again.")
CASE_TIMEOUT = flags.DEFINE_float(
    "case_timeout",
    1800,
    "Seconds that reading, predicting or writing one case may take; then it is given up.",
    lower_bound=0.1,
)


def main(argv):
    """Finds the scans, loads the models, walks over the cases."""
    if RUNNER.value:
        from segthor import runners  # Beam takes a second

        runners.check_options(RUNNER.value, argv[1:])
    elif argv[1:]:
        raise InputError(f"unknown option {argv[1]!r}; --help lists those there are")
    found = inputs.find(INPUT.value, SPLIT.value)
    if any(_same_folder(files.parent(scan.ct), OUTPUT.value) for scan in found):
        raise InputError(f"--output={OUTPUT.value}: the scans lie there; choose another folder")
    from serving.prediction.worker import (
        Worker,  # tensorflow takes seconds; bad input is told before
    )

    worker = Worker(_plan())
    worker.results.claim(OVERWRITE.value)
    for scan in found if OVERWRITE.value else ():
        worker.results.forget(scan)
    todo = [scan for scan in found if not worker.results.is_finished(scan)]
    print(
        f"{len(found)} scans in {INPUT.value}, {len(found) - len(todo)} of them done before.",
        flush=True,
    )
    if RUNNER.value and todo:
        from serving.prediction import distributed

        distributed.run(worker.plan, todo, RUNNER.value, argv[1:])
    else:
        _walk(todo, worker)
    return _conclude(todo, worker.results)


def _plan():
    from serving.prediction.worker import Plan

    return Plan(
        output=files.absolute(OUTPUT.value),
        models=tuple(map(files.absolute, MODEL.value)),
        level_models=tuple(map(files.absolute, LEVEL_MODEL.value)),
        gate=files.absolute(GATE.value) if GATE.value else "",
        tta=TTA.value,
        rules=POSTPROCESS.value,
        probabilities=PROBABILITIES.value,
        case_timeout_s=CASE_TIMEOUT.value,
    )


def _walk(todo, worker) -> None:
    """Predicts here, with a line per case."""
    began = time.monotonic()
    outcomes = walk.walk(
        todo, worker.read, worker.compute, worker.write, worker.plan.case_timeout_s
    )
    for number, outcome in enumerate(outcomes, 1):
        if outcome.reason:
            worker.results.write_failure(outcome.case, outcome.reason)
        look = _look(worker.results.facts(outcome.case))
        left_s = (time.monotonic() - began) / number * (len(todo) - number)
        print(f"[{number}/{len(todo)}] {outcome.line}{look}  ({_span(left_s)} left)", flush=True)


def _look(facts: dict) -> str:
    """Sends people to a result that the audit cannot believe."""
    odd = [f for f in facts.get("findings", ()) if f["severity"] == audit.REJECT]
    return f"  look at it: {odd[0]['message']}" if odd else ""


def _conclude(todo, results) -> int:
    failed = [scan for scan in todo if not results.is_finished(scan)]
    for scan in failed:
        reason = results.facts(scan).get("failed", "nothing is known of it; its worker was lost")
        print(f"failed: {scan.name} ({scan.ct}): {reason}")
    again = "; the same command tries them again" if failed else ""
    done = len(todo) - len(failed)
    print(f"{done} label maps written to {OUTPUT.value}, {len(failed)} failed{again}.")
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
    run(main, known_only=True)
