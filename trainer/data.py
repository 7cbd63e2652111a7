"""The input: from the dataset's shards to batches, in an order that (seed, epoch) decides.

What a replica gets depends on the global batch alone: row r of global batch s is the same slice
whether one device, eight, or several processes share the batch.
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
_DEVICE = (records.IMAGE, records.LABELS, records.CONTOURED)  # no text: it cannot go to a GPU
# Many shards are read in turn: of larger pieces, much has left the processor's cache by the time
# it is used (8 MiB give 0.87 of the speed). Remote file systems read ahead by themselves.
_READ_BYTES = 1 << 20


def training(source: Source, config, global_batch: int, first_step: int = 0, worker=(0, 1)):
    """The endless training input of one worker process, from `first_step` on.

    worker: (number, count) of the process; it gets its rows of every global batch, in order, which
    `per_replica` then cuts up. Yields image, labels and contoured as `records.parse` gives them,
    one slice each, and INDEX, int32 [], the slice's row in its global batch.
    """
    number, count = worker
    rows = global_batch // count

    def prepare(row, serialized):
        return _parse(source, serialized, _DEVICE) | {INDEX: tf.cast(row % global_batch, tf.int32)}

    slices = _ordered(source, config, global_batch, first_step).enumerate()
    if count > 1:
        slices = slices.filter(lambda row, _: row % global_batch // rows == number)
    return slices.map(prepare, tf.data.AUTOTUNE)


def per_replica(slices, batch: int):
    """Batches of one replica; a worker's replicas take them in turn."""
    return slices.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def evaluation(source: Source, global_batch: int, worker=(0, 1)):
    """Every validation slice once, in shard order, then padding up to whole global batches.

    Yields what `training` does and z, INDEX, int32 [], being the slice's place in the split
    (padding: beyond its end) and OWNER, int32 [], its patient's place in `source.patients`.
    """
    total = source.count(source.validation)
    number, count = worker
    rows = global_batch // count
    paths = tf.data.Dataset.from_tensor_slices(_paths(source, source.validation)).map(_checked)
    slices = tf.data.TFRecordDataset(paths, buffer_size=_READ_BYTES)
    patients = tf.constant(source.patients)

    def prepare(row, serialized):
        values = _parse(source, serialized, (*_DEVICE, records.Z, records.PATIENT))
        owner = tf.argmax(patients == values.pop(records.PATIENT), output_type=tf.int32)
        return values | {INDEX: tf.cast(row, tf.int32), OWNER: owner}

    return (
        slices.concatenate(slices.take(1).repeat(-total % global_batch))
        .enumerate()
        .filter(lambda row, _: row % global_batch // rows == number)
        .map(prepare, tf.data.AUTOTUNE)
    )


def patients_at(source: Source, config, global_batch: int, step: int) -> list[str]:
    """The patients in the global batch of a step, for messages."""
    names = _ordered(source, config, global_batch, step).take(global_batch)
    names = names.map(lambda serialized: _parse(source, serialized, (records.PATIENT,)))
    return sorted({row[records.PATIENT].decode() for row in names.as_numpy_iterator()})


def _ordered(source: Source, config, global_batch: int, first_step: int):
    """Serialized training slices, epoch after epoch of whole global batches, from a step on."""
    per_epoch = steps_per_epoch(source, global_batch)
    epoch, done = divmod(first_step, per_epoch)
    repeats = _repeats(source, config) if config.oversample else None
    return (
        tf.data.Dataset.range(epoch, np.iinfo(np.int64).max)
        .flat_map(
            lambda number: _epoch(source, config, repeats, number).take(per_epoch * global_batch)
        )
        .skip(done * global_batch)
    )


def _epoch(source: Source, config, repeats, epoch):
    """Serialized training slices in the order of (seed, epoch).

    A shard holds few patients and a batch should not: the shards' order is drawn anew, many are
    read in turn, and what they give is mixed. No slice is copied on the way.
    """
    paths = tf.constant(_paths(source, source.train))
    keys = tf.random.split(tf.stack([tf.cast(config.seed, tf.int64), epoch]), 3)
    order = tf.random.experimental.stateless_shuffle(paths, keys[0])
    # `shuffle` mixes its seed with that of its graph, here this very function, which would
    # otherwise be the process's own.
    tf.compat.v1.set_random_seed(1)
    slices = (
        tf.data.Dataset.range(len(source.train))
        .map(lambda place: _checked(order[place]))
        .interleave(
            lambda path: tf.data.TFRecordDataset(path, buffer_size=_READ_BYTES),
            cycle_length=16,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
    )
    if source.chosen is not None:
        slices = slices.filter(_is_of(source.chosen))
    if repeats is not None:
        slices = slices.enumerate().flat_map(
            _repeat_rare(source.organs, config.organs, repeats, keys[1])
        )
    seed = tf.cast(keys[2][0], tf.int64)
    return slices.shuffle(config.shuffle_buffer, seed, reshuffle_each_iteration=False)


def _is_of(patients: tuple[str, ...]):
    """Whether a serialized slice is of one of these patients."""
    names, feature = tf.constant(patients), {records.PATIENT: tf.io.FixedLenFeature([], tf.string)}

    def belongs(serialized):
        found = tf.io.parse_single_example(serialized, feature)[records.PATIENT]
        return tf.reduce_any(names == found)

    return belongs


def _repeats(source: Source, config) -> np.ndarray:
    """float [K]: how often a slice that holds each organ is drawn.

    Repeat factor sampling, Gupta et al., CVPR 2019.
    """
    counts = source.dataset.statistics.get("slices", {})
    if not counts.get("all"):
        manifest = files.join(source.folder, FILE_NAME)
        raise InputError(f"{manifest}: no counts of slices, which --oversample needs; build again")
    share = np.array([counts.get(name, 0) for name in config.organs]) / counts["all"]
    return np.maximum(1.0, np.sqrt(config.oversample / np.maximum(share, 1e-6)))


def _repeat_rare(organs: Organs, names, repeats: np.ndarray, key):
    """(place, slice) to the slice, several times where it has rare organs.

    A fraction of `repeats` is a chance, drawn for each slice. An epoch stays as long as it is, so
    that other slices give way.
    """
    feature = {records.PRESENT: tf.io.FixedLenFeature([len(organs)], tf.int64)}
    places = organs.places(names)

    def repeat(place, serialized):
        present = tf.io.parse_single_example(serialized, feature)[records.PRESENT]
        chosen = tf.cast(tf.gather(present, places), tf.float32)
        wanted = tf.reduce_max(chosen * np.float32(repeats - 1)) + 1
        chance = tf.random.stateless_uniform([], tf.random.fold_in(key, place))
        return tf.data.Dataset.from_tensors(serialized).repeat(tf.cast(wanted + chance, tf.int64))

    return repeat


def _checked(path):
    """The path of a shard, string [], once the lengths that the shard states have been checked.

    TensorFlow believes them, and a length that no memory holds ends the whole process.
    """
    path = tf.numpy_function(_check_lengths, [path], tf.string)
    path.set_shape([])
    return path


@functools.lru_cache(None)  # once in a process, not in every epoch
def _check_lengths(path: bytes) -> bytes:
    if not files.is_url(path.decode()):  # over a network each of the many small reads is slow
        records.check_lengths(path.decode())
    return path


def _parse(source: Source, serialized, keys):
    values = records.parse(serialized, source.size_px, source.context, len(source.organs))
    return {key: values[key] for key in keys}


def _paths(source: Source, shards) -> list[str]:
    return [files.join(source.folder, shard.file) for shard in shards]
