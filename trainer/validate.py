"""Validation: the devices count pixels slice by slice, whose sums give the Dice of volumes."""

from dataclasses import dataclass

import numpy as np

from segthor import startup
from segthor.errors import InputError
from segthor.metrics import dice_from_counts
from trainer import sources
from trainer.learner import TRUE


@dataclass(frozen=True)
class VolumeDice:
    """The scores of a validation.

    patients: Names of the P patients.
    organs: Names of the K organs.
    dice: float [P, K], NaN where the organ was not contoured; for a classifier the F1 score over
      slices, which is the same formula.
    slice_counts: int [S, K, 3], counts of `Learner.counts` for each slice, in shard order.
    """

    patients: tuple[str, ...]
    organs: tuple[str, ...]
    dice: np.ndarray
    slice_counts: np.ndarray

    @property
    def by_organ(self) -> dict[str, float]:
        """Mean Dice of each organ over the patients."""
        return dict(zip(self.organs, map(_mean, self.dice.T), strict=True))

    @property
    def mean(self) -> float:
        """Mean over the organs, which selects the best checkpoint; NaN without scores."""
        return _mean(np.array(list(self.by_organ.values())))

    def worst(self, count: int) -> list[int]:
        """Indices of the slices with the lowest Dice over their organs together, worst first."""
        counts = self.slice_counts.sum(1)
        order = np.lexsort((-counts[:, TRUE], dice_from_counts(*counts.T)))
        return [int(index) for index in order[:count]]


def validate(learner, source: sources.Source, batches) -> VolumeDice:
    """Scores the learner's network on the validation split; no scores if no patient is held out.

    batches: `data.evaluation`, distributed over the devices.

    Raises:
      InputError: The shards hold another number of slices than the manifest says.
    """
    learner.finish_average()
    total = source.count(source.validation)
    by_slice = np.zeros([total, len(learner.config.organs), 3], np.int64)
    if not total:
        return VolumeDice((), learner.config.organs, by_slice.sum(-1, dtype=float), by_slice)
    by_patient = np.zeros([len(source.patients), *by_slice.shape[1:]], np.int64)
    seen = np.zeros(total, np.int64)
    with startup.quiet():
        iterator = iter(batches)
    for batch in iterator:
        index, owner, counts = (value.numpy() for value in learner.counts(batch))
        real = index < total  # the rest is padding of the last batch
        np.add.at(by_patient, owner[real], counts[real])
        by_slice[index[real]] = counts[real]
        seen[index[real]] += 1
    if not (seen == 1).all():
        raise InputError(
            f"{source.folder}: expected {total} validation slices as the manifest says, found "
            f"{int(seen.sum())}; build the dataset again"
        )
    dice = dice_from_counts(*np.moveaxis(by_patient, -1, 0))
    dice[~_contoured(source, learner.config.organs)] = np.nan
    return VolumeDice(source.patients, learner.config.organs, dice, by_slice)


def _contoured(source: sources.Source, names) -> np.ndarray:
    """bool [P, K]: which organs were contoured in each validation patient."""
    of_patient = {row.patient: row.organs for row in source.dataset.patients}
    return np.array(
        [[name in of_patient[patient] for name in names] for patient in source.patients]
    )


def _mean(values) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
