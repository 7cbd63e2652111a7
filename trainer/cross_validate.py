"""Cross-validation: a run per fold, each validated on the patients that it did not train on.

python -m trainer.cross_validate --flagfile=configs/all.flags --data=DATASET --workdir=RUNS

Every other flag is the trainer's. Repeat the same command to continue an interrupted one.
"""

import csv
import io
import subprocess
import sys

import numpy as np
from absl import flags

from segthor import csv_files, files, organs
from segthor.errors import InputError, run
from segthor.manifest import Dataset

_DATA = flags.DEFINE_string("data", "data/dataset", "Folder of the dataset.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs, one in each fold_K.")


def main(argv):
    """Trains fold after fold, then writes one table."""
    if not _WORKDIR.value:
        raise InputError("--workdir: expected the folder of the runs, found nothing")
    folds = Dataset.load(_DATA.value).folds
    if folds < 2:
        raise InputError(f"{_DATA.value}: expected at least 2 folds, found {folds}; build again")
    for fold in range(folds):
        _train(fold, folds, argv[1:])
    patients = [row for fold in range(folds) for row in _patients(fold)]
    table = _table(patients)
    print("\n" + _text(table))
    _write(table, patients)


def _folder(fold: int) -> str:
    return files.join(_WORKDIR.value, f"fold_{fold}")


def _train(fold: int, folds: int, flags_of_trainer) -> None:
    """One run of the trainer, in a process of its own; a finished one returns at once."""
    print(f"Fold {fold} of {folds}", flush=True)
    command = [sys.executable, "-m", "trainer.main", *flags_of_trainer, f"--fold={fold}"]
    command += [f"--data={_DATA.value}", f"--workdir={_folder(fold)}"]
    status = subprocess.run(command).returncode
    if status:
        raise InputError(
            f"fold {fold} ended with status {status}; mend that and repeat the command"
        )


def _patients(fold: int) -> list[dict]:
    """Dice per organ of the fold's patients, from its best checkpoint."""
    text = files.read_bytes(files.join(_folder(fold), "best_patients.csv")).decode()
    return [{"fold": str(fold), **row} for row in csv.DictReader(io.StringIO(text))]


def _table(patients: list[dict]) -> list[dict]:
    """A row per fold, mean and spread over the folds, and mean over all patients."""
    names = [name for name in organs.NAMES if name in patients[0]]
    folds = sorted({row["fold"] for row in patients}, key=int)
    scores = {fold: _means([r for r in patients if r["fold"] == fold], names) for fold in folds}
    stacked = np.array(list(scores.values()))
    rows = {f"fold {fold}": values for fold, values in scores.items()}
    rows["mean of folds"] = np.nanmean(stacked, 0)
    rows["spread of folds"] = np.nanstd(stacked, 0, ddof=1)
    rows["mean of patients"] = _means(patients, names)
    columns = [*names, "mean"]
    return [
        {"": title, **dict(zip(columns, map(float, values), strict=True))}
        for title, values in rows.items()
    ]


def _means(patients, names) -> np.ndarray:
    """Mean Dice per organ over the patients in whom it was contoured, and the mean of these."""
    values = np.array([[float(row[name] or "nan") for name in names] for row in patients])
    contoured = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        means = np.nansum(values, 0) / contoured.sum(0)
    return np.append(means, np.nanmean(means))


def _text(table) -> str:
    columns = list(table[0])
    lines = ["".join([f"{columns[0]:18}", *(f"{name:>12}" for name in columns[1:])])]
    for row in table:
        lines.append("".join([f"{row['']:18}", *(f"{row[name]:12.4f}" for name in columns[1:])]))
    return "\n".join(lines)


def _write(table, patients) -> None:
    for name, rows in (("cross_validation.csv", table), ("patients.csv", patients)):
        path = files.join(_WORKDIR.value, name)
        csv_files.write_table(path, rows)
        print(f"Wrote {path}")


if __name__ == "__main__":
    run(main, known_only=True)
