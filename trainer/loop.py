"""The training loop: calls of several steps, validations, checkpoints, in one readable order."""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from segthor import startup
from segthor.errors import InputError
from trainer import data, length, run, sources, start, validate
from trainer.checkpoints import Checkpoints
from trainer.config import Config
from trainer.journal import Journal, Silent
from trainer.learner import Learner

DROP = 0.5  # what a plateau does to the learning rate
_LAUNCHING = 2  # cores that a GPU's launching threads keep busy


@dataclass(frozen=True)
class Job:
    """One run.

    config: Its choices.
    source: The dataset.
    workdir: The run's folder.
    strategy: tf.distribute.Strategy of the devices.
    journal: Reports its progress.
    stop_asked: Says, from any thread, whether to stop after the next step.
    chief: Whether this process writes into the folder.
    began_s: When the minutes of a timed run began, by time.monotonic().
    """

    config: Config
    source: sources.Source
    workdir: str
    strategy: tf.distribute.Strategy
    journal: Journal | Silent
    stop_asked: Callable[[], bool]
    chief: bool
    began_s: float


@dataclass(frozen=True)
class Training:
    """A job under way.

    learner: Network, optimizer and step.
    source: The dataset.
    batches: Training batches, shared out to the devices.
    held_out: Validation batches, likewise; read anew by each validation.
    checkpoints: The last and the best.
    journal: Reports progress.
    stop_asked: As in `Job`.
    """

    learner: Learner
    source: sources.Source
    batches: Iterator
    held_out: tf.distribute.DistributedDataset
    checkpoints: Checkpoints
    journal: Journal | Silent
    stop_asked: Callable[[], bool]


def train(job: Job) -> bool:
    """Trains to the end, or to the step in which `stop_asked()`; returns whether it is finished.

    Continues from the folder's last checkpoint. Raises InputError where the loss is not finite.
    """
    config, source = job.config, job.source
    global_batch = config.batch_size * job.strategy.num_replicas_in_sync
    known = length.known(config, source, job.workdir, global_batch)
    steps = known.steps if known else length.UNMEASURED
    learner = Learner(config, source, job.strategy, steps, job.stop_asked)
    checkpoints = Checkpoints(job.workdir, learner, job.chief)
    resumed = checkpoints.restore()
    if config.start_from and not resumed:
        _start_from(learner, job.workdir, job.chief)
    per_epoch = sources.steps_per_epoch(source, global_batch)
    job.journal.begin(learner.step, known and steps, per_epoch, resumed)

    batches, held_out = share_inputs(config, source, job.strategy, learner.step)
    with startup.quiet():
        batches = iter(batches)
    training = Training(
        learner, source, batches, held_out, checkpoints, job.journal, job.stop_asked
    )
    if not known:
        known = _measure(training, config.minutes * 60 - (time.monotonic() - job.began_s))
        if not known:
            checkpoints.save()
            return False
        if job.chief:  # before a checkpoint that would be continued with these steps
            run.note(job.workdir, length=dataclasses.asdict(known))
    return _train_to(training, known)


def _train_to(training: Training, known: length.Length) -> bool:
    """Trains to the last step, with validations and checkpoints on the way; see `train`."""
    learner, checkpoints = training.learner, training.checkpoints
    steps, validate_every = known.steps, known.validate_every
    checkpoint_every = learner.config.checkpoint_every or validate_every
    while learner.step < steps and not _given_up(learner.config, checkpoints):
        call(training, steps, validate_every, checkpoint_every)
        step = learner.step
        if step % validate_every == 0 or step == steps:
            _validate(training)
        stopping = learner.in_any_process(training.stop_asked())
        if step % checkpoint_every == 0 or step == steps or stopping:
            checkpoints.save()
        if stopping:
            return False
    checkpoints.save()
    return True


