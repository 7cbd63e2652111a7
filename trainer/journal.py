"""Reports of a run: terminal, TensorBoard, and WORKDIR's log, summary and learning curve."""

import resource
import sys
import time

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from segthor import csv_files, files, json_files, plots
from segthor.errors import InputError
from segthor.organs import Organs
from segthor.progress import duration
from trainer import diagnosis, pictures, run

_PRINT_EVERY_S = 10  # where the output is not a terminal
_PROFILED_CALL = 2  # the first call compiles, the second fills caches
_WARN_AFTER = 100  # steps
_COLUMNS = "step epoch loss learning_rate slices_per_s input_wait memory_gb dice".split()  # of LOG


class Journal:
    """Reports one run. The loop calls `begin` first and `end` last, the other methods between."""

    def __init__(self, workdir: str, config, organs: Organs, profile: bool = False):
        self._workdir, self._config, self._organs = workdir, config, organs
        self._profile = profile
        self._rows: list[dict] = []
        self._losses, self._busy_s, self._waited_s, self._slices = [], 0.0, 0.0, 0
        self._printed_s = 0.0
        self._calls = 0
        self._warned = False

    def begin(self, step: int, steps: int | None, per_epoch: int, resumed: bool) -> None:
        """Starts the report; reads the log of an interrupted run up to `step`.

        step: Steps taken before.
        steps: Steps in total; None where --minutes limits the run and they are not known yet.
        per_epoch: Steps of an epoch.
        resumed: Whether the run continues from a checkpoint.
        """
        self._steps, self._per_epoch = steps, per_epoch
        self._writer = tf.summary.create_file_writer(files.join(self._workdir, run.TENSORBOARD))
        if resumed:
            self._rows = self._read_log(step)
            print(f"Continuing at step {step} of {steps or 'those that fit'}", flush=True)
        elif not step:
            with self._writer.as_default():
                choices = _flat_choices(self._config.to_json())
                hparams.hparams_config(  # else TensorBoard lists every scalar as a metric
                    hparams=[hparams.HParam(name) for name in choices],
                    metrics=[hparams.Metric(f"dice/{n}") for n in ("mean", *self._config.organs)],
                )
                hparams.hparams(choices)

    def _read_log(self, step: int) -> list[dict]:
        """Reads the rows of log.csv up to a step; none where there is no log."""
        path = files.join(self._workdir, run.LOG)
        if not files.exists(path):
            return []
        columns = (*_COLUMNS, *(f"dice_{name}" for name in self._config.organs))
        rows = [row for _, row in csv_files.read_table(path, columns, columns)]
        try:
            numbers = [{name: float(value) for name, value in row.items()} for row in rows]
            return [row for row, n in zip(rows, numbers, strict=True) if int(n["step"]) <= step]
        except (ValueError, OverflowError) as error:
            raise InputError(
                f"{path}: damaged ({error}); expected the log of this run; remove it, and the "
                "same command begins a new one"
            ) from error

    def measured(self, steps: int, step_s: float) -> None:
        """Reports how many steps fit into the run's time."""
        self._steps = steps
        self._print(f"{step_s:.3f} s per step: {steps} steps fit")

    def changed(self, steps: int) -> None:
        """Takes over the number of steps of a run that was measured again on the way."""
        self._steps = steps

    def before_call(self) -> None:
        """Starts the profiler before the call that --profile records."""
        if self._profile and self._calls == _PROFILED_CALL:
            tf.profiler.experimental.start(files.join(self._workdir, run.TENSORBOARD))

    def trained(self, learner, losses, seconds: float, waited_s: float) -> None:
        """Reports one call of the device.

        losses: float32 [steps].
        seconds: Duration of the call.
        waited_s: Seconds of it that the device waited for input.
        """
        if self._profile and self._calls == _PROFILED_CALL:
            tf.profiler.experimental.stop()
        self._losses += list(losses)
        self._calls += 1
        if self._calls > 1:  # the first one compiles
            self._slices += len(losses) * learner.global_batch
            self._busy_s += seconds
            self._waited_s += waited_s
        self._warn_of_waiting(learner)
        if sys.stdout.isatty() or time.monotonic() - self._printed_s > _PRINT_EVERY_S:
            self._printed_s = time.monotonic()
            end = "\r" if sys.stdout.isatty() else "\n"
            self._print(
                f"{self._progress(learner)}  loss {np.mean(losses):.4f}  "
                f"rate {learner.rate:.2e}  {self._speed(learner)}",
                end,
            )

    def _warn_of_waiting(self, learner) -> None:
        """Warns once, after `_WARN_AFTER` steps, if the input limits the run."""
        if not self._warned and self._slices >= _WARN_AFTER * learner.global_batch:
            self._warned = True
            line = diagnosis.warn_of_waiting(self._waited_s / self._busy_s)
            if line:
                self._print(line)

    def validated(self, learner, source, scores, better: bool) -> None:
        """Reports a validation: one row of the log, and scores and worst slices in TensorBoard.

        scores: `validate.VolumeDice`.
        better: Whether they are the best so far.
        """
        row = {
            "step": learner.step,
            "epoch": round(learner.step / self._per_epoch, 3),
            "loss": float(np.mean(self._losses)) if self._losses else float("nan"),
            "learning_rate": learner.rate,
            "slices_per_s": self._rate(),
            "input_wait": self._waited_s / max(self._busy_s, 1e-9),
            "memory_gb": memory_gb(),
            "dice": scores.mean,
            **{f"dice_{name}": value for name, value in scores.by_organ.items()},
        }
        self._losses = []
        self._rows.append(row)
        csv_files.write_table(files.join(self._workdir, run.LOG), self._rows)
        if better and scores.patients:
            csv_files.write_table(files.join(self._workdir, run.PATIENTS), _patient_rows(scores))
        self._write_summary(row, pictures.worst_slices(learner, source, scores))
        dice = "no patient held out"
        if scores.patients:
            organs = [f"{name} {format_score(value)}" for name, value in scores.by_organ.items()]
            dice = f"Dice {scores.mean:.3f}{'*' if better else ' '} ({'  '.join(organs)})"
        self._print(
            f"{self._progress(learner)}  loss {row['loss']:.4f}  {dice}  "
            f"{self._rate():.1f} slices/s"
        )

    def _write_summary(self, row: dict, worst: np.ndarray | None) -> None:
        """Writes a row of the log and the worst slices, uint8 [H, W, 3], for TensorBoard."""
        with self._writer.as_default(step=row["step"]):
            for key, value in row.items():
                if key not in ("step", "epoch") and np.isfinite(value):
                    tf.summary.scalar(_TAGS.get(key, key.replace("dice_", "dice/")), value)
            if worst is not None:
                tf.summary.image("worst slices", worst[None])
        self._writer.flush()

    def end(self, finished: bool) -> dict:
        """Writes summary.json and the learning curve; returns the summary, {} if there is none."""
        if not self._rows:  # stopped before the first validation
            return {}
        last = self._rows[-1]
        scored = [row for row in self._rows if not np.isnan(float(row["dice"]))]
        best = max(scored, key=lambda row: float(row["dice"])) if scored else last
        summary = {
            "finished": finished,
            "steps": int(last["step"]),
            "best": {key: _or_none(best[key]) for key in best if key.startswith("dice")}
            | {"step": int(best["step"])},
            **{key: float(last[key]) for key in ("slices_per_s", "input_wait", "memory_gb")},
        }
        json_files.write(files.join(self._workdir, run.SUMMARY), summary)
        path = files.join(self._workdir, run.CURVE)
        plots.save(pictures.learning_curve(self._rows, self._organs), path)
        self._writer.close()
        return summary

    def _progress(self, learner) -> str:
        return f"step {learner.step}/{self._steps or '?'}"

    def _rate(self) -> float:
        """Slices per second, without those of the first call."""
        return self._slices / self._busy_s if self._busy_s else 0.0

    def _speed(self, learner) -> str:
        if not self._slices or not self._steps:
            return "the first steps compile" if self._steps else "measuring the first steps"
        left_s = (self._steps - learner.step) * learner.global_batch / self._rate()
        return f"{self._rate():.1f} slices/s  left {duration(left_s)}"

    def _print(self, text: str, end: str = "\n") -> None:
        print(f"{text:<100}" if sys.stdout.isatty() else text, end=end, flush=True)


