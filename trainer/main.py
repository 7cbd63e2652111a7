"""Trains a network on a dataset of shards.

python -m trainer.main --flagfile=configs/all.flags --data=DATASET --workdir=RUN

Repeat the same command to continue an interrupted run. Where TF_CONFIG names several hosts, start
the command on each. SIGTERM and Ctrl-C stop the run after a checkpoint, with status 143 and 130; a
second Ctrl-C ends it at once.
"""

import os
import select
import signal
import sys
import time

from absl import flags

from segthor import errors, files, flags_of, startup
from segthor.manifest import DEFAULT_DATASET
from trainer import devices, length, run, sources, start
from trainer.config import Config

DATA = flags.DEFINE_string("data", DEFAULT_DATASET, "Folder of the dataset.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; new, or to be continued.")
_PROFILE = flags.DEFINE_bool("profile", False, "Record some steps for TensorBoard's profiler.")
_CPU_DEVICES = flags.DEFINE_integer(
    "cpu_devices",
    1,
    "Logical CPU devices, to test several replicas without GPUs.",
    lower_bound=1,
    upper_bound=64,
)
flags_of.define(Config)


def main(_):
    """Checks flags and dataset, trains, prints the result."""
    began_s, workdir = time.monotonic(), _WORKDIR.value
    run.check_folder(workdir, DATA.value)
    source, config, unscored = sources.open_run(DATA.value, flags_of.read(Config))
    config = start.resolve_start(config, workdir)
    chief, several = devices.is_chief(), devices.several_processes()
    startup.load_tensorflow()
    from trainer import failures, loop, surfaces  # slow imports: report bad input first
    from trainer.journal import Journal, Silent

    strategy = _devices(config)
    replicas = strategy.num_replicas_in_sync
    with (
        run.claim(workdir, config, source, replicas, chief),
        failures.as_input_errors(source, workdir, several),
    ):
        stop_asked, stop_status = _handle_signals()
        _print_plan(config, source, replicas, unscored)
        journal = Journal(workdir, config, source.organs, _PROFILE.value) if chief else Silent()
        job = loop.Job(config, source, workdir, strategy, journal, stop_asked, chief, began_s)
        finished = loop.train(job)
        summary = journal.end(finished)
        if finished and chief and config.surface_distances:
            surfaces.score(workdir, source)
    if not finished:
        print("Stopped after a checkpoint, as asked; the same command continues.")
        return stop_status()
    return _print_result(summary, config)


def _devices(config):
    """Configures the devices, which is possible only before their first use; returns a strategy."""
    import tensorflow as tf

    if _CPU_DEVICES.value > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * _CPU_DEVICES.value
        )
    tf.keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    return devices.strategy()


def _print_plan(config, source, replicas: int, unscored: list[str]) -> None:
    batch = config.batch_size * replicas
    plan = length.read_length(config, source, _WORKDIR.value, batch)
    steps = f"{plan.steps} steps" if plan else f"steps that fit into {config.minutes:g} minutes"
    print(
        f"{source.train_slices} training slices, {source.count(source.validation)} held out "
        f"({len(source.patients)} patients); {config.decoder}-{config.backbone}, {config.task} "
        f"{', '.join(config.organs)}"
    )
    print(
        f"{replicas} device(s) x {config.batch_size} slices = {batch} per step, {steps}, "
        f"highest learning rate {config.learning_rate:g}, "
        f"{devices.resolve_precision(config.precision)}",
        flush=True,
    )
    if source.train_patients <= config.few_patients:
        print(
            f"Few training patients ({source.train_patients}): every strength of augmentation is "
            f"at least its default (--few_patients={config.few_patients})"
        )
    if not source.validation:
        print(
            "warning: no patient is held out: there are no scores, and the last checkpoint is "
            "exported",
            file=sys.stderr,
        )
    if unscored:
        print(
            f"warning: no validation patient has contours of {', '.join(unscored)}: trained "
            "without a score",
            file=sys.stderr,
        )


def _handle_signals():
    """Makes SIGTERM and Ctrl-C set a flag instead of interrupting the process.

    Returns two functions: whether a signal has arrived, and the exit status for it. The first may
    be called while Python waits for the device.
    """
    # Python runs its signal handlers only when it returns from the device, but the C handler writes
    # the signal's number into this pipe at once. The handler of Ctrl-C raises nothing: an exception
    # inside TensorFlow may become another error, or crash the process.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    # A second Ctrl-C ends the process at once.
    signal.signal(signal.SIGINT, lambda *_: signal.signal(signal.SIGINT, signal.SIG_DFL))

    def is_stop_asked() -> bool:
        return bool(select.select([reader], [], [], 0)[0])

    def status() -> int:  # the pipe is empty where another host received the signal
        return 128 + (os.read(reader, 1)[0] if is_stop_asked() else signal.SIGTERM)

    return is_stop_asked, status


def _print_result(summary, config) -> None:
    if not summary:  # not the chief, or a finished run without log.csv
        return
    from trainer.journal import format_score

    best, workdir = summary["best"], _WORKDIR.value
    if best["dice"] is not None:
        scores = ", ".join(f"{name} {format_score(best['dice_' + name])}" for name in config.organs)
        print(f"Best Dice {format_score(best['dice'])} at step {best['step']} ({scores})")
    print(f"Wrote {files.join(workdir, run.BEST)} and {files.join(workdir, run.LOG)}")
    print(errors.hint("serving.export", workdir=workdir, output="MODEL"))


if __name__ == "__main__":
    errors.run(main)
