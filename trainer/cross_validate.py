"""Cross-validation: trains one network per fold and validates it on the patients of that fold.

python -m trainer.cross_validate --flagfile=configs/all.flags --data=DATASET --workdir=RUNS

Takes all flags of trainer.main but --fold. Repeat the same command to continue an interrupted one.
Exit status: 0; 2 for an error; 143 after SIGTERM, 130 after Ctrl-C.
"""

import contextlib
import warnings

import numpy as np
from absl import flags

from segthor import csv_files, errors, files, flags_of, folds, locks, outputs
from segthor.manifest import DEFAULT_DATASET
from trainer import child, devices, run

_DATA = flags.DEFINE_string("data", DEFAULT_DATASET, "Folder of the dataset.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs, one in each fold_K.")
_TABLE, _SCORES = "cross_validation.csv", "patients.csv"
_WRITTEN = {_TABLE: outputs.csv_with("", "mean"), _SCORES: outputs.csv_with("fold", "patient")}


def main(argv):
    """Trains fold after fold, then writes one table."""
    outputs.check_folder(_WORKDIR.value, {"data": _DATA.value}, written=_WRITTEN, flag="workdir")
    reason = "all folds are trained here; leave it out, or use trainer.main"
    flags_of.refuse(argv[1:], {"fold": reason})
    dataset = folds.load_dataset(_DATA.value)
    chief = devices.is_chief()
    with locks.lock_folder(_WORKDIR.value) if chief else contextlib.nullcontext():
        for fold in range(dataset.folds):
            print(f"Fold {fold} of {dataset.folds}", flush=True)
            status = _train(fold, argv[1:])
            if status:
                return status
        if chief:
            patients = [
                {"fold": str(fold), **row}
                for fold in range(dataset.folds)
                for row in run.read_patients(_folder(fold))
            ]
            table = _make_table(patients, dataset.organs.names)
            print("\n" + _format_table(table))
            for name, rows in ((_TABLE, table), (_SCORES, patients)):
                path = files.join(_WORKDIR.value, name)
                csv_files.write_table(path, rows)
                print(f"Wrote {path}")
    return 0


def _train(fold: int, trainer_flags) -> int:
    """Trains a fold in a process of its own, which returns at once if the run is finished."""
    where = [f"--data={_DATA.value}", f"--workdir={_folder(fold)}"]
    return child.train([*trainer_flags, f"--fold={fold}", *where], f"fold {fold}")


def _folder(fold: int) -> str:
    return folds.run_folder(_WORKDIR.value, fold)


def _make_table(patients: list[dict], names) -> list[dict]:
    """Makes a row per fold, of mean and spread over the folds, and of the mean over patients."""
    names = [name for name in names if name in patients[0]]
    numbers = sorted({row["fold"] for row in patients}, key=int)
    scores = {n: _means([r for r in patients if r["fold"] == n], names) for n in numbers}
    stacked = np.array(list(scores.values()))
    rows = {f"fold {fold}": values for fold, values in scores.items()}
    rows["mean of folds"] = _ignore_nan(np.nanmean, stacked, 0)
    rows["spread of folds"] = _ignore_nan(np.nanstd, stacked, 0, ddof=1)
    rows["mean of patients"] = _means(patients, names)
    columns = [*names, "mean"]
    return [
        {"": title}
        | {n: "" if np.isnan(v) else float(v) for n, v in zip(columns, values, strict=True)}
        for title, values in rows.items()
    ]


def _means(patients, names) -> np.ndarray:
    """Mean Dice of each organ over the patients with its contours; last, the mean over organs."""
    values = np.array([[float(row[name] or "nan") for name in names] for row in patients])
    means = _ignore_nan(np.nanmean, values, 0)
    return np.append(means, _ignore_nan(np.nanmean, means))


def _ignore_nan(function, *arguments, **options) -> np.ndarray:
    """Calls a numpy function without its warning for an organ of no patient or of one fold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return function(*arguments, **options)


def _format_table(table) -> str:
    columns = list(table[0])
    lines = ["".join([f"{columns[0]:18}", *(f"{name:>12}" for name in columns[1:])])]
    for row in table:
        cells = ["-" if row[name] == "" else f"{row[name]:.4f}" for name in columns[1:]]
        lines.append("".join([f"{row['']:18}", *(f"{cell:>12}" for cell in cells)]))
    return "\n".join(lines)


if __name__ == "__main__":
    errors.run(main, known_only=True)