class Silent:
    """The journal of a process that is not the chief: reports nothing."""

    def begin(self, *_) -> None:
        """Does nothing, like all other methods."""

    before_call = measured = changed = trained = validated = end = begin


def format_score(score: float | None) -> str:
    """Formats a score as '0.912', or '-' for an organ that no validation patient has."""
    return "-" if score is None or np.isnan(score) else f"{score:.3f}"


def _or_none(score) -> float | None:
    """None for NaN, which JSON lacks: an organ that no validation patient has."""
    return None if np.isnan(float(score)) else float(score)


_TAGS = {  # column of the log to name in TensorBoard
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "slices_per_s": "speed/slices_per_s",
    "input_wait": "speed/input_wait",
    "memory_gb": "speed/memory_gb",
    "dice": "dice/mean",
}


def _patient_rows(scores) -> list[dict]:
    """Makes a row per validation patient: Dice per organ, '' where it was not contoured."""
    return [
        {"patient": patient}
        | {n: "" if np.isnan(v) else float(v) for n, v in zip(scores.organs, row, strict=True)}
        for patient, row in zip(scores.patients, scores.dice, strict=True)
    ]


def memory_gb() -> float:
    """Peak memory in GB: of the first GPU if there is one, else of this process."""
    if tf.config.list_logical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e9
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e9


def _flat_choices(config: dict) -> dict:
    """Flattens the configuration for HParams, which takes numbers and strings only."""
    flat = {key: value for key, value in config.items() if key != "augment"}
    # HParams shows the first names of the alphabet, which should not be the augmentation's.
    flat |= {f"strength/{key}": value for key, value in config["augment"].items()}
    return {key: ",".join(v) if isinstance(v, list) else v for key, v in flat.items()}
