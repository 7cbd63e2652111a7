"""The training loop: calls of several steps, validations and checkpoints."""

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

DROP = 0.5  # factor of the learning rate on a plateau
_LAUNCHING_CORES = 2  # cores per GPU that launch its operations


@dataclass(frozen=True)
class Job:
    """What to train, and where.

    config: Configuration of the run.
    source: The dataset.
    workdir: Folder of the run.
    strategy: tf.distribute.Strategy of the devices.
    journal: Reports progress.
    stop_asked: Callable from any thread; True stops the run after the next step.
    chief: Whether this process writes into the folder.
    began_s: Start of the time that --minutes limits, by time.monotonic().
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
    """The state of a run.

    learner: Network, optimizer and step.
    source: The dataset.
    batches: Training batches, distributed over the devices.
    held_out: Validation batches, distributed over the devices; every validation reads them again.
      None where no patient is held out.
    checkpoints: The last and the best checkpoint.
    journal: Reports progress.
    stop_asked: As in `Job`.
    """

    learner: Learner
    source: sources.Source
    batches: Iterator
    held_out: tf.distribute.DistributedDataset | None
    checkpoints: Checkpoints
    journal: Journal | Silent
    stop_asked: Callable[[], bool]


def train(job: Job) -> bool:
    """Trains from the last checkpoint of the folder, if there is one, to the last step.

    Returns whether the run is finished; False where `stop_asked()` stopped it.

    Raises:
      InputError: The loss is not finite.
    """
    config, source = job.config, job.source
    global_batch = config.batch_size * job.strategy.num_replicas_in_sync
    plan = length.read_length(config, source, job.workdir, global_batch)
    steps = plan.steps if plan else length.UNMEASURED
    learner = Learner(config, source, job.strategy, steps, job.stop_asked)
    checkpoints = Checkpoints(job.workdir, learner, job.chief)
    resumed = checkpoints.restore()
    if config.start_from and not resumed:
        _load_start_weights(learner, job.workdir, job.chief)
    per_epoch = sources.steps_per_epoch(source, global_batch)
    job.journal.begin(learner.step, plan and steps, per_epoch, resumed)

    batches, held_out = distribute_inputs(config, source, job.strategy, learner.step)
    with startup.quiet():
        batches = iter(batches)
    training = Training(
        learner, source, batches, held_out, checkpoints, job.journal, job.stop_asked
    )
    if plan:  # a resumed run does not know how long the earlier process ran: it keeps the length
        learner.set_schedule(plan.steps, plan.offset)
        return _train_to_end(job, training, plan)
    end_s = job.began_s + config.minutes * 60
    plan = _measure_length(training, end_s)
    if not plan:
        checkpoints.save()
        return False
    _store_length(job, plan)  # before any checkpoint, from which a resumed run would need it
    return _train_to_end(job, training, plan, end_s)


def _train_to_end(job: Job, training: Training, plan: length.Length, end_s=None) -> bool:
    """Alternates steps, validations and checkpoints up to the last step; see `train`.

    end_s: When a run of --minutes has to end, by time.monotonic(). Each validation measures its
      steps again, since the first ones are slower than the later ones.
    """
    learner, checkpoints = training.learner, training.checkpoints
    checkpoint_every = learner.config.checkpoint_every or plan.validate_every
    began, first = time.monotonic(), learner.step
    while learner.step < plan.steps and not _stops_early(learner.config, checkpoints):
        run_steps(training, plan.steps, plan.validate_every, checkpoint_every)
        step, stepped = learner.step, time.monotonic()
        validates = step % plan.validate_every == 0 or step == plan.steps
        if validates:
            _validate(training)
        # Save after the validation, so that the checkpoint holds the score of its own step.
        stopping = learner.any_process(training.stop_asked())
        if step % checkpoint_every == 0 or step == plan.steps or stopping:
            checkpoints.save()
        if stopping:
            return False
        if validates and end_s and step < plan.steps:
            step_s = (stepped - began) / (step - first)
            plan = _change_length(training, plan, end_s, step_s, time.monotonic() - stepped)
            _store_length(job, plan)
            began, first = time.monotonic(), step
    checkpoints.save()
    return True


def _change_length(training: Training, plan: length.Length, end_s, step_s, validation_s):
    """Returns the length that fits into the time left, and sets the schedule accordingly."""
    learner = training.learner
    measured_s = end_s - time.monotonic(), step_s, validation_s
    # Every process must plan the same number of steps.
    measured_s = map(learner.mean_over_processes, measured_s)
    steps = length.fit_length(learner.step, *measured_s, plan.validate_every).steps
    changed = length.change_length(plan, learner.step, steps)
    learner.set_schedule(changed.steps, changed.offset)
    training.journal.changed(changed.steps)
    return changed


def distribute_inputs(config, source, strategy, first_step: int):
    """Distributes training batches from `first_step` on, and validation batches, over the devices.

    Returns a pair of tf.distribute.DistributedDataset; the second one is None where no patient is
    held out. TensorFlow copies the next batch to each GPU while the current step runs.
    """
    global_batch = config.batch_size * strategy.num_replicas_in_sync

    def distribute(make_slices):
        def make(context):
            host = context.input_pipeline_id, context.num_input_pipelines
            return _with_private_threads(data.per_replica(make_slices(host), config.batch_size))

        return strategy.distribute_datasets_from_function(make)

    held_out = None
    if source.validation:
        held_out = distribute(lambda host: data.evaluation(source, global_batch, host))
    training = distribute(
        lambda host: data.training(source, config, global_batch, first_step, host)
    )
    return training, held_out


def _with_private_threads(dataset):
    """Gives the dataset its own threads if there are GPUs, so that it never delays launches."""
    gpus = len(tf.config.list_logical_devices("GPU"))
    if not gpus:
        return dataset
    options = tf.data.Options()
    options.threading.private_threadpool_size = max(1, os.cpu_count() - _LAUNCHING_CORES * gpus)
    return dataset.with_options(options)


def _measure_length(training: Training, end_s: float):
    """Measures the first steps and a validation; returns the length that fits in before `end_s`.

    Returns None where the run is stopped meanwhile; a resumed run measures again.
    """
    learner = training.learner
    # Steps and validation compile when they first run, so they run once before they are timed.
    for count in (1, length.MEASURED_STEPS // 4):
        run_steps(training, learner.step + count)
    validate.validate(learner, training.source, training.held_out)
    start, first = time.monotonic(), learner.step
    while learner.step < first + length.MEASURED_STEPS:
        run_steps(training, first + length.MEASURED_STEPS)
        if learner.any_process(training.stop_asked()):
            return None
    stepped = time.monotonic()
    _validate(training)
    training.checkpoints.save()
    done = time.monotonic()
    step_s = (stepped - start) / (learner.step - first)
    # Every process must plan the same number of steps.
    measured_s = (end_s - done, step_s, done - stepped)
    left_s, step_s, validation_s = map(learner.mean_over_processes, measured_s)
    validate_every = learner.config.validate_every
    plan = length.fit_length(learner.step, left_s, step_s, validation_s, validate_every)
    learner.set_schedule(plan.steps, plan.offset)
    training.journal.measured(plan.steps, step_s)
    return plan


def _store_length(job: Job, plan: length.Length) -> None:
    if job.chief:
        run.add_to_record(job.workdir, length=dataclasses.asdict(plan))


def _load_start_weights(learner, workdir: str, chief: bool) -> None:
    loaded = learner.load_start_weights()
    if chief:
        run.add_to_record(workdir, start=loaded)
        print(start.describe_start(loaded), flush=True)


def run_steps(training: Training, steps: int, *periods: int) -> None:
    """Runs some steps in one call of the device, at most up to step `steps`.

    The call ends at the next multiple of a period, where the encoder is unfrozen, or where a stop
    is requested.
    """
    learner, journal = training.learner, training.journal
    first = learner.step
    frozen = learner.config.freeze_encoder_steps
    until = [steps, first + learner.config.steps_per_call, *([frozen] if first < frozen else [])]
    until += [(first // period + 1) * period for period in periods]
    journal.before_call()
    began = time.perf_counter()
    losses, waited = learner.train(training.batches, tf.constant(min(until) - first))
    losses = losses.numpy()  # the only place where the host waits for the device
    if not np.isfinite(losses).all():
        step = first + int(np.argmin(np.isfinite(losses)))
        patients = data.patients_at(training.source, learner.config, learner.global_batch, step)
        raise InputError(
            f"the loss is not finite at step {step}, with patients {', '.join(patients)}; check "
            "their data, lower --learning_rate or set --clip_norm"
        )
    journal.trained(learner, losses, time.perf_counter() - began, float(waited))


def _validate(training: Training) -> None:
    """Scores the network, saves it if it is the best so far, and reports."""
    learner, checkpoints = training.learner, training.checkpoints
    scores = validate.validate(learner, training.source, training.held_out)
    better = checkpoints.score(scores.mean)
    _drop_rate(learner.config, learner, checkpoints)
    training.journal.validated(learner, training.source, scores, better)


def _stops_early(config, checkpoints) -> bool:
    return bool(config.early_stop) and int(checkpoints.stale) >= config.early_stop


def _drop_rate(config, learner, checkpoints) -> None:
    if config.schedule == "plateau" and int(checkpoints.since_drop) >= config.patience:
        learner.drop.assign(learner.drop * DROP)
        checkpoints.since_drop.assign(0)
