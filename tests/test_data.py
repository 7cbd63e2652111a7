"""The input chain: what each step gets is decided by (seed, epoch) alone, and nothing is lost."""

import dataclasses
import re
from collections import Counter

import numpy as np
import pytest
import slices
import tensorflow as tf

from segthor import records
from segthor.errors import InputError
from segthor.manifest import Dataset, Statistics
from trainer import data, sources
from trainer.config import Config

BATCH = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    slices.make(folder)
    return str(folder)


@pytest.fixture(scope="module")
def source(folder):
    return sources.open_source(folder, None)


def config(**changes):
    return Config(**{"shuffle_buffer": 8, "organs": slices.NAMES, **changes})


def fingerprint(row):
    return hash(row[records.IMAGE].tobytes() + row[records.LABELS].tobytes())


def drawn(source, count, config=config(), batch=BATCH, first_step=0, worker=(0, 1)):  # noqa: B008
    chain = data.training(source, config, batch, first_step, worker).take(count)
    return [(int(row[data.INDEX]), fingerprint(row)) for row in chain.as_numpy_iterator()]


def stored(source, shards):
    found = []
    for shard in shards:
        with open(f"{source.folder}/{shard.file}", "rb") as stream:
            for payload in records.read_frames(stream, shard.file):
                one = records.decode(payload)
                found.append(hash(one.image.tobytes() + one.labels.tobytes()))
    return found


