"""Predicts organs on CT scans; each label map has the grid of its scan.

  python -m serving.predict --model=models/all --input=scans --output=predictions

Repeat the same command to predict the cases that are missing. Scans that cannot be predicted are
listed at the end with the reason, and the exit status is 1.
"""

import time

from absl import flags

from segthor import files, flags_of, inputs, locks, outputs, patient_table, progress, startup
from segthor import model_directory as directory
from segthor.errors import InputError, hint, run
from segthor.findings import REJECT
from serving import card
from serving.prediction import engine
from serving.prediction.plan import Plan
from serving.review import overview

INPUT = flags.DEFINE_string(
    "input",
    None,
    "A scan; a folder of scans, SegTHOR's train/ and test/ or a folder per patient; a CSV with the "
    "columns patient and ct; or a dataset's folder.",
    required=True,
)
SPLIT = flags.DEFINE_enum(
    "split", None, ["train", "validation"], "Predict only these patients of a dataset."
)
SERIES = flags.DEFINE_string("series", "", patient_table.SERIES_HELP)
RUNNER = flags.DEFINE_string(
    "runner", None, "Run as an Apache Beam job on this runner; its options are passed on."
)
flags_of.define(Plan)


def main(argv):
    """Finds the scans, loads the models, predicts the cases one by one."""
    if RUNNER.value:
        from segthor import runners  # slow import: Beam

        runners.check_options(RUNNER.value, argv[1:])
    elif argv[1:]:
        raise InputError(f"unknown option {argv[1]!r}; --help lists the options")
    plan = flags_of.read(Plan)
    _check_output(plan)
    series = patient_table.read_series(SERIES.value)
    patients = inputs.find(INPUT.value, SPLIT.value, organs=None, series=series)
    _check_folders(patients, plan)
    engine.require(plan.engine)
    startup.load_tensorflow()
    from serving.prediction.worker import Worker  # slow import (about 6 s): report bad input first

    worker = Worker(plan.with_absolute_paths())
    with locks.lock_folder(plan.output):
        return _predict(patients, worker, plan.output, argv[1:])


def _check_output(plan: Plan) -> None:
    models = {"model": plan.models, "level_model": plan.level_models, "gate": plan.gate}
    written = {overview.FILE_NAME: outputs.csv_with("patient", "review")}
    input_paths = {"input": INPUT.value, **models}
    outputs.check_folder(plan.output, input_paths, own=outputs.PREDICTIONS, written=written)
    if not plan.models:
        raise InputError("--model=: expected model directories, found nothing")


def _check_folders(patients, plan: Plan) -> None:
    """Raises InputError if the output is the folder of a scan, or a model is missing."""
    if any(files.is_same(f, plan.output) for f in {files.parent(one.ct) for one in patients}):
        raise InputError(f"--output={plan.output}: holds scans; choose another folder")
    for model in (*plan.models, *plan.level_models, *filter(None, [plan.gate])):
        directory.newest(model)


def _predict(patients, worker, output: str, beam_options) -> int:
    """Predicts what is not finished; output: the folder, as the user names it."""
    plan, results = worker.plan, worker.results
    results.claim(plan.overwrite, plan.dicom_formats)
    card.copy((one.folder for one in worker.models.bundles), plan.output)
    done = [] if plan.overwrite else [one for one in patients if worker.is_finished(one)]
    for scan in done:
        results.forget_failure(scan)
    todo = [scan for scan in patients if scan not in done]
    print(f"{len(patients)} scans in {INPUT.value}, {len(done)} of them done before.", flush=True)
    if RUNNER.value and todo:
        from serving.prediction import distributed

        distributed.run(plan, todo, RUNNER.value, beam_options)
    else:
        _walk(todo, worker)
    results.forget_notes()
    _write_overview(patients, worker, output)
    return _conclude(todo, worker, output)


def _write_overview(patients, worker, output: str) -> None:
    """Judges finished cases by this --review_recall, writes and announces predictions.csv."""
    for scan in patients:
        worker.review_again(scan)
    rows = overview.write(worker.results, patients, worker.models.organs)
    marked = sum(row["review"] == "yes" for row in rows)
    path = files.join(output, overview.FILE_NAME)
    print(f"{marked} of {len(rows)} cases are marked for review; {path} lists them, worst first.")
    if not worker.judge.calibrated:
        print(_without_calibration(patients, worker))


def _without_calibration(patients, worker) -> str:
    """Describes how much the marks of models without a calibration mean."""
    facts = [worker.results.facts(scan) for scan in patients]
    compared = sum(bool(one.evidence and one.evidence.scan) for one in facts)
    against = worker.judge.reasons_against
    untrusted = ", ".join(f"{organ} ({reason})" for organ, reason in against.items())
    return (
        "The model is not calibrated (serving.calibrate): there are no expected scores, and an "
        f"unmarked case is not known to be good. {compared} of {len(facts)} cases were compared "
        "with the training data, the others were judged by the audit alone."
        + (f" Marked in every case: {untrusted}." if untrusted else "")
    )


def _walk(todo, worker) -> None:
    """Predicts in this process, with a line per case."""
    from serving.prediction.case import predict_cases

    began = time.monotonic()
    for number, outcome in enumerate(predict_cases(worker, todo), 1):
        findings = worker.results.facts(outcome.case).findings or ()
        odd = [finding.message for finding in findings if finding.severity == REJECT]
        look = f"  look at it: {odd[0]}" if odd else ""
        print(progress.case_line(number, len(todo), outcome.line + look, began), flush=True)


def _conclude(todo, worker, output: str) -> int:
    failed = without = 0
    for scan in todo:
        known = worker.results.facts(scan)
        reason = known.failed
        if known.uneven and not reason:
            print(f"note: {scan.name}: {known.uneven}")
            without += not known.label_map
        if reason or not worker.is_finished(scan):
            failed += 1
            print(f"failed: {scan.name} ({scan.ct}): {reason or 'its worker was lost'}")
    again = "; the same command tries them again" if failed else ""
    done = len(todo) - failed
    alone = f", {without} scans as DICOM alone" if without else ""
    print(f"{done - without} label maps written to {output}{alone}, {failed} failed{again}.")
    if done or not todo:
        evaluate = hint(
            "serving.evaluate",
            predictions=output,
            labels=INPUT.value if SPLIT.value else "LABELS",  # a dataset holds its contours
            scans=INPUT.value,
            split=SPLIT.value,
            output="EVALUATION",
        )
        print(evaluate.replace("Next:", "Next, with contours:"))
    return 1 if failed else 0


if __name__ == "__main__":
    run(main, known_only=True)
