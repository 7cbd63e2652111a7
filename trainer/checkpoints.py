"""A run's checkpoints: the last, from which it continues, and the best, which is exported.

WORKDIR/checkpoints holds all that a resumed run needs: weights, moving average, optimizer with its
step, learning rate drop, best score. Epoch and order of the data follow from the step (see
`trainer.data`). WORKDIR/best holds the validated network alone. TensorFlow records a checkpoint as
the latest once it is written completely, so that a killed run continues from the one before.
"""

import math
import tempfile

import tensorflow as tf

from segthor import files
from segthor.errors import InputError, message_line
from trainer import run
from trainer.failures import DAMAGED


class Checkpoints:
    """The two checkpoints of a run, and the history of its validation scores.

    best: float64 [], the best score so far; -1 before the first validation, NaN without scores.
    stale: int64 [], validations since the best one.
    since_drop: int64 [], validations since the best one or since the learning rate dropped.
    """

    def __init__(self, workdir: str, learner, chief: bool):
        self._learner, self._saved = learner, None
        self.best = tf.Variable(-1.0, dtype=tf.float64)
        self.stale = tf.Variable(0, dtype=tf.int64)
        self.since_drop = tf.Variable(0, dtype=tf.int64)
        parts = {"model": learner.model, "optimizer": learner.optimizer, "drop": learner.drop}
        parts |= {"best": self.best, "stale": self.stale, "since_drop": self.since_drop}
        if learner.averaged:
            parts["averaged"] = learner.averaged
        self._whole = tf.train.Checkpoint(**parts)
        self._folder = files.join(workdir, run.LAST)
        # Every process must take part in saving, which sums values over the replicas. Only the
        # chief's files are kept.
        self._discarded = None if chief else tempfile.TemporaryDirectory()
        target = workdir if chief else self._discarded.name
        for name in (run.LAST, run.BEST):
            run.latest_checkpoint(files.join(target, name))  # refuses a damaged list
        self._last = tf.train.CheckpointManager(self._whole, files.join(target, run.LAST), 2)
        scored = tf.train.Checkpoint(model=learner.scored_model)
        self._best = tf.train.CheckpointManager(scored, files.join(target, run.BEST), 1)

    def restore(self) -> bool:
        """Restores the last checkpoint, or the one before if it is damaged.

        Returns whether there is one. Raises InputError where all checkpoints are damaged.
        """
        state = tf.train.get_checkpoint_state(self._folder)
        paths = list(reversed(state.all_model_checkpoint_paths)) if state else []
        for path in paths:
            try:
                self._whole.restore(path).assert_consumed()
            except (*DAMAGED, AssertionError, ValueError) as error:  # or of another network
                reason = message_line(error)
                print(f"warning: {path} is damaged ({reason}); trying the one before", flush=True)
            else:
                self._saved = self._learner.step
                return True
        if paths:
            raise InputError(
                f"{self._folder}: every checkpoint is damaged; remove the run's folder and repeat "
                "the command to begin anew"
            )
        return False

    def save(self) -> None:
        """Writes the last checkpoint, unless that of this step is written already."""
        if self._saved != self._learner.step:
            self._saved = self._learner.step
            self._write(self._last)

    def score(self, value: float) -> bool:
        """Records a validation score and writes the best checkpoint if it is the best so far.

        Without scores (NaN) each checkpoint is better than those before. Returns whether it is.
        """
        better = math.isnan(value) or value > float(self.best)
        self.stale.assign(0 if better else self.stale + 1)
        self.since_drop.assign(0 if better else self.since_drop + 1)
        if better:
            self.best.assign(value)
            self._write(self._best)
        return better

    def _write(self, manager) -> None:
        """Saves a checkpoint; the averaged network needs its BatchNorm statistics first."""
        self._learner.finish_average()
        manager.save(checkpoint_number=self._learner.step)
