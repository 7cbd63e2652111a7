"""The input pipeline: from the dataset's shards to batches, in the order of (seed, epoch).

Row r of global batch s is the same slice for any number of devices and processes that share it.
"""

import functools

import numpy as np
import tensorflow as tf

from segthor import files, records
from segthor.errors import InputError
from segthor.manifest import FILE_NAME
from segthor.organs import Organs
from trainer.sources import Source, steps_per_epoch

INDEX, OWNER = "index", "owner"
_DEVICE_KEYS = (records.IMAGE, records.LABELS, records.CONTOURED)  # a GPU takes no strings
# Many shards are read in turn. Of larger buffers, much has left the processor's cache before it is
# used: 8 MiB reach 0.87 of the speed. Remote file systems read ahead themselves.
_READ_BYTES = 1 << 20


def training(source: Source, config, global_batch: int, first_step: int = 0, worker=(0, 1)):
    """Makes the endless training input of one process, a tf.data.Dataset of single slices.

    Yields image, labels and contoured as `records.parse` does, and INDEX, int32 [], the row of the
    slice in its global batch.

    first_step: Step to start from.
    worker: Index of the process and number of processes; a process gets its rows of every global
      batch, in order, for `per_replica` to batch.
    """
    number, count = worker
    rows = global_batch // count

    def prepare(row, serialized):
        values = _parse(source, serialized, _DEVICE_KEYS)
        return values | {INDEX: tf.cast(row % global_batch, tf.int32)}

    slices = _ordered_slices(source, config, global_batch, first_step).enumerate()
    if count > 1:
        slices = slices.filter(lambda row, _: row % global_batch // rows == number)
    return slices.map(prepare, tf.data.AUTOTUNE)


def per_replica(slices, batch: int):
    """Batches the slices of a process; its replicas take the batches in turn."""
    return slices.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def evaluation(source: Source, global_batch: int, worker=(0, 1)):
    """Makes the validation input: every slice once, in shard order, padded to whole batches.

    Yields what `training` yields, and z; INDEX, int32 [], is the index of the slice in the split
    (padding: beyond its end) and OWNER, int32 [], that of its patient in `source.patients`.
    """
    total = source.count(source.validation)
    number, count = worker
    rows = global_batch // count
    paths = tf.data.Dataset.from_tensor_slices(_paths(source, source.validation)).map(_check_path)
    slices = tf.data.TFRecordDataset(paths, buffer_size=_READ_BYTES)
    patients = tf.constant(source.patients)

    def prepare(row, serialized):
        values = _parse(source, serialized, (*_DEVICE_KEYS, records.Z, records.PATIENT))
        owner = tf.argmax(patients == values.pop(records.PATIENT), output_type=tf.int32)
        return values | {INDEX: tf.cast(row, tf.int32), OWNER: owner}

    return (
        slices.concatenate(slices.take(1).repeat(-total % global_batch))
        .enumerate()
        .filter(lambda row, _: row % global_batch // rows == number)
        .map(prepare, tf.data.AUTOTUNE)
    )


def patients_at(source: Source, config, global_batch: int, step: int) -> list[str]:
    """Names of the patients in the global batch of a step, sorted; for messages."""
    names = _ordered_slices(source, config, global_batch, step).take(global_batch)
    names = names.map(lambda serialized: _parse(source, serialized, (records.PATIENT,)))
    return sorted({row[records.PATIENT].decode() for row in names.as_numpy_iterator()})


def _ordered_slices(source: Source, config, global_batch: int, first_step: int):
    """Serialized training slices from a step on; every epoch has whole global batches only."""
    per_epoch = steps_per_epoch(source, global_batch)
    epoch, done = divmod(first_step, per_epoch)
    repeats = _repeat_factors(source, config) if config.oversample else None
    return (
        tf.data.Dataset.range(epoch, np.iinfo(np.int64).max)
        .flat_map(
            lambda number: _epoch_slices(source, config, repeats, number).take(
                per_epoch * global_batch
            )
        )
        .skip(done * global_batch)
    )


def _epoch_slices(source: Source, config, repeats, epoch):
    """Serialized training slices in the order of (seed, epoch)."""
    # A shard holds few patients, a batch should hold many: the order of the shards is shuffled, 16
    # are read in turn, and a buffer shuffles their slices.
    paths = tf.constant(_paths(source, source.train))
    keys = tf.random.split(tf.stack([tf.cast(config.seed, tf.int64), epoch]), 3)
    order = tf.random.experimental.stateless_shuffle(paths, keys[0])
    # `Dataset.shuffle` combines its seed with that of its graph (here this function), which by
    # default differs from process to process.
    tf.compat.v1.set_random_seed(1)
    slices = (
        tf.data.Dataset.range(len(source.train))
        .map(lambda index: _check_path(order[index]))
        .interleave(
            lambda path: tf.data.TFRecordDataset(path, buffer_size=_READ_BYTES),
            cycle_length=16,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
    )
    if source.chosen is not None:
        slices = slices.filter(_make_patient_filter(source.chosen))
    if repeats is not None:
        slices = slices.enumerate().flat_map(
            _make_repeater(source.organs, config.organs, repeats, keys[1])
        )
    seed = tf.cast(keys[2][0], tf.int64)
    return slices.shuffle(config.shuffle_buffer, seed, reshuffle_each_iteration=False)


def _make_patient_filter(patients: tuple[str, ...]):
    """Makes a predicate of serialized slices: whether the slice is of one of these patients."""
    names, feature = tf.constant(patients), {records.PATIENT: tf.io.FixedLenFeature([], tf.string)}

    def is_chosen(serialized):
        name = tf.io.parse_single_example(serialized, feature)[records.PATIENT]
        return tf.reduce_any(names == name)

    return is_chosen


def _repeat_factors(source: Source, config) -> np.ndarray:
    """Computes how often a slice with each organ is drawn, float [K].

    Repeat factor sampling, Gupta et al., LVIS, CVPR 2019.
    """
    counts = source.dataset.statistics.slices
    if not counts.get("all"):
        manifest = files.join(source.folder, FILE_NAME)
        raise InputError(
            f"{manifest}: --oversample needs counts of slices, found none; build the dataset again"
        )
    share = np.array([counts.get(name, 0) for name in config.organs]) / counts["all"]
    return np.maximum(1.0, np.sqrt(config.oversample / np.maximum(share, 1e-6)))


def _make_repeater(organs: Organs, names, repeats: np.ndarray, key):
    """Makes a function from (index, slice) to a dataset of the slice, repeated for rare organs.

    The number of repetitions is rounded at random to one of its two neighbours.
    """
    feature = {records.PRESENT: tf.io.FixedLenFeature([len(organs)], tf.int64)}
    columns = organs.places(names)

    def repeat(index, serialized):
        present = tf.io.parse_single_example(serialized, feature)[records.PRESENT]
        present = tf.cast(tf.gather(present, columns), tf.float32)
        times = tf.reduce_max(present * np.float32(repeats - 1)) + 1
        rounding = tf.random.stateless_uniform([], tf.random.fold_in(key, index))
        return tf.data.Dataset.from_tensors(serialized).repeat(tf.cast(times + rounding, tf.int64))

    return repeat


def _check_path(path):
    """Checks the record lengths that a shard states; returns its path, string [].

    TensorFlow trusts them: a damaged length that exceeds the memory aborts the process.
    """
    path = tf.numpy_function(_check_lengths, [path], tf.string)
    path.set_shape([])
    return path


@functools.lru_cache(None)  # once per process, not in every epoch
def _check_lengths(path: bytes) -> bytes:
    if not files.is_url(path.decode()):  # many small reads are slow over a network
        records.check_lengths(path.decode())
    return path


def _parse(source: Source, serialized, keys):
    values = records.parse(serialized, source.size_px, source.context, len(source.organs))
    return {key: values[key] for key in keys}


def _paths(source: Source, shards) -> list[str]:
    return [files.join(source.folder, shard.file) for shard in shards]
