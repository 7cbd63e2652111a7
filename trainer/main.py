"""Trains a network on a dataset of shards.

python -m trainer.main --flagfile=configs/all.flags --data=DATASET --workdir=RUN

Repeat the same command to continue an interrupted run. Where TF_CONFIG names several hosts, start
the command on each. Exit status: 0, or 143 where SIGTERM stopped the run after a checkpoint.
"""

import dataclasses
import signal

import tensorflow as tf
from absl import flags, logging

from segthor import files
from segthor.errors import InputError, run
from trainer import checkpoints, data, devices, failures, loop, surfaces
from trainer.augment import Strengths
from trainer.config import Config
from trainer.journal import Journal, Silent

STOPPED = 128 + signal.SIGTERM

_DATA = flags.DEFINE_string("data", "data/dataset", "Folder of the dataset.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; new, or to be continued.")
_PROFILE = flags.DEFINE_bool("profile", False, "Record some steps for TensorBoard's profiler.")
_CPU_DEVICES = flags.DEFINE_integer(
    "cpu_devices", 1, "Logical CPU devices, to try several replicas without GPUs.", lower_bound=1
)


def _define(kind, prefix: str) -> None:
    """One flag per field of a configuration's dataclass."""
    for spec in dataclasses.fields(kind):
        name, text = prefix + spec.name, spec.metadata.get("help")
        if spec.metadata.get("choices"):
            flags.DEFINE_enum(name, spec.default, spec.metadata["choices"], text)
        elif isinstance(spec.default, (bool, int, float, str, tuple)):
            define = {
                bool: flags.DEFINE_bool,
                int: flags.DEFINE_integer,
                float: flags.DEFINE_float,
                str: flags.DEFINE_string,
                tuple: flags.DEFINE_list,
            }[type(spec.default)]
            default = spec.default
            define(name, list(default) if isinstance(default, tuple) else default, text)


_define(Config, "")
_define(Strengths, "augment_")


def config_from_flags() -> Config:
    """The configuration that the flags describe."""

    def values(kind, prefix):
        names = [spec.name for spec in dataclasses.fields(kind)]
        return {n: getattr(flags.FLAGS, prefix + n) for n in names if prefix + n in flags.FLAGS}

    chosen = values(Config, "")
    chosen["organs"] = tuple(chosen["organs"])
    return Config(**chosen, augment=Strengths(**values(Strengths, "augment_")))


def main(_):
    """Checks everything, then trains."""
    logging.set_verbosity(logging.WARNING)  # tensorflow's notes would bury what is said here
    if not _WORKDIR.value:
        raise InputError("--workdir: expected the folder of the run, found nothing")
    config = config_from_flags()
    source = data.open_source(_DATA.value, config.fold if config.fold >= 0 else None)
    data.require_contours(source, config.organs)
    _prepare_devices(config)
    strategy = devices.strategy()
    chief = devices.is_chief(strategy)
    replicas = strategy.num_replicas_in_sync
    run_record = checkpoints.claim(_WORKDIR.value, config, source, replicas, chief)
    _announce(config, source, replicas)
    stopped = _on_sigterm()
    journal = Journal(_WORKDIR.value, config, _PROFILE.value) if chief else Silent()
    several = devices.several_processes(strategy)
    with failures.in_one_line(several, _DATA.value, _WORKDIR.value):
        finished = loop.train(
            config, source, _WORKDIR.value, strategy, journal, lambda: bool(stopped), chief
        )
    summary = journal.end(finished)
    if not finished:
        print("Stopped by SIGTERM after a checkpoint; the same command continues.")
        return STOPPED
    if chief and config.surface_distances:
        surfaces.score(_WORKDIR.value, source)
    return _conclude(summary, run_record)


def _prepare_devices(config) -> None:
    if _CPU_DEVICES.value > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * _CPU_DEVICES.value
        )
    tf.keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()


def _announce(config, source, replicas: int) -> None:
    batch = config.batch_size * replicas
    print(
        f"{source.count(source.train)} training slices, {source.count(source.validation)} held out "
        f"({len(source.patients)} patients); {config.decoder}-{config.backbone}, {config.task} "
        f"{', '.join(config.organs)}"
    )
    print(
        f"{replicas} device(s) x {config.batch_size} slices = {batch} per step, "
        f"{loop.total_steps(config, source, batch)} steps, "
        f"highest learning rate {config.learning_rate:g}",
        flush=True,
    )


def _on_sigterm() -> list:
    """A list that holds something once SIGTERM came."""
    stopped = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    return stopped


def _conclude(summary, run_record) -> None:
    if not summary:  # stopped, or ended earlier and its log.csv is gone
        return
    best = summary["best"]
    organs = ", ".join(f"{name} {best['dice_' + name]:.3f}" for name in run_record["organs"])
    print(f"Best Dice {best['dice']:.3f} at step {best['step']} ({organs})")
    workdir = _WORKDIR.value
    print(f"Wrote {files.join(workdir, checkpoints.BEST)} and {files.join(workdir, 'log.csv')}")
    print(f"Next: python -m serving.export --workdir={workdir} --output=MODEL")


if __name__ == "__main__":
    run(main)
