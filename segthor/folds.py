"""Cross-validation: datasets with folds, and the folder of each fold's run."""

from segthor import files
from segthor.errors import InputError
from segthor.manifest import Dataset


def load_dataset(folder: str) -> Dataset:
    """Loads the dataset in a folder; raises InputError where it has fewer than two folds, or an
    empty one.
    """
    dataset = Dataset.load(folder)
    if dataset.folds < 2:
        raise InputError(
            f"{folder}: expected at least 2 folds, found {dataset.folds}; build it again"
        )
    empty = sorted(set(range(dataset.folds)) - {row.fold for row in dataset.patients})
    if empty:
        raise InputError(
            f"{folder}: expected patients in each of {dataset.folds} folds, found none in fold "
            f"{empty[0]}; build it again with fewer --folds or another --seed"
        )
    return dataset


def run_folder(runs: str, fold: int) -> str:
    """The folder of a fold's run, or of the model exported from it. runs: Their parent."""
    return files.join(runs, f"fold_{fold}")