def share_inputs(config, source, strategy, first_step: int):
    """(batches of training from a step on, those of validation), shared out to the devices.

    TensorFlow copies the next batch to each GPU while the step before it runs.
    """
    global_batch = config.batch_size * strategy.num_replicas_in_sync

    def share_out(make):
        return strategy.distribute_datasets_from_function(
            lambda context: _with_threads(
                data.per_replica(
                    make((context.input_pipeline_id, context.num_input_pipelines)),
                    config.batch_size,
                )
            )
        )

    return (
        share_out(lambda host: data.training(source, config, global_batch, first_step, host)),
        share_out(lambda host: data.evaluation(source, global_batch, host)),
    )


def _with_threads(dataset):
    """The dataset; where there are GPUs, with threads of its own, which never delay launches."""
    gpus = len(tf.config.list_logical_devices("GPU"))
    if not gpus:
        return dataset
    options = tf.data.Options()
    options.threading.private_threadpool_size = max(1, os.cpu_count() - _LAUNCHING * gpus)
    return dataset.with_options(options)


def _measure(training: Training, left_s: float):
    """The length of a run that has `left_s` seconds, from its first steps and a validation.

    What compiles runs once before it is timed. None where the run is asked to stop: continued, it
    measures again.
    """
    learner, began = training.learner, time.monotonic()
    for count in (1, length.MEASURED_STEPS // 4):
        call(training, learner.step + count)
    validate.validate(learner, training.source, training.held_out)
    start, first = time.monotonic(), learner.step
    while learner.step < first + length.MEASURED_STEPS:
        call(training, first + length.MEASURED_STEPS)
        if learner.in_any_process(training.stop_asked()):
            return None
    stepped = time.monotonic()
    _validate(training)
    training.checkpoints.save()
    done = time.monotonic()
    step_s = (stepped - start) / (learner.step - first)
    measured_s = (left_s - (done - began), step_s, done - stepped)
    left_s, step_s, validation_s = map(learner.mean_of_processes, measured_s)
    known = length.fitting(
        learner.step, left_s, step_s, validation_s, learner.config.validate_every
    )
    learner.lay_schedule(known.steps)
    training.journal.measured(known.steps, step_s)
    return known


def _start_from(learner, workdir: str, chief: bool) -> None:
    taken = learner.start_from()
    if chief:
        run.note(workdir, start=taken)
        print(start.told(taken), flush=True)


def call(training: Training, steps: int, *every: int) -> None:
    """One call of the device, up to the next step at which the loop has something to do.

    It ends earlier where the run is asked to stop.
    """
    learner, journal = training.learner, training.journal
    first = learner.step
    frozen = learner.config.freeze_encoder_steps
    until = [steps, first + learner.config.steps_per_call, *([frozen] if first < frozen else [])]
    until += [(first // period + 1) * period for period in every]
    journal.before_call()
    began = time.perf_counter()
    losses, waited = learner.train(training.batches, tf.constant(min(until) - first))
    losses = losses.numpy()  # here alone the host waits for the device
    if not np.isfinite(losses).all():
        step = first + int(np.argmin(np.isfinite(losses)))
        patients = data.patients_at(training.source, learner.config, learner.global_batch, step)
        raise InputError(
            f"the loss is not finite at step {step}, with patients {', '.join(patients)}; look at "
            "their data, lower --learning_rate or set --clip_norm"
        )
    journal.trained(learner, losses, time.perf_counter() - began, float(waited))


def _validate(training: Training) -> None:
    """Scores the network, keeps it where it is the best so far, and reports."""
    learner, checkpoints = training.learner, training.checkpoints
    scores = validate.validate(learner, training.source, training.held_out)
    better = checkpoints.score(scores.mean)
    _drop_rate(learner.config, learner, checkpoints)
    training.journal.validated(learner, training.source, scores, better)


def _given_up(config, checkpoints) -> bool:
    return bool(config.early_stop) and int(checkpoints.stale) >= config.early_stop


def _drop_rate(config, learner, checkpoints) -> None:
    if config.schedule == "plateau" and int(checkpoints.since_drop) >= config.patience:
        learner.drop.assign(learner.drop * DROP)
        checkpoints.since_drop.assign(0)
