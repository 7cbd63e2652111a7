"""Calibrates reviews: learns from cross-validation which scores a prediction's evidence implies.

  python -m trainer.cross_validate --data=DATASET --workdir=RUNS
  python -m serving.calibrate --runs=RUNS --data=DATASET --output=CALIBRATION --model=MODEL

Each patient is predicted by the fold that was not trained on it, as it is and worsened in nine
ways. The calibration is stored with the models that --model names, by default with the models of
the folds, which are exported to OUTPUT/models. serving.predict then expects scores and marks the
cases that a person should look at. Repeat the same command to continue an interrupted one. Exit
status: 0, or 1 if a patient could not be read.
"""

import subprocess
import sys

from absl import flags

from segthor import children, files, folds, guard, inputs, json_files, locks, outputs, startup
from segthor import model_directory as directory
from segthor.errors import InputError, hint, message_line, run
from segthor.manifest import VALIDATION, Dataset
from serving import card
from serving.scoring import tables
from trainer import run as runs

RUNS = flags.DEFINE_string("runs", None, "Folder of trainer.cross_validate.", required=True)
DATA = flags.DEFINE_string("data", None, "Folder of the dataset of these runs.", required=True)
OUTPUT = flags.DEFINE_string(
    "output", None, "Folder of rows, exported folds and the plot.", required=True
)
MODEL = flags.DEFINE_list(
    "model",
    [],
    "Models to store the calibration with, of the same recipe and organs; none: the folds' own.",
)
PLOT = "reliability.png"


def main(_):
    """Exports the folds, predicts the patients that each left out, fits and stores."""
    input_paths = {"runs": RUNS.value, "data": DATA.value, "model": MODEL.value}
    outputs.check_folder(OUTPUT.value, input_paths, written={PLOT: outputs.picture})
    dataset = folds.load_dataset(DATA.value)
    _require_finished(dataset)
    targets = [directory.newest(folder) for folder in MODEL.value]
    with outputs.lock_folder(OUTPUT.value, (PLOT,)):
        models = [_export_fold(fold) for fold in range(dataset.folds)]
        startup.load_tensorflow()
        rows, names, failed = _make_rows(dataset, models)
        from serving.review import fit, plot  # slow import: scikit-learn

        calibration, crossed = fit.calibrate(rows, names)
        plot.write(files.join(OUTPUT.value, PLOT), crossed)
        for version in targets or models:
            with locks.lock_folder(version):
                calibration.save(version)
                plot.write(directory.asset(version, directory.REVIEW_PLOT), crossed)
                card.refresh(version)
    print(f"Stored with {', '.join(targets or models)}.")
    lines = [list(map(_format_cell, line.values())) for line in calibration.table]
    print(tables.align(list(calibration.table[0]), lines))
    stored = MODEL.value or [files.parent(model) for model in models]
    if failed:
        print(f"{failed} patients FAILED and are not part of the calibration; see above.")
    print(hint("serving.predict", model=stored, input="SCANS", output="PREDICTIONS"))
    return 1 if failed else 0


def _require_finished(dataset: Dataset) -> None:
    for fold in range(dataset.folds):
        if runs.read_of_fold(RUNS.value, fold, DATA.value, dataset).summary is None:
            raise InputError(
                f"{folds.run_folder(RUNS.value, fold)}: expected a finished run of every fold; "
                "repeat the command of trainer.cross_validate"
            )


def _format_cell(value) -> str:
    return tables.format_number(value) if value is None or isinstance(value, float) else str(value)


def _export_fold(fold: int) -> str:
    """Exports the model of a fold unless it is there already; returns the folder of its version."""
    workdir = folds.run_folder(RUNS.value, fold)
    folder = folds.run_folder(files.join(OUTPUT.value, "models"), fold)
    if files.exists(folder) and directory.versions(folder):
        version = directory.newest(folder)
        if _is_export(version, json_files.read(files.join(workdir, runs.RUN))):
            return version
    command = [sys.executable, "-m", "serving.export", f"--workdir={workdir}"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    exporting = children.start([*command, f"--output={folder}"], **pipes)
    _, errors = exporting.communicate()
    if exporting.returncode:
        reason = message_line(errors or "error: no reason", -1).removeprefix("error: ")
        raise InputError(f"{workdir}: cannot be exported ({reason})")
    return directory.newest(folder)


def _is_export(version: str, run_json: dict) -> bool:
    """Whether a model was exported from the run that a run.json describes."""
    try:
        stored = json_files.read(directory.asset(version, directory.TRAINING))
    except InputError:  # damaged; it is exported again
        return False
    return isinstance(stored, dict) and {key: stored.get(key) for key in run_json} == run_json


def _make_rows(dataset: Dataset, models: list[str]) -> tuple[list[dict], tuple[str, ...], int]:
    """Makes the rows of all patients by the folds that left them out.

    Returns the rows, the organs, and the number of patients that cannot be read.
    """
    from serving.prediction import bundle
    from serving.prediction.predictor import Ensemble
    from serving.review import cases

    folder = files.join(OUTPUT.value, "cases")
    contoured = {one.name: one for one in inputs.find_contours(DATA.value, dataset.organs)}
    rows, done, names, failed = [], 0, None, 0
    for fold, version in enumerate(models):
        ensemble = Ensemble([bundle.load(version)])
        names = names or ensemble.organs
        _require_organs(ensemble, version, names)
        shards = dataset.shards_of(VALIDATION, fold)
        for patient in sorted(name for shard in shards for name in shard.patients):
            done += 1
            print(f"[{done}/{len(dataset.patients)}] {patient}", flush=True)
            try:
                if patient not in contoured:
                    raise InputError(f"{DATA.value}: has no contours of the patient")
                rows += cases.make_rows(contoured[patient], ensemble, folder)
            except Exception as error:  # an unforeseen error must not stop the other patients
                failed += 1
                print(f"FAILED: {patient}: {guard.describe(error)}", flush=True)
    return rows, names, failed


def _require_organs(ensemble, version: str, names: tuple[str, ...]) -> None:
    if ensemble.organs != names:
        raise InputError(
            f"{version}: expected the organs {', '.join(names)} of the other folds, found "
            f"{', '.join(ensemble.organs)}"
        )


if __name__ == "__main__":
    run(main)
