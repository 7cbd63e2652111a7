"""Cross-validation: the datasets that allow it, and where the run of each fold lies."""

from segthor import files
from segthor.errors import InputError
from segthor.manifest import Dataset


def load_dataset(folder: str) -> Dataset:
    """The dataset in a folder; raises InputError where it has fewer than two folds."""
    dataset = Dataset.load(folder)
    if dataset.folds < 2:
        raise InputError(
            f"{folder}: expected at least 2 folds, found {dataset.folds}; build it again"
        )
    return dataset


def run_folder(runs: str, fold: int) -> str:
    """The folder of one fold's run, or of the model exported from it."""
    return files.join(runs, f"fold_{fold}")
