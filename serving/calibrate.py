"""Learns from cross-validation what a prediction's evidence tells of its scores.

  python -m trainer.cross_validate --data=DATASET --workdir=RUNS
  python -m serving.calibrate --runs=RUNS --data=DATASET --output=CALIBRATION --model=MODEL

Each patient is predicted by the fold that never saw it, as it is and worsened in nine ways. The
calibration is stored with the models named, by default with the folds' own, which are exported into
OUTPUT/models; serving.predict then expects scores and says which cases a person should open. The
same command continues an interrupted one.
"""

import subprocess
import sys

from absl import flags

from segthor import children, files, folds, inputs, json_files, locks, outputs, startup
from segthor import model_directory as directory
from segthor.errors import InputError, hint, message_line, run
from segthor.manifest import VALIDATION, Dataset
from serving import card
from serving.scoring import tables

RUNS = flags.DEFINE_string("runs", None, "Folder of trainer.cross_validate.", required=True)
DATA = flags.DEFINE_string("data", None, "The dataset that it was trained on.", required=True)
OUTPUT = flags.DEFINE_string(
    "output", None, "Where rows, exported folds and the plot go.", required=True
)
MODEL = flags.DEFINE_list(
    "model", [], "Models to store it with, of the same recipe and organs; the folds' own if none."
)
PLOT = "reliability.png"


def main(_):
    """Exports the folds, predicts the patients each left out, fits, stores."""
    given = {"runs": RUNS.value, "data": DATA.value, "model": MODEL.value}
    outputs.check_folder(OUTPUT.value, given, written={PLOT: outputs.picture})
    dataset = folds.load_dataset(DATA.value)
    for fold in range(dataset.folds):
        summary = files.join(folds.run_folder(RUNS.value, fold), "summary.json")
        if not files.exists(summary):
            raise InputError(
                f"{summary}: expected a finished run of every fold; repeat the training"
            )
    targets = [directory.newest(folder) for folder in MODEL.value]
    with outputs.lock_folder(OUTPUT.value, (PLOT,)):
        models = [_exported(fold) for fold in range(dataset.folds)]
        startup.load_tensorflow()
        rows, names = _rows(dataset, models)
        from serving.review import fit, plot  # scikit-learn takes a second

        calibration, told = fit.calibrate(rows, names)
        plot.write(files.join(OUTPUT.value, PLOT), told)
        for version in targets or models:
            with locks.lock_folder(version):
                calibration.save(version)
                plot.write(directory.asset(version, directory.REVIEW_PLOT), told)
                card.refresh(version)
    print(f"Stored with {', '.join(targets or models)}.")
    lines = [list(map(_cell, line.values())) for line in calibration.table]
    print(tables.aligned(list(calibration.table[0]), lines))
    stored = MODEL.value or [files.parent(model) for model in models]
    print(hint("serving.predict", model=stored, input="SCANS", output="PREDICTIONS"))


def _cell(value) -> str:
    return tables.number(value) if value is None or isinstance(value, float) else str(value)


def _exported(fold: int) -> str:
    """The model of a fold, exported where it is not there or of another run; its version."""
    workdir = folds.run_folder(RUNS.value, fold)
    folder = folds.run_folder(files.join(OUTPUT.value, "models"), fold)
    run_json = json_files.read(files.join(workdir, "run.json"))
    if files.exists(folder) and directory.versions(folder):
        version = directory.newest(folder)
        stored = json_files.read(directory.asset(version, directory.TRAINING))
        if isinstance(stored, dict) and {key: stored.get(key) for key in run_json} == run_json:
            return version
    command = [sys.executable, "-m", "serving.export", f"--workdir={workdir}"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    exporting = children.start([*command, f"--output={folder}"], **pipes)
    _, errors = exporting.communicate()
    if exporting.returncode:
        reason = message_line(errors or "error: no reason", -1).removeprefix("error: ")
        raise InputError(f"{workdir}: cannot be exported ({reason})")
    return directory.newest(folder)


def _rows(dataset: Dataset, models: list[str]) -> tuple[list[dict], tuple[str, ...]]:
    """Rows of every patient, by the fold that left it out; and the organs that all folds find."""
    from serving.prediction import bundle
    from serving.prediction.predictor import Ensemble
    from serving.review import cases

    folder = files.join(OUTPUT.value, "cases")
    contoured = {one.name: one for one in inputs.find_contours(DATA.value, dataset.organs)}
    rows, done, names = [], 0, None
    for fold, version in enumerate(models):
        ensemble = Ensemble([bundle.load(version)])
        names = names or ensemble.organs
        if ensemble.organs != names:
            raise InputError(f"{version}: finds {', '.join(ensemble.organs)}; the others not")
        shards = dataset.shards_of(VALIDATION, fold)
        for patient in sorted(name for shard in shards for name in shard.patients):
            done += 1
            print(f"[{done}/{len(dataset.patients)}] {patient}", flush=True)
            rows += cases.rows_of(contoured[patient], ensemble, folder)
    return rows, names


if __name__ == "__main__":
    run(main)
