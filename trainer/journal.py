"""What a run tells: the terminal, TensorBoard, and in WORKDIR log, summary, learning curve."""

import resource
import sys
import time

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from segthor import csv_files, files, json_files
from segthor.organs import Organs
from segthor.progress import duration
from trainer import diagnosis, pictures, run

_TELL_EVERY_S = 10  # where the terminal is a file
_PROFILED_CALL = 2
_WARN_AFTER = 100  # steps


class Journal:
    """Tells of one run; the loop calls `begin`, then `trained` and `validated` as it goes."""

    def __init__(self, workdir: str, config, profile: bool = False, *, organs: Organs):
        self._workdir, self._config, self._profile = workdir, config, profile
        self._organs = organs
        self._rows: list[dict] = []
        self._losses, self._busy_s, self._waited_s, self._slices = [], 0.0, 0.0, 0
        self._told = 0.0
        self._calls = 0
        self._warned = False

    def begin(self, step: int, steps: int | None, per_epoch: int, resumed: bool) -> None:
        """Reads what an interrupted run logged, up to the step that it continues from.

        steps: None where they are still to be measured.
        """
        self._steps, self._per_epoch = steps, per_epoch
        self._writer = tf.summary.create_file_writer(files.join(self._workdir, run.TENSORBOARD))
        path = files.join(self._workdir, run.LOG)
        if resumed and files.exists(path):
            rows = csv_files.read_table(path)
            self._rows = [row for _, row in rows if int(row["step"]) <= step]
        if resumed:
            print(f"Continuing at step {step} of {steps or 'those that fit'}", flush=True)
        elif not step:
            with self._writer.as_default():
                choices = _plain(self._config.to_json())
                hparams.hparams_config(  # else its table shows every scalar as a score
                    hparams=[hparams.HParam(name) for name in choices],
                    metrics=[hparams.Metric(f"dice/{n}") for n in ("mean", *self._config.organs)],
                )
                hparams.hparams(choices)

    def measured(self, steps: int, step_s: float) -> None:
        """Notes how many steps fit into the run's time."""
        self._steps = steps
        self._tell(f"{step_s:.3f} s per step: {steps} steps fit")

    def before_call(self) -> None:
        """Starts the profiler for the third call: the first compiles, the second fills caches."""
        if self._profile and self._calls == _PROFILED_CALL:
            tf.profiler.experimental.start(files.join(self._workdir, run.TENSORBOARD))

    def trained(self, learner, losses, seconds: float, waited_s: float) -> None:
        """Notes one call of the device."""
        if self._profile and self._calls == _PROFILED_CALL:
            tf.profiler.experimental.stop()
        self._losses += list(losses)
        self._calls += 1
        if self._calls > 1:  # the first one compiles
            self._slices += len(losses) * learner.global_batch
            self._busy_s += seconds
            self._waited_s += waited_s
        self._warn_of_waiting(learner)
        if sys.stdout.isatty() or time.monotonic() - self._told > _TELL_EVERY_S:
            self._told = time.monotonic()
            end = "\r" if sys.stdout.isatty() else "\n"
            self._tell(
                f"{self._place(learner)}  loss {np.mean(losses):.4f}  "
                f"rate {learner.rate:.2e}  {self._pace(learner)}",
                end,
            )

    def _warn_of_waiting(self, learner) -> None:
        """Says once, after a hundred steps, that input bounds the run, where it does."""
        if not self._warned and self._slices >= _WARN_AFTER * learner.global_batch:
            self._warned = True
            line = diagnosis.waiting_line(self._waited_s / self._busy_s)
            if line:
                self._tell(line)

    def validated(self, learner, source, scores, better: bool) -> None:
        """Notes a validation: one row of the log, one step of TensorBoard with its worst slices."""
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
        if better:
            csv_files.write_table(files.join(self._workdir, run.PATIENTS), _by_patient(scores))
        with self._writer.as_default(step=learner.step):
            for key, value in row.items():
                if key not in ("step", "epoch") and np.isfinite(value):
                    tf.summary.scalar(_TAGS.get(key, key.replace("dice_", "dice/")), value)
            if (worst := pictures.worst_slices(learner, source, scores)) is not None:
                tf.summary.image("worst slices", worst[None])
        self._writer.flush()
        organs = "  ".join(f"{name} {shown(value)}" for name, value in scores.by_organ.items())
        self._tell(
            f"{self._place(learner)}  loss {row['loss']:.4f}  Dice {scores.mean:.3f}"
            f"{'*' if better else ' '} ({organs})  {self._rate():.1f} slices/s"
        )

    def end(self, finished: bool) -> dict:
        """Writes summary.json and the learning curve; returns the summary."""
        if not self._rows:  # stopped before the first validation
            return {}
        best = max(self._rows, key=lambda row: np.nan_to_num(float(row["dice"])))
        last = self._rows[-1]
        summary = {
            "finished": finished,
            "steps": int(last["step"]),
            "best": {key: _or_none(best[key]) for key in best if key.startswith("dice")}
            | {"step": int(best["step"])},
            **{key: float(last[key]) for key in ("slices_per_s", "input_wait", "memory_gb")},
        }
        json_files.write(files.join(self._workdir, run.SUMMARY), summary)
        path = files.join(self._workdir, run.CURVE)
        pictures.save_learning_curve(self._rows, path, self._organs)
        self._writer.close()
        return summary

    def _place(self, learner) -> str:
        return f"step {learner.step}/{self._steps or '?'}"

    def _rate(self) -> float:
        return self._slices / self._busy_s if self._busy_s else 0.0

    def _pace(self, learner) -> str:
        if not self._slices or not self._steps:
            return "the first steps compile" if self._steps else "measuring the first steps"
        left_s = (self._steps - learner.step) * learner.global_batch / self._rate()
        return f"{self._rate():.1f} slices/s  left {duration(left_s)}"

    def _tell(self, text: str, end: str = "\n") -> None:
        print(f"{text:<100}" if sys.stdout.isatty() else text, end=end, flush=True)


class Silent:
    """The journal of a process that is not the chief, which alone tells."""

    def begin(self, *_) -> None:
        """Nothing, and so all the others."""

    before_call = measured = trained = validated = end = begin


def shown(score: float | None) -> str:
    """'0.912'; '-' for an organ that no validation patient has."""
    return "-" if score is None or np.isnan(score) else f"{score:.3f}"


def _or_none(score) -> float | None:
    """JSON knows no NaN, which stands for an organ that no validation patient has."""
    return None if np.isnan(float(score)) else float(score)


_TAGS = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "slices_per_s": "speed/slices_per_s",
    "input_wait": "speed/input_wait",
    "memory_gb": "speed/memory_gb",
    "dice": "dice/mean",
}


def _by_patient(scores) -> list[dict]:
    """A row per validation patient: its Dice per organ, empty where nobody contoured it."""
    return [
        {"patient": patient}
        | {n: "" if np.isnan(v) else float(v) for n, v in zip(scores.organs, row, strict=True)}
        for patient, row in zip(scores.patients, scores.dice, strict=True)
    ]


def memory_gb() -> float:
    """Peak memory: of the first GPU where there is one, else of this process."""
    if tf.config.list_logical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e9
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e9


def _plain(config: dict) -> dict:
    """HParams takes numbers and text alone, and shows the first few names of the alphabet."""
    flat = {key: value for key, value in config.items() if key != "augment"}
    flat |= {f"strength/{key}": value for key, value in config["augment"].items()}
    return {key: ",".join(v) if isinstance(v, list) else v for key, v in flat.items()}
