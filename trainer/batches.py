"""Batches of the trainer's input for other networks and training loops; see docs/python.md.

The slices, their order and their augmentation are those of `trainer.main` with the same seed.
"""

import os

import numpy as np
import tensorflow as tf

from segthor import ignored, records
from segthor.manifest import TRAIN, VALIDATION
from segthor.options import require
from segthor.organs import MOST_LABEL
from trainer import augment as augmentation
from trainer import data, sources
from trainer.config import Config
from trainer.exchange import exchange_sides
from trainer.strengths import Strengths

_PARTS = (records.IMAGE, records.LABELS, records.CONTOURED)


def dataset(
    folder,
    split: str = TRAIN,
    batch: int = 16,
    augment: Strengths | None = None,
    seed: int = 0,
    organs: tuple[str, ...] = (),
    fold: int = -1,
    host: tuple[int, int] = (0, 1),
    first_step: int = 0,
):
    """Makes a tf.data.Dataset of (images, labels, contoured): Keras' x, y and sample_weight.

    images: [N, H, W, C], 0 to 255; uint8 as stored, or float32 if augmented.
    labels: uint8 [N, H, W]: 0 is background, k is the k-th of `organs`, 255 a pixel that is not
      annotated, if the dataset has such pixels.
    contoured: float32 [N, K]: 1 if organ k was contoured in the slice's patient, else 0. If it is
      0, nothing is known about the organ; its pixels are labelled background.

    The training split is endless (`steps_per_epoch` is the length of an epoch); its order depends
    on `seed`, `batch` and the number of hosts. The validation split yields each slice once.

    Args:
      folder: The folder of a dataset.
      split: 'train' or 'validation'.
      batch: Slices of a batch on this host.
      augment: Strengths of the augmentation on the CPU; None: no augmentation. `Augmentation` does
        the same on the device.
      seed: Seed of the order of the slices and of the augmentation.
      organs: Organs to learn, in the order of the labels; empty: all organs of the dataset.
      fold: Fold to validate on; -1: the split as built.
      host: Index of this host and number of hosts, which share a global batch.
      first_step: Number of batches of each host to skip, to resume a training.

    Raises:
      InputError: There is no dataset, or it does not allow these arguments.
    """
    require(split in (TRAIN, VALIDATION), "split", f"{TRAIN} or {VALIDATION}", split)
    require(0 <= host[0] < host[1], "host", "a number below the number of hosts", host)
    source, config = open_input(folder, batch, augment, seed, organs, fold)
    if split == TRAIN:
        sources.steps_per_epoch(source, batch * host[1])
        slices = data.training(source, config, batch * host[1], first_step, host)
    else:
        require(not first_step, "first_step", "0 for the validation split", first_step)
        sources.require_validation(source, "split")
        total = source.count(source.validation)
        slices = data.evaluation(source, batch * host[1], host)
        slices = slices.filter(lambda row: row[data.INDEX] < total)  # without padding
    batches = slices.batch(batch, drop_remainder=split == TRAIN).enumerate(first_step)
    finish = _finish(source, config)
    return batches.map(finish, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def steps_per_epoch(folder, batch: int = 16, fold: int = -1, hosts: int = 1) -> int:
    """Number of batches of an epoch on each host; see `dataset`."""
    source = sources.open_source(os.fspath(folder), fold if fold >= 0 else None)
    return sources.steps_per_epoch(source, batch * hosts)


def open_input(folder, batch: int, augment, seed: int, organs, fold: int):
    """Opens the dataset; returns its `Source` and the `Config` for these arguments."""
    choices = {"batch_size": batch, "seed": seed, "organs": tuple(organs), "fold": fold}
    config = Config(augment=augment or Strengths.none(), **choices)
    source = sources.open_source(os.fspath(folder), config.held_out_fold)
    return source, config.of_table(source.organs)


def _finish(source: sources.Source, config: Config):
    """Makes a function from step and batch of `data.training` to what `dataset` yields."""
    classes = _classes(source, config.organs)
    columns = source.organs.places(config.organs)

    def finish(step, batch):
        images, labels, contoured = (batch[part] for part in _PARTS)
        if config.augment != Strengths.none():
            seed = tf.stack([config.seed, tf.cast(step, tf.int32)])
            draw = batch[data.INDEX], seed, config.augment
            images, labels = augmentation.augment(images, labels, *draw)
            labels, contoured = exchange_sides(labels, contoured, *draw, source.organs)
        if classes is not None:
            labels = tf.gather(classes, tf.cast(labels, tf.int32))
        contoured = tf.gather(contoured, columns, axis=1)
        return images, labels, tf.cast(contoured, tf.float32)

    return finish


def _classes(source: sources.Source, names) -> np.ndarray | None:
    """Maps label values to those of `dataset`, uint8 [256]; None if all are equal."""
    classes = np.zeros(MOST_LABEL + 1, np.uint8)
    classes[source.organs.labels(names)] = range(1, len(names) + 1)
    if source.dataset.has_ignored:
        classes[ignored.LABEL] = ignored.LABEL
    known = source.dataset.known_labels
    return None if (classes[known] == known).all() else classes
