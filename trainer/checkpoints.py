"""A run's checkpoints: the last, from which it continues, and the best, which is exported.

WORKDIR/checkpoints holds all that a resumed run needs: weights, moving average, optimizer with its
step, learning rate drop, best score. The step gives epoch and data order (see `trainer.data`).
WORKDIR/best holds the scored network alone. TensorFlow writes a checkpoint under another name and
only then records it as the latest, so that a killed run finds the one before.
"""

import tempfile

import tensorflow as tf

from segthor import files
from segthor.errors import InputError, message_line
from trainer import run
from trainer.failures import DAMAGED


class Checkpoints:
    """The run's two checkpoints and what the loop has to remember beside the learner.

    best: the best score so far; stale: validations since; since_drop: since the rate dropped.
    """

    def __init__(self, workdir: str, learner, chief: bool):
        self._learner, self._saved = learner, None
        self.best = tf.Variable(-1.0, dtype=tf.float64)
        self.stale = tf.Variable(0, dtype=tf.int64)
        self.since_drop = tf.Variable(0, dtype=tf.int64)
        parts = {"model": learner.model, "optimizer": learner.optimizer, "drop": learner.drop}
        if learner.averaged:
            parts["averaged"] = learner.averaged
        remembered = ("best", "stale", "since_drop")
        self._whole = tf.train.Checkpoint(
            **parts, **{name: getattr(self, name) for name in remembered}
        )
        self._folder = files.join(workdir, run.LAST)
        # Every process takes part in saving, since replicas' values are added up, but only the
        # chief writes into the run's folder.
        self._spare = None if chief else tempfile.TemporaryDirectory()
        target = workdir if chief else self._spare.name
        self._last = tf.train.CheckpointManager(self._whole, files.join(target, run.LAST), 2)
        scored = tf.train.Checkpoint(model=learner.scored)
        self._best = tf.train.CheckpointManager(scored, files.join(target, run.BEST), 1)

    def restore(self) -> bool:
        """Takes up the last checkpoint, if there is one; the one before where it is damaged.

        Raises:
          InputError: all are damaged.
        """
        state = tf.train.get_checkpoint_state(self._folder)
        paths = list(reversed(state.all_model_checkpoint_paths)) if state else []
        for path in paths:
            try:
                self._whole.restore(path).assert_consumed()
            except DAMAGED as error:
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
        """Writes the last checkpoint, unless it is there."""
        if self._saved != self._learner.step:
            self._saved = self._learner.step
            self._write(self._last)

    def score(self, value: float) -> bool:
        """Notes a validation's score; where it is the best so far, writes that checkpoint."""
        better = value > float(self.best)
        self.stale.assign(0 if better else self.stale + 1)
        self.since_drop.assign(0 if better else self.since_drop + 1)
        if better:
            self.best.assign(value)
            self._write(self._best)
        return better

    def _write(self, manager) -> None:
        """Saves what is whole: the averaged network with the statistics that belong to it."""
        self._learner.finish_average()
        manager.save(checkpoint_number=self._learner.step)
