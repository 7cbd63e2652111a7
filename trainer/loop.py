"""The training loop: calls of several steps, validations, checkpoints, in one readable order."""

import time

import numpy as np
import tensorflow as tf

from segthor import startup
from segthor.errors import InputError
from trainer import data, sources, validate
from trainer.checkpoints import Checkpoints
from trainer.learner import Learner

DROP = 0.5  # what a plateau does to the learning rate


def total_steps(config, source, global_batch: int) -> int:
    """Steps of the whole run."""
    return config.steps or config.epochs * sources.steps_per_epoch(source, global_batch)


def train(config, source, workdir: str, strategy, journal, stop_asked, chief=True) -> bool:
    """Trains to the end, or to the step in which `stop_asked()`; returns whether it is finished.

    Continues from the folder's last checkpoint. Raises InputError where the loss is not finite.
    """
    global_batch = config.batch_size * strategy.num_replicas_in_sync
    steps = total_steps(config, source, global_batch)
    learner = Learner(config, source, strategy, steps, stop_asked)
    checkpoints = Checkpoints(workdir, learner, chief)
    resumed = checkpoints.restore()
    per_epoch = sources.steps_per_epoch(source, global_batch)
    validate_every = config.validate_every or per_epoch
    checkpoint_every = config.checkpoint_every or validate_every
    journal.begin(learner.step, steps, per_epoch, resumed)

    batches, held_out = _inputs(config, source, strategy, learner.step)
    with startup.quiet():
        iterator = iter(batches)
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


def _call(learner, iterator, source, journal, steps, *every) -> None:
    """One call of the device, up to the next step at which the loop has something to do.

    It ends earlier where the run is asked to stop.
    """
    first = learner.step
    until = [steps, first + learner.config.steps_per_call]
    until += [(first // period + 1) * period for period in every]
    journal.before_call()
    start = time.perf_counter()
    losses, waited = learner.train(iterator, tf.constant(min(until) - first))
    losses = losses.numpy()
    if not np.isfinite(losses).all():
        step = first + int(np.argmin(np.isfinite(losses)))
        patients = data.patients_at(source, learner.config, learner.global_batch, step)
        raise InputError(
            f"the loss is not finite at step {step}, with patients {', '.join(patients)}; look at "
            "their data, lower --learning_rate or set --clip_norm"
        )
    journal.trained(learner, losses, time.perf_counter() - start, float(waited))


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
