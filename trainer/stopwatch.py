"""Times the parts of a training run: input, augmentation, steps, validation."""

import itertools
import time

import numpy as np
import tensorflow as tf

from segthor import files, memory, records
from trainer import augment, data, journal, placement, sources, validate
from trainer.diagnosis import Times
from trainer.learner import Learner

_LARGER = 4
_WARM_UP = 2


def measure(
    config, source: sources.Source, strategy: tf.distribute.Strategy, seconds: float
) -> Times:
    """Times each part for about `seconds` / 6, on a network of its own; writes nothing."""
    each = seconds / 6
    batch = config.batch_size * strategy.num_replicas_in_sync
    learner = Learner(config, source, strategy, total_steps=10**6)
    slices = data.training(source, config, batch)
    step_s, _ = _time_steps(learner, iter(_repeat_batches(strategy, slices, config)), each)
    before, first = memory.page_faults(), learner.step
    iterator = iter(_distribute(strategy, slices, config.batch_size))
    whole_s, wait_s = _time_steps(learner, iterator, each)
    audit = placement.audit(learner.trace_training(iterator))
    faults = (memory.page_faults() - before) / (learner.step - first)
    return Times(
        batch=batch,
        read_s=_time_batches(_read_serialized(source).batch(batch), each),
        input_s=_time_batches(data.per_replica(slices, batch), each),
        augment_s=_time_augmentation(config, slices, batch, each),
        step_s=step_s,
        whole_s=whole_s,
        waiting=wait_s / whole_s,
        larger=_LARGER,
        larger_s=_time_larger_step(learner, slices, each),
        validation_s=_time_validation(learner, source, batch),
        faults_per_step=faults,
        memory_gb=journal.memory_gb(),
        launches=audit.launches.total(),
        off_device=tuple(map(str, (*audit.without_kernel, *audit.in_host_memory))),
    )


def _distribute(strategy, slices, batch: int):
    return strategy.distribute_datasets_from_function(lambda _: data.per_replica(slices, batch))


def _repeat_batches(strategy, slices, config, times: int = 1):
    """Distributes one batch per device, repeated for ever; `times` multiplies the batch size."""
    count = strategy.num_replicas_in_sync
    cached = slices.batch(config.batch_size * times, drop_remainder=True).take(count).cache()
    return strategy.distribute_datasets_from_function(lambda _: cached.repeat())


def _time_validation(learner, source, batch: int) -> float:
    """Seconds of a validation, compilation included; 0 where no patient is held out."""
    if not source.validation:
        return 0.0
    slices = data.evaluation(source, batch)
    held_out = _distribute(learner.strategy, slices, learner.config.batch_size)
    start = time.perf_counter()
    validate.validate(learner, source, held_out)
    return time.perf_counter() - start


def _time_steps(learner, iterator, seconds: float) -> tuple[float, float]:
    """Seconds per step in calls of one step, and how many of them the step waits for input."""
    waits_s = []

    def step():
        losses, waited = learner.train(iterator, tf.constant(1))
        losses.numpy()
        waits_s.append(float(waited))

    for _ in range(_WARM_UP):
        step()
    waits_s.clear()
    step_s = _time_mean(step, seconds)
    return step_s, float(np.mean(waits_s))


def _time_larger_step(learner, slices, seconds: float) -> float | None:
    ready = _repeat_batches(learner.strategy, slices, learner.config, _LARGER)
    try:
        return _time_steps(learner, iter(ready), seconds)[0]
    except tf.errors.ResourceExhaustedError:
        return None


def _time_batches(dataset, seconds: float) -> float:
    """Seconds per element of a tf.data.Dataset."""
    iterator = iter(dataset.prefetch(tf.data.AUTOTUNE))
    for _ in range(_WARM_UP):
        next(iterator)
    return _time_mean(lambda: next(iterator), seconds)


def _read_serialized(source):
    """Serialized training slices in the order of the shards."""
    paths = [files.join(source.folder, shard.file) for shard in source.train]
    return tf.data.TFRecordDataset(paths, buffer_size=1 << 20).repeat()


def _time_augmentation(config, slices, batch: int, seconds: float) -> float:
    values = next(iter(slices.batch(batch)))
    batch = (values[records.IMAGE], values[records.LABELS], values[data.INDEX])

    @tf.function
    def run(seed):
        images, labels = augment.augment(*batch, seed, config.augment)
        # Sums, so that no time is spent on copying the result to the host.
        return [tf.reduce_sum(tf.cast(values, tf.float32)) for values in (images, labels)]

    seeds = itertools.count()

    def call():
        run(tf.constant([0, next(seeds)], tf.int32))[1].numpy()

    call()
    return _time_mean(call, seconds)


def _time_mean(call, seconds: float) -> float:
    start, count = time.perf_counter(), 0
    while count < 3 or time.perf_counter() - start < seconds:
        call()
        count += 1
    return (time.perf_counter() - start) / count
