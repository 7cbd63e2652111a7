"""The training loop: calls of several steps, validations, checkpoints, in one readable order."""

import dataclasses
import time

import numpy as np
import tensorflow as tf

from segthor import startup
from segthor.errors import InputError
from trainer import data, length, run, sources, start, validate
from trainer.checkpoints import Checkpoints
from trainer.learner import Learner

DROP = 0.5  # what a plateau does to the learning rate


def train(config, source, workdir, strategy, journal, stop_asked, chief=True, began_s=None) -> bool:
    """Trains to the end, or to the step in which `stop_asked()`; returns whether it is finished.

    Continues from the folder's last checkpoint. began_s: when the minutes of a timed run began, by
    time.monotonic(); by default now. Raises InputError where the loss is not finite.
    """
    began_s = time.monotonic() if began_s is None else began_s
    global_batch = config.batch_size * strategy.num_replicas_in_sync
    known = length.known(config, source, workdir, global_batch)
    steps = known.steps if known else length.UNMEASURED
    learner = Learner(config, source, strategy, steps, stop_asked)
    checkpoints = Checkpoints(workdir, learner, chief)
    resumed = checkpoints.restore()
    if config.start_from and not resumed:
        _start_from(learner, workdir, chief)
    per_epoch = sources.steps_per_epoch(source, global_batch)
    journal.begin(learner.step, known and steps, per_epoch, resumed)

    batches, held_out = _inputs(config, source, strategy, learner.step)
    with startup.quiet():
        iterator = iter(batches)
    if not known:
        left_s = config.minutes * 60 - (time.monotonic() - began_s)
        parts = (learner, iterator, source, held_out, checkpoints, journal, stop_asked)
        known = _measure(*parts, left_s)
        if not known:
            checkpoints.save()
            return False
        if chief:  # before a checkpoint that would be continued with these steps
            run.note(workdir, length=dataclasses.asdict(known))
    steps, validate_every = known.steps, known.validate_every
    checkpoint_every = config.checkpoint_every or validate_every
    while learner.step < steps and not _given_up(config, checkpoints):
        _call(learner, iterator, source, journal, steps, validate_every, checkpoint_every)
        step = learner.step
        if step % validate_every == 0 or step == steps:
            _validate(learner, source, held_out, checkpoints, journal)
        stopping = learner.in_any_process(stop_asked())
        if step % checkpoint_every == 0 or step == steps or stopping:
            checkpoints.save()
        if stopping:
            return False
    checkpoints.save()
    return True


def _inputs(config, source, strategy, first_step: int):
    """(batches of training from a step on, those of validation), shared out to the devices."""
    global_batch = config.batch_size * strategy.num_replicas_in_sync

    def share_out(make):
        return strategy.distribute_datasets_from_function(
            lambda context: data.per_replica(
                make((context.input_pipeline_id, context.num_input_pipelines)), config.batch_size
            )
        )

    return (
        share_out(lambda host: data.training(source, config, global_batch, first_step, host)),
        share_out(lambda host: data.evaluation(source, global_batch, host)),
    )


def _measure(learner, iterator, source, held_out, checkpoints, journal, stop_asked, left_s):
    """The length of a run that has `left_s` seconds, from its first steps and a validation.

    What compiles runs once before it is timed. None where the run is asked to stop: continued, it
    measures again.
    """
    began = time.monotonic()
    for count in (1, length.MEASURED_STEPS // 4):
        _call(learner, iterator, source, journal, learner.step + count)
    validate.validate(learner, source, held_out)
    start, first = time.monotonic(), learner.step
    while learner.step < first + length.MEASURED_STEPS:
        _call(learner, iterator, source, journal, first + length.MEASURED_STEPS)
        if learner.in_any_process(stop_asked()):
            return None
    stepped = time.monotonic()
    _validate(learner, source, held_out, checkpoints, journal)
    checkpoints.save()
    done = time.monotonic()
    step_s = (stepped - start) / (learner.step - first)
    found = [
        learner.mean_of_processes(s) for s in (left_s - (done - began), step_s, done - stepped)
    ]
    known = length.fitting(learner.step, *found, learner.config.validate_every)
    learner.lay_schedule(known.steps)
    journal.measured(known.steps, found[1])
    return known


def _start_from(learner, workdir: str, chief: bool) -> None:
    taken = learner.start_from()
    if chief:
        run.note(workdir, start=taken)
        print(start.told(taken), flush=True)


def _call(learner, iterator, source, journal, steps, *every) -> None:
    """One call of the device, up to the next step at which the loop has something to do.

    It ends earlier where the run is asked to stop.
    """
    first = learner.step
    frozen = learner.config.freeze_encoder_steps
    until = [steps, first + learner.config.steps_per_call, *([frozen] if first < frozen else [])]
    until += [(first // period + 1) * period for period in every]
    journal.before_call()
    began = time.perf_counter()
    losses, waited = learner.train(iterator, tf.constant(min(until) - first))
    losses = losses.numpy()
    if not np.isfinite(losses).all():
        step = first + int(np.argmin(np.isfinite(losses)))
        patients = data.patients_at(source, learner.config, learner.global_batch, step)
        raise InputError(
            f"the loss is not finite at step {step}, with patients {', '.join(patients)}; look at "
            "their data, lower --learning_rate or set --clip_norm"
        )
    journal.trained(learner, losses, time.perf_counter() - began, float(waited))


def _validate(learner, source, held_out, checkpoints, journal) -> None:
    """Scores the network, keeps it where it is the best so far, and tells."""
    scores = validate.validate(learner, source, held_out)
    better = checkpoints.score(scores.mean)
    _drop_rate(learner.config, learner, checkpoints)
    journal.validated(learner, source, scores, better)


def _given_up(config, checkpoints) -> bool:
    return bool(config.early_stop) and int(checkpoints.stale) >= config.early_stop


def _drop_rate(config, learner, checkpoints) -> None:
    if config.schedule == "plateau" and int(checkpoints.since_drop) >= config.patience:
        learner.drop.assign(learner.drop * DROP)
        checkpoints.since_drop.assign(0)
