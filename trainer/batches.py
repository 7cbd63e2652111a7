"""Batches for a network and a `fit` of one's own, from the trainer's own input; see docs/python.md.

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
    """A tf.data.Dataset of (images, labels, contoured), which Keras takes as x, y, sample_weight.

    images: [N, H, W, C], 0 to 255; uint8 as stored, or float32 where they are augmented.
    labels: uint8 [N, H, W]: 0 is background, k is the k-th of `organs`, and 255 is a pixel that is
      not annotated, where the dataset has such pixels.
    contoured: float32 [N, K]: 1 where organ k was contoured in the slice's patient, else 0. Where
      it is 0, nothing is known about the organ; its pixels are labelled background.

    The training split has no end (`steps_per_epoch` is the length of an epoch) and its order is
    decided by `seed`, `batch` and the number of hosts. The validation split gives each slice once.

    Args:
      folder: The folder of a dataset.
      split: 'train' or 'validation'.
      batch: Slices of a batch on this host.
      augment: How strongly to augment, on the host's processor; None: not at all. `Augmentation`
        does the same on the device.
      seed: Decides the order of the slices and the augmentation.
      organs: The organs to learn, in the order of the labels; all of the dataset's if empty.
      fold: The fold that is the validation split; -1: the split as built.
      host: Number of this host, and of all hosts. Together the hosts get the batches of one host
        with a batch as large as theirs together.
      first_step: How many batches of each host to leave out, to continue a training.

    Raises:
      InputError: no dataset there, or a choice that it does not allow.
    """
    require(split in (TRAIN, VALIDATION), "split", f"{TRAIN} or {VALIDATION}", split)
    require(0 <= host[0] < host[1], "host", "a number below the number of hosts", host)
    source, config = open_input(folder, batch, augment, seed, organs, fold)
    if split == TRAIN:
        sources.steps_per_epoch(source, batch * host[1])
        slices = data.training(source, config, batch * host[1], first_step, host)
    else:
        require(not first_step, "first_step", "0 for the validation split", first_step)
        total = source.count(source.validation)
        slices = data.evaluation(source, batch * host[1], host)
        slices = slices.filter(lambda row: row[data.INDEX] < total)  # the others are padding
    batches = slices.batch(batch, drop_remainder=split == TRAIN).enumerate(first_step)
    finish = _finish(source, config)
    return batches.map(finish, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def steps_per_epoch(folder, batch: int = 16, fold: int = -1, hosts: int = 1) -> int:
    """Batches in which each host sees the training slices once; see `dataset`."""
    source = sources.open_source(os.fspath(folder), fold if fold >= 0 else None)
    return sources.steps_per_epoch(source, batch * hosts)


def open_input(folder, batch: int, augment, seed: int, organs, fold: int):
    """The dataset, and the choices of `trainer.main` that stand for those of `dataset`."""
    choices = {"batch_size": batch, "seed": seed, "organs": tuple(organs), "fold": fold}
    config = Config(augment=augment or Strengths.none(), **choices)
    source = sources.open_source(os.fspath(folder), config.held_out_fold)
    return source, config.of_table(source.organs)


def _finish(source: sources.Source, config: Config):
    """A function of step and batch, as `data.training` gives it, to what `dataset` yields."""
    classes = _classes(source, config.organs)
    columns = source.organs.places(config.organs)
    all_columns = columns == list(range(len(source.organs)))

    def finish(step, batch):
        images, labels, contoured = (batch[part] for part in _PARTS)
        if config.augment != Strengths.none():
            seed = tf.stack([config.seed, tf.cast(step, tf.int32)])
            drawn = batch[data.INDEX], seed, config.augment
            images, labels = augmentation.augment(images, labels, *drawn)
            labels, contoured = exchange_sides(labels, contoured, *drawn, source.organs)
        if classes is not None:
            labels = tf.gather(classes, tf.cast(labels, tf.int32))
        if not all_columns:
            contoured = tf.gather(contoured, columns, axis=1)
        return images, labels, tf.cast(contoured, tf.float32)

    return finish


def _classes(source: sources.Source, names) -> np.ndarray | None:
    """uint8 [256], the dataset's label values to those of `dataset`; None where they are equal."""
    classes = np.zeros(MOST_LABEL + 1, np.uint8)
    classes[source.organs.labels(names)] = range(1, len(names) + 1)
    if source.dataset.has_ignored:
        classes[ignored.LABEL] = ignored.LABEL
    known = source.dataset.known_labels
    return None if (classes[known] == known).all() else classes
