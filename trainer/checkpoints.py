"""A run's folder: what was asked for (run.json), the last and the best checkpoint.

WORKDIR/checkpoints holds all that a resumed run needs: weights, moving average, optimizer with its
step, learning rate drop, best score. The step gives epoch and data order (see `trainer.data`).
WORKDIR/best holds the scored network alone. TensorFlow writes a checkpoint under another name and
only then records it as the latest, so that a killed run finds the one before.
"""

import importlib.metadata
import platform
import tempfile

import tensorflow as tf

from segthor import files
from segthor.errors import InputError
from trainer.model import RUN_FILE

# A checksum that does not fit, a missing file: OpError and its kinds. A short file: IndexError.
_DAMAGED = (tf.errors.OpError, IndexError)
LAST, BEST = "checkpoints", "best"
_PACKAGES = ("segthor", "tensorflow", "tf_keras", "segmentation-models", "numpy")


def claim(workdir: str, config, source, replicas: int, chief: bool) -> dict:
    """Writes WORKDIR/run.json, or checks that the run there is this one; returns its content.

    A run that never came to its first checkpoint is no run yet and may be another one now.

    Raises:
      InputError: the folder belongs to another run; the message shows the difference.
    """
    run = {
        "config": config.to_json(),
        "recipe": source.dataset.recipe.to_json(),
        "organs": list(config.organs),
        "data": {"folder": source.folder, "digest": source.digest()},
        "replicas": replicas,
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES}
        | {"python": platform.python_version()},
    }
    path = files.join(workdir, RUN_FILE)
    if not files.exists(path) and files.exists(workdir) and files.listdir(workdir):
        raise InputError(
            f"--workdir={workdir}: expected a new folder or a run, found other files; "
            "name another folder"
        )
    if tf.train.latest_checkpoint(files.join(workdir, LAST)):
        _check_same(workdir, files.read_json(path), run)
    elif chief:
        files.write_json(path, run)
    return run


def _check_same(workdir: str, there: dict, here: dict) -> None:
    differences = []
    for part in ("config", "recipe", "data", "replicas"):
        old, new = (_flat(part, run.get(part)) for run in (there, here))
        old.pop("data.folder", None), new.pop("data.folder", None)  # it may move
        differences += [
            f"{key.removeprefix('config.')} is {old.get(key)} there and {new.get(key)} here"
            for key in {**old, **new}
            if old.get(key) != new.get(key)
        ]
    if differences:
        raise InputError(
            f"--workdir={workdir} holds a run of another configuration: "
            f"{'; '.join(differences)}; name another folder, or repeat that run's command"
        )


def _flat(name: str, value) -> dict:
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key in value for k, v in _flat(f"{name}.{key}", value[key]).items()}


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
        self._folder = files.join(workdir, LAST)
        # Every process takes part in saving, since replicas' values are added up, but only the
        # chief writes into the run's folder.
        self._spare = None if chief else tempfile.TemporaryDirectory()
        target = workdir if chief else self._spare.name
        self._last = tf.train.CheckpointManager(self._whole, files.join(target, LAST), 2)
        scored = tf.train.Checkpoint(model=learner.scored)
        self._best = tf.train.CheckpointManager(scored, files.join(target, BEST), 1)

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
            except _DAMAGED as error:
                reason = str(error).strip().splitlines()[0]
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
            self._last.save(checkpoint_number=self._saved)

    def score(self, value: float) -> bool:
        """Notes a validation's score; where it is the best so far, writes that checkpoint."""
        better = value > float(self.best)
        self.stale.assign(0 if better else self.stale + 1)
        self.since_drop.assign(0 if better else self.since_drop + 1)
        if better:
            self.best.assign(value)
            self._best.save(checkpoint_number=self._learner.step)
        return better
