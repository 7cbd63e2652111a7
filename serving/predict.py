"""Predicts the organs on CT scans, each label map on its scan's own grid.

  python -m serving.predict --model=models/all --input=scans --output=predictions

A second run of the same command does what is missing. One broken scan does not stop the others: it
is named at the end, and the exit status is 1.
"""

import time

from absl import flags

from segthor import dicom, files, inputs, locks, progress, startup
from segthor import model_directory as directory
from segthor.errors import InputError, hint, run
from segthor.findings import REJECT
from serving.prediction import engine, overview, walk

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
FORMATS = flags.DEFINE_list(
    "formats",
    ["nifti"],
    "What to write of each scan: nifti, always; of DICOM scans also rtstruct (a structure set, for "
    "planning systems), seg (for research viewers) or labelmap (the newer kind of SEG).",
)
ENGINE = flags.DEFINE_enum(
    "engine",
    engine.TENSORFLOW,
    engine.ENGINES,
    "What computes the networks: openvino is faster on many processors (pip install "
    "segthor[openvino]); its label maps differ at most where two organs are equally likely.",
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
    upper_bound=1e6,
)
MOST_SCAN = flags.DEFINE_float(
    "most_scan_gb",
    0.0,
    "Memory that one scan may fill; 0: a third of what is free.",
    lower_bound=0,
    upper_bound=1e6,
)
REVIEW_RECALL = flags.DEFINE_float(
    "review_recall",
    0.95,
    "Of the bad predictions, the share that the cases marked for review must hold (needs "
    "serving.calibrate).",
    lower_bound=0,
    upper_bound=1,
)
for _number in (CASE_TIMEOUT, MOST_SCAN, REVIEW_RECALL):
    # NaN is neither below nor above a bound.
    flags.register_validator(_number, lambda value: value == value, "expected a number")


def main(argv):
    """Finds the scans, loads the models, walks over the cases."""
    if RUNNER.value:
        from segthor import runners  # Beam takes a second

        runners.check_options(RUNNER.value, argv[1:])
    elif argv[1:]:
        raise InputError(f"unknown option {argv[1]!r}; --help lists those there are")
    found = inputs.find(INPUT.value, SPLIT.value, organs=None)
    _check_folders(found)
    unknown = sorted({*FORMATS.value} - {"nifti", *dicom.FORMATS})
    if unknown:
        known = ", ".join(("nifti", *dicom.FORMATS))
        raise InputError(f"--formats: expected some of {known}; found {unknown[0]!r}")
    engine.require(ENGINE.value)
    startup.load_tensorflow()
    from serving.prediction.worker import Worker  # takes seconds; bad input is told before

    worker = Worker(_plan())
    with locks.alone(OUTPUT.value):
        return _predict(found, worker, argv[1:])


def _check_folders(found) -> None:
    """Raises InputError where results would lie among the inputs, or a model is missing."""
    if any(files.is_same(folder, OUTPUT.value) for folder in {files.parent(s.ct) for s in found}):
        raise InputError(f"--output={OUTPUT.value}: the scans lie there; choose another folder")
    for model in (*MODEL.value, *LEVEL_MODEL.value, *filter(None, [GATE.value])):
        directory.newest(model)
        if files.is_same(model, OUTPUT.value):
            raise InputError(f"--output={OUTPUT.value}: a model lies there; choose another folder")


def _predict(found, worker, beam_options) -> int:
    worker.results.claim(OVERWRITE.value, _formats())
    done = (
        []
        if OVERWRITE.value
        else [s for s in found if worker.results.is_finished(s, worker.plan.formats)]
    )
    for scan in done:
        worker.results.forget_failure(scan)
    todo = [scan for scan in found if scan not in done]
    print(
        f"{len(found)} scans in {INPUT.value}, {len(done)} of them done before.",
        flush=True,
    )
    if RUNNER.value and todo:
        from serving.prediction import distributed

        distributed.run(worker.plan, todo, RUNNER.value, beam_options)
    else:
        _walk(todo, worker)
    worker.results.forget_notes()
    _overview(found, worker)
    return _conclude(todo, worker.results)


def _overview(found, worker) -> None:
    """Judges anew what was done with another --review_recall; then says what to open first."""
    for scan in found:
        worker.review_again(scan)
    rows = overview.write(worker.results, found, worker.models.organs)
    marked = sum(row["review"] == "yes" for row in rows)
    path = files.join(OUTPUT.value, overview.FILE_NAME)
    print(f"{marked} of {len(rows)} cases are marked for review; {path} lists them, worst first.")
    if not worker.judge.calibrated:
        print(
            "The model was not calibrated (serving.calibrate): it marks what is unlike its "
            "training data or what the audit cannot believe, and expects no scores."
        )


def _formats() -> tuple[str, ...]:
    """Of DICOM, in one order."""
    return tuple(kind for kind in dicom.FORMATS if kind in FORMATS.value)


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
        again=OVERWRITE.value,
        most_scan_bytes=int(MOST_SCAN.value * 1e9) or None,
        formats=_formats(),
        review_recall=REVIEW_RECALL.value,
        engine=ENGINE.value,
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
        print(
            f"[{number}/{len(todo)}] {outcome.line}{look}  ({progress.duration(left_s)} left)",
            flush=True,
        )


def _look(facts: dict) -> str:
    """Sends people to a result that the audit cannot believe."""
    odd = [f for f in facts.get("findings", ()) if f["severity"] == REJECT]
    return f"  look at it: {odd[0]['message']}" if odd else ""


def _reason(scan, results) -> str:
    """Why the last try gave no label map; '' where it did."""
    failed = results.facts(scan).get("failed", "")
    return failed or ("" if results.is_finished(scan, _formats()) else "its worker was lost")


def _conclude(todo, results) -> int:
    reasons = {scan: _reason(scan, results) for scan in todo}
    failed = [scan for scan, reason in reasons.items() if reason]
    for scan in failed:
        print(f"failed: {scan.name} ({scan.ct}): {reasons[scan]}")
    again = "; the same command tries them again" if failed else ""
    done = len(todo) - len(failed)
    print(f"{done} label maps written to {OUTPUT.value}, {len(failed)} failed{again}.")
    if done or not todo:
        evaluate = hint(
            "serving.evaluate",
            predictions=OUTPUT.value,
            labels=INPUT.value if SPLIT.value else "LABELS",  # a dataset knows its contours
            scans=INPUT.value,
            split=SPLIT.value,
            output="EVALUATION",
        )
        print(evaluate.replace("Next:", "Next, with contours:"))
    return 1 if failed else 0


if __name__ == "__main__":
    run(main, known_only=True)
