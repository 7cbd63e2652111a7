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


def measure(config, source: sources.Source, strategy, seconds: float) -> Times:
    """Times each part for about `seconds` / 6, after it was run a few times untimed.

    Works on a network of its own and writes nothing.
    """
    each = seconds / 6
    batch = config.batch_size * strategy.num_replicas_in_sync
    learner = Learner(config, source, strategy, total_steps=10**6)
    slices = data.training(source, config, batch)
    run, ready = _spread(strategy, slices, config.batch_size), _ready(strategy, slices, config)
    waited_of = []
    step_s = _steps(learner, iter(ready), each)
    before, first = memory.page_faults(), learner.step
    iterator = iter(run)
    whole_s = _steps(learner, iterator, each, waited_of)
    audit = placement.audit(learner.trace_training(iterator))
    faults = (memory.page_faults() - before) / (learner.step - first)
    held_out = _spread(strategy, data.evaluation(source, batch), config.batch_size)
    start = time.perf_counter()
    validate.validate(learner, source, held_out)
    validation_s = time.perf_counter() - start
    return Times(
        batch=batch,
        read_s=_batches(_bytes(source).batch(batch), each),
        input_s=_batches(data.per_replica(slices, batch), each),
        augment_s=_augmenting(config, slices, batch, each),
        step_s=step_s,
        whole_s=whole_s,
        waiting=float(np.mean(waited_of)) / whole_s,
        larger=_LARGER,
        larger_s=_larger_step(learner, slices, each),
        validation_s=validation_s,
        faults_per_step=faults,
        memory_gb=journal.memory_gb(),
        launches=audit.launches.total(),
        off_device=tuple(map(str, (*audit.without_kernel, *audit.in_host_memory))),
    )


def _spread(strategy, slices, batch: int):
    return strategy.distribute_datasets_from_function(lambda _: data.per_replica(slices, batch))


def _ready(strategy, slices, config, times: int = 1):
    """One batch for each device, again and again."""
    count = strategy.num_replicas_in_sync
    lying = slices.batch(config.batch_size * times, drop_remainder=True).take(count).cache()
    return strategy.distribute_datasets_from_function(lambda _: lying.repeat())


def _steps(learner, iterator, seconds: float, waited_of: list | None = None) -> float:
    """Seconds per step, of calls of one step; appends each one's wait to `waited_of`."""

    def step():
        losses, waited = learner.train(iterator, tf.constant(1))
        losses.numpy()
        if waited_of is not None:
            waited_of.append(float(waited))

    for _ in range(_WARM_UP):
        step()
    if waited_of:
        waited_of.clear()
    return _mean_s(step, seconds)


def _larger_step(learner, slices, seconds: float) -> float | None:
    ready = _ready(learner.strategy, slices, learner.config, _LARGER)
    try:
        return _steps(learner, iter(ready), seconds)
    except tf.errors.ResourceExhaustedError:
        return None


def _batches(dataset, seconds: float) -> float:
    """Seconds per element of a dataset that is read as fast as it can be."""
    iterator = iter(dataset.prefetch(tf.data.AUTOTUNE))
    for _ in range(_WARM_UP):
        next(iterator)
    return _mean_s(lambda: next(iterator), seconds)


def _bytes(source):
    """Serialized training slices in the shards' order, nothing done to them."""
    paths = [files.join(source.folder, shard.file) for shard in source.train]
    return tf.data.TFRecordDataset(paths, buffer_size=1 << 20).repeat()


def _augmenting(config, slices, batch: int, seconds: float) -> float:
    values = next(iter(slices.batch(batch)))
    place = (values[records.IMAGE], values[records.LABELS], values[data.INDEX])

    @tf.function
    def run(seed):
        image, labels = augment.augment(*place, seed, config.augment)
        return [tf.reduce_sum(tf.cast(values, tf.float32)) for values in (image, labels)]

    seeds = itertools.count()

    def call():
        run(tf.constant([0, next(seeds)], tf.int32))[1].numpy()

    call()
    return _mean_s(call, seconds)


def _mean_s(call, seconds: float) -> float:
    start, count = time.perf_counter(), 0
    while count < 3 or time.perf_counter() - start < seconds:
        call()
        count += 1
    return (time.perf_counter() - start) / count