def test_an_epoch_holds_each_training_slice_once_up_to_whole_batches(source):
    per_epoch = sources.steps_per_epoch(source, BATCH) * BATCH
    everything = Counter(stored(source, source.train))
    assert sum(everything.values()) - BATCH < per_epoch <= sum(everything.values())
    rows = drawn(source, 3 * per_epoch)
    for epoch in range(3):
        seen = Counter(value for _, value in rows[epoch * per_epoch : (epoch + 1) * per_epoch])
        assert seen <= everything and sum(seen.values()) == per_epoch
    assert [index for index, _ in rows] == list(range(BATCH)) * (len(rows) // BATCH)


def test_each_epoch_and_each_seed_has_its_own_order(source):
    per_epoch = sources.steps_per_epoch(source, BATCH) * BATCH
    rows = drawn(source, 2 * per_epoch)
    tf.random.set_seed(11)  # the process's own, which counts for nothing
    assert rows == drawn(source, 2 * per_epoch)
    assert rows[:per_epoch] != rows[per_epoch:]
    assert rows != drawn(source, 2 * per_epoch, config(seed=1))


@pytest.mark.parametrize("step", [1, 3, 5, 11])
def test_a_run_resumed_at_a_step_sees_what_an_uninterrupted_one_sees(source, step):
    whole = drawn(source, 16 * BATCH)
    assert drawn(source, (16 - step) * BATCH, first_step=step) == whole[step * BATCH :]


@pytest.mark.parametrize("count", [2, 4])
def test_workers_share_the_batch_that_one_process_has(source, count):
    whole = drawn(source, 6 * BATCH)
    rows = BATCH // count
    parts = [drawn(source, 6 * rows, worker=(number, count)) for number in range(count)]
    for step in range(6):
        shared = [row for part in parts for row in part[step * rows : (step + 1) * rows]]
        assert shared == whole[step * BATCH : (step + 1) * BATCH]


def test_neighbours_in_a_shard_do_not_share_a_batch(source):
    mixed = [config(shuffle_buffer=100, seed=seed) for seed in range(4)]
    names = [data.patients_at(source, one, 8, step) for one in mixed for step in range(3)]
    assert np.mean([len(in_batch) for in_batch in names]) > 3, names


@pytest.mark.parametrize("batch, count", [(1, 1), (4, 1), (4, 2), (5, 1), (16, 4), (64, 2)])
def test_evaluation_gives_each_slice_once_to_one_worker(source, batch, count):
    total = source.count(source.validation)
    rows = [
        row
        for number in range(count)
        for row in data.evaluation(source, batch, (number, count)).as_numpy_iterator()
    ]
    assert len(rows) == -(-total // batch) * batch
    real = sorted((row for row in rows if row[data.INDEX] < total), key=lambda r: r[data.INDEX])
    assert [row[data.INDEX] for row in real] == list(range(total))
    assert [fingerprint(row) for row in real] == stored(source, source.validation)
    slices_of = Counter(source.patients[row[data.OWNER]] for row in real)
    expected = {p.patient: p.slices for p in source.dataset.patients if p.split == "validation"}
    assert slices_of == expected


def test_a_fold_is_held_out_and_the_others_train(folder):
    for fold in range(slices.FOLDS):
        source = sources.open_source(folder, fold)
        assert {shard.fold for shard in source.validation} == {fold}
        assert {shard.fold for shard in source.train} == set(range(slices.FOLDS)) - {fold}
    with pytest.raises(InputError, match="--fold: expected 0 to 2"):
        sources.open_source(folder, 3)


def test_a_batch_larger_than_the_training_set_is_refused(source):
    with pytest.raises(InputError, match="--batch_size"):
        sources.steps_per_epoch(source, source.count(source.train) + 1)


def test_shards_that_are_not_the_manifests_are_refused(tmp_path):
    dataset = slices.make(tmp_path)
    path = tmp_path / dataset.shards[0].file
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=f"expected {len(whole)} bytes"):
        sources.open_source(str(tmp_path), None)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        sources.open_source(str(tmp_path), None)
    path.write_bytes(whole)
    shard = dataclasses.replace(dataset.shards[0], records=dataset.shards[0].records + 1)
    dataclasses.replace(dataset, shards=(shard, *dataset.shards[1:])).save(str(tmp_path))
    with pytest.raises(InputError, match="expected 7 slices, as its patients have, found 8"):
        sources.open_source(str(tmp_path), None)
    held_out = {"shards": dataset.shards[2:3], "patients": dataset.patients[2:3]}
    dataclasses.replace(dataset, **held_out).save(str(tmp_path))
    with pytest.raises(InputError, match="expected train slices, found none"):
        sources.open_source(str(tmp_path), None)


def test_the_digest_follows_shards_and_recipe(folder):
    source, dataset = sources.open_source(folder, None), Dataset.load(folder)
    assert source.dataset.digest() == sources.open_source(folder, 1).dataset.digest()
    other = dataclasses.replace(dataset.recipe, window_level="60")
    changed = dataclasses.replace(source, dataset=dataclasses.replace(dataset, recipe=other))
    assert changed.dataset.digest() != source.dataset.digest()
    assert np.unique([shard.sha256 for shard in dataset.shards]).size == len(dataset.shards)


def test_slices_with_rare_organs_are_drawn_more_often(folder):
    plain = sources.open_source(folder, None)
    # heart in 4 of 100 slices: sqrt(0.16 / 0.04) = 2 times; the others are common
    slices_of = {"all": 100, "esophagus": 50, "heart": 4, "trachea": 50, "aorta": 50}
    statistics = Statistics(slices_of)
    source = dataclasses.replace(
        plain, dataset=dataclasses.replace(plain.dataset, statistics=statistics)
    )
    holds_heart = {}
    for shard in source.train:
        with open(f"{source.folder}/{shard.file}", "rb") as stream:
            for payload in records.read_frames(stream, shard.file):
                one = records.decode(payload)
                value = hash(one.image.tobytes() + one.labels.tobytes())
                holds_heart[value] = bool(one.present[1])
    chosen = config(oversample=0.16, shuffle_buffer=1000)
    per_epoch = sources.steps_per_epoch(source, BATCH) * BATCH
    seen = Counter(value for _, value in drawn(source, 120 * per_epoch, chosen))
    often = [seen[value] for value, heart in holds_heart.items() if heart]
    seldom = [seen[value] for value, heart in holds_heart.items() if not heart]
    assert min(often) > 0 and min(seldom) > 0
    assert 1.8 < np.mean(often) / np.mean(seldom) < 2.2
    assert drawn(source, 9, chosen, first_step=1) == drawn(source, 13, chosen)[4:]


def test_oversampling_a_dataset_without_counts_is_refused(source):
    with pytest.raises(InputError, match="--oversample needs counts of slices, found none"):
        data.training(source, config(oversample=0.1), BATCH)


HEART = ("heart",)
BOTH = ("heart", "aorta")
AORTA = ("aorta",)


@pytest.mark.parametrize(
    "train, held_out, asked, message",
    [
        (HEART, HEART, BOTH, "no train patient .* contours of aorta; --organs=heart would work"),
        (HEART, HEART, AORTA, "no train patient .* contours of aorta; --organs=heart would work"),
        (BOTH, HEART, AORTA, "no validation .* of aorta; --organs=heart,aorta would work"),
        (HEART, AORTA, BOTH, "no train patient .* of aorta; build it with another --split"),
        (HEART, AORTA, HEART, "no validation .* of heart; build it with another --split"),
    ],
)
def test_an_organ_that_nobody_contoured_is_refused_with_what_would_work(
    tmp_path, train, held_out, asked, message
):
    """`slices.make` holds out every third patient."""
    names = {f"Patient_{n:02d}": train if n % 3 else held_out for n in range(1, 7)}
    slices.make(tmp_path, contoured=names)
    source = sources.open_source(str(tmp_path), None)
    with pytest.raises(InputError, match=message) as refused:
        sources.require_contours(source, asked)
    works = re.search("--organs=([a-z,]+)", str(refused.value))
    if works:
        sources.require_contours(source, works[1].split(","))


def test_an_organ_without_a_validation_patient_is_trained_without_a_score(tmp_path):
    names = {f"Patient_{n:02d}": BOTH if n % 3 else HEART for n in range(1, 7)}
    slices.make(tmp_path, contoured=names)
    source = sources.open_source(str(tmp_path), None)
    assert sources.require_contours(source, BOTH) == ["aorta"]
    assert sources.require_contours(source, HEART) == []
