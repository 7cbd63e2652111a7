"""`trainer.dataset` gives the trainer's own slices, in its order, with its augmentation."""

import numpy as np
import pytest
import slices
import tensorflow as tf
from test_mirrored_training import COLUMNS, SIDED

import trainer
from segthor import records
from segthor.errors import InputError
from segthor.organs import SEGTHOR
from trainer import augment, data, sources
from trainer.config import Config
from trainer.exchange import exchange_sides

BATCH = 4
STRENGTHS = trainer.Strengths(flip_left_right=0.5)
CHANNEL = np.array([0, 3, 1, 2, 4], np.uint8)  # SIDED's labels as places in its table, by hand


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    slices.make(folder, contoured={"Patient_01": ("heart",)})
    return folder


@pytest.fixture(scope="module")
def sided(tmp_path_factory):
    """Its organs have sides, and its label values are not their places in the table."""
    folder = tmp_path_factory.mktemp("sided")
    slices.make(folder, table=SIDED, contoured={"Patient_01": ("lung_left", "liver")})
    return folder


def taken(batches, count=-1):
    return list(batches.take(count).as_numpy_iterator())


def trainers_own(folder, count, batch=BATCH, first_step=0, **choices):
    """What a training step gets: dictionaries of a batch each."""
    source = sources.open_source(str(folder), None)
    config = Config(batch_size=batch, **choices).of_table(source.organs)
    chain = data.per_replica(data.training(source, config, batch, first_step), batch)
    return taken(chain, count)


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("first_step", [0, 7])
def test_slices_and_their_order_are_the_trainers(folder, first_step):
    found = taken(trainer.dataset(folder, batch=BATCH, seed=3, first_step=first_step), 9)
    own = trainers_own(folder, 9, seed=3, first_step=first_step)
    for batch, other in zip(found, own, strict=True):
        same(batch, [other[key] for key in (records.IMAGE, records.LABELS, records.CONTOURED)])
        assert [part.dtype for part in batch] == [np.uint8, np.uint8, np.float32]
    assert {tuple(row) for batch in found for row in batch[2]} == {(1, 1, 1, 1), (0, 1, 0, 0)}


def test_augmentation_is_that_of_the_training_step(sided):
    found = taken(trainer.dataset(sided, batch=BATCH, augment=STRENGTHS, seed=5), 6)
    for step, (batch, other) in enumerate(zip(found, trainers_own(sided, 6, seed=5), strict=True)):
        drawn = other[data.INDEX], tf.constant([5, step]), STRENGTHS
        images, labels = augment.augment(
            tf.constant(other[records.IMAGE]), other[records.LABELS], *drawn
        )
        labels, contoured = exchange_sides(labels, other[records.CONTOURED], *drawn, SIDED)
        np.testing.assert_allclose(batch[0], images, atol=2e-3)
        same(batch[1:], (CHANNEL[labels.numpy()], contoured))


def test_the_layer_does_on_the_device_what_the_dataset_does(sided):
    layer = trainer.Augmentation(sided, STRENGTHS, seed=5)
    plain = trainer.dataset(sided, batch=BATCH, seed=5)
    expected = taken(trainer.dataset(sided, batch=BATCH, augment=STRENGTHS, seed=5), 4)
    run = tf.function(lambda batch: layer(batch, training=True))
    for batch, other in zip(plain.take(4), expected, strict=True):
        found = run(batch)
        np.testing.assert_allclose(found[0], other[0], atol=2e-3)
        same(found[1:], other[1:])
    batch = next(iter(plain))
    same(layer(batch), batch)
    with pytest.raises(InputError, match="lung_left without its mirror image lung_right"):
        trainer.Augmentation(sided, STRENGTHS, organs=("lung_left",))


def test_hosts_share_the_batch_that_one_host_has(folder):
    whole = taken(trainer.dataset(folder, batch=BATCH, augment=STRENGTHS), 5)
    half = BATCH // 2
    parts = [
        taken(trainer.dataset(folder, batch=half, augment=STRENGTHS, host=(number, 2)), 5)
        for number in range(2)
    ]
    for step, batch in enumerate(whole):
        shared = [np.concatenate(part) for part in zip(*(p[step] for p in parts), strict=True)]
        np.testing.assert_allclose(shared[0], batch[0], atol=2e-3)
        same(shared[1:], batch[1:])


@pytest.mark.parametrize("hosts", [1, 3])
def test_the_validation_split_is_each_slice_once(folder, hosts):
    source = sources.open_source(str(folder), None)
    rows = [
        images.tobytes()
        for number in range(hosts)
        for batch in taken(trainer.dataset(folder, "validation", 5, host=(number, hosts)))
        for images in batch[0]
    ]
    stored = [
        record.image.tobytes()
        for shard in source.validation
        for record in records.slices(f"{folder}/{shard.file}")
    ]
    assert sorted(rows) == sorted(stored)
    assert rows == stored or hosts > 1


def test_some_organs_are_numbered_in_the_order_that_was_asked_for(folder):
    names = ("aorta", "heart")
    for (_, labels, contoured), own in zip(
        taken(trainer.dataset(folder, batch=BATCH, organs=names), 6),
        trainers_own(folder, 6),
        strict=True,
    ):
        table = np.zeros(256, np.uint8)
        table[SEGTHOR.labels(names)] = 1, 2
        np.testing.assert_array_equal(labels, table[own[records.LABELS]])
        np.testing.assert_array_equal(contoured, own[records.CONTOURED][:, [3, 1]])


def test_pixels_that_are_not_annotated_stay_255(tmp_path):
    slices.make(tmp_path, unannotated=5)
    for organs in ((), ("trachea",)):
        found = taken(trainer.dataset(tmp_path, batch=BATCH, organs=organs), 3)
        own = trainers_own(tmp_path, 3)
        for (_, labels, _), other in zip(found, own, strict=True):
            np.testing.assert_array_equal(labels == 255, other[records.LABELS] == 255)
            assert set(np.unique(labels)) <= {0, 1, 2, 3, 4, 255} and (labels == 255).any()


def test_an_epoch_is_as_long_as_the_trainers(folder):
    source = sources.open_source(str(folder), None)
    for batch, hosts in ((4, 1), (4, 2), (3, 1)):
        expected = source.train_slices // (batch * hosts)
        assert trainer.steps_per_epoch(folder, batch, hosts=hosts) == expected


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"folder": "nowhere"}, "nowhere: expected a dataset"),
        ({"split": "test"}, "split: expected train or validation, found test"),
        ({"batch": 4000}, "expected at most the"),
        ({"batch": 0}, "batch_size: expected 1 to"),
        ({"organs": ("spleen",)}, "expected some of esophagus"),
        ({"fold": 9}, "fold: expected 0 to 2"),
        ({"host": (2, 2)}, "host: expected a number below"),
        ({"split": "validation", "first_step": 1}, "first_step: expected 0"),
    ],
)
def test_what_a_dataset_does_not_allow_is_one_line(folder, choices, words):
    with pytest.raises(InputError, match=words):
        trainer.dataset(**{"folder": folder} | choices)


def test_columns_of_sided_organs_are_exchanged_with_their_labels(sided):
    mirror = trainer.Strengths(**dict.fromkeys(vars(STRENGTHS), 0.0) | {"flip_left_right": 1.0})
    plain = taken(trainer.dataset(sided, batch=BATCH), 3)
    for one, other in zip(
        plain, taken(trainer.dataset(sided, batch=BATCH, augment=mirror), 3), strict=True
    ):
        np.testing.assert_array_equal(other[2], one[2][:, COLUMNS])
