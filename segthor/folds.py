"""Cross-validation: datasets with folds, and the folder of each fold's run."""

from segthor import files
from segthor.errors import InputError
from segthor.manifest import Dataset


def load_dataset(folder: str) -> Dataset:
    """Loads the dataset in a folder; raises InputError where it has fewer than two folds."""
    dataset = Dataset.load(folder)
    if dataset.folds < 2:
        raise InputError(
            f"{folder}: expected at least 2 folds, found {dataset.folds}; build it again"
        )
    return dataset


def run_folder(runs: str, fold: int) -> str:
    """The folder of a fold's run, or of the model exported from it. runs: Their parent."""
    return files.join(runs, f"fold_{fold}")
