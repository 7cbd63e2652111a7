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
    "Logical CPU devices, to try several replicas without GPUs.",
    lower_bound=1,
    upper_bound=64,
)
flags_of.define(Config)


def main(_):
    """Checks everything, then trains."""
    began_s = time.monotonic()
    run.check_folder(_WORKDIR.value, DATA.value)
    config = flags_of.read(Config)
    which = (config.held_out_fold, config.train_patients, config.draw)
    source = sources.open_source(DATA.value, *which)
    config = start.settle(config.of_table(source.organs), _WORKDIR.value)
    unscored = sources.require_contours(source, config.organs)
    sources.steps_per_epoch(source, config.batch_size)
    chief, several = devices.is_chief(), devices.several_processes()
    startup.load_tensorflow()
    from trainer import failures, loop, surfaces  # take seconds; bad input is told before
    from trainer.journal import Journal, Silent

    strategy = _devices(config)
    replicas = strategy.num_replicas_in_sync
    with (
        run.claim(_WORKDIR.value, config, source, replicas, chief),
        failures.in_one_line(source, _WORKDIR.value, several),
    ):
        stop_asked, stop_status = _on_signals()
        known = length.known(config, source, _WORKDIR.value, config.batch_size * replicas)
        _announce(config, source, replicas, known, unscored)
        journal = Silent()
        if chief:
            journal = Journal(_WORKDIR.value, config, _PROFILE.value, organs=source.organs)
        job = loop.Job(
            config, source, _WORKDIR.value, strategy, journal, stop_asked, chief, began_s
        )
        finished = loop.train(job)
        summary = journal.end(finished)
        if finished and chief and config.surface_distances:
            surfaces.score(_WORKDIR.value, source)
    if not finished:
        print("Stopped after a checkpoint, as asked; the same command continues.")
        return stop_status()
    return _conclude(summary, config)


def _devices(config):
    """A tf.distribute.Strategy of the devices, arranged before anything else uses them."""
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


def _announce(config, source, replicas: int, known, unscored: list[str]) -> None:
    batch = config.batch_size * replicas
    steps = f"{known.steps} steps" if known else f"steps that fit into {config.minutes:g} minutes"
    print(
        f"{source.train_slices} training slices, {source.count(source.validation)} held out "
        f"({len(source.patients)} patients); {config.decoder}-{config.backbone}, {config.task} "
        f"{', '.join(config.organs)}"
    )
    print(
        f"{replicas} device(s) x {config.batch_size} slices = {batch} per step, {steps}, "
        f"highest learning rate {config.learning_rate:g}",
        flush=True,
    )
    if unscored:
        print(
            f"warning: no validation patient has contours of {', '.join(unscored)}: trained all "
            "the same, without a score",
            file=sys.stderr,
        )


def _on_signals():
    """Two functions: whether SIGTERM or Ctrl-C came, and the exit status that tells which.

    The first is asked also while Python waits for steps of the device. Python's own handlers run
    only after that; but the system writes into a pipe at once. An exception of Ctrl-C's would come
    in the midst of TensorFlow's work, which may turn it into an error of its own, or crash.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: signal.signal(signal.SIGINT, signal.SIG_DFL))

    def asked() -> bool:
        return bool(select.select([reader], [], [], 0)[0])

    def status() -> int:  # the pipe holds the signals' numbers; none where another host was asked
        return 128 + (os.read(reader, 1)[0] if asked() else signal.SIGTERM)

    return asked, status


def _conclude(summary, config) -> None:
    if not summary:  # not the chief, or ended earlier and its log.csv is gone
        return
    from trainer.journal import shown

    best, workdir = summary["best"], _WORKDIR.value
    scores = ", ".join(f"{name} {shown(best['dice_' + name])}" for name in config.organs)
    print(f"Best Dice {shown(best['dice'])} at step {best['step']} ({scores})")
    print(f"Wrote {files.join(workdir, run.BEST)} and {files.join(workdir, run.LOG)}")
    print(errors.hint("serving.export", workdir=workdir, output="MODEL"))


if __name__ == "__main__":
    errors.run(main)
