"""Slices mirrored left to right in training: organs of a side change places, or it is refused."""

import dataclasses

import numpy as np
import pytest
import slices
import tensorflow as tf
from programs import run_entry

from segthor import records
from segthor.errors import InputError
from segthor.organs import SEGTHOR, Organ, Organs
from trainer import data, losses, preview, sources
from trainer.augment import augment
from trainer.config import Config
from trainer.exchange import exchange_sides
from trainer.learner import Learner
from trainer.strengths import Strengths

RED = (255, 0, 0)
SIDED = Organs(
    (
        Organ("lung_right", 2, RED, side="right", mirror="lung_left"),
        Organ("heart", 3, RED),
        Organ("lung_left", 1, RED, side="left", mirror="lung_right"),
        Organ("liver", 4, RED, side="right", mirror="liver"),
    )
)
UNPAIRED = Organs(tuple(dataclasses.replace(organ, mirror="") for organ in SIDED))


def config(**strengths):
    return Config(augment=dataclasses.replace(Strengths(), **strengths))


def test_a_table_with_sides_and_no_pairs_refuses_to_mirror_left_to_right():
    with pytest.raises(InputError) as error:
        config(flip_left_right=0.5).of_table(UNPAIRED)
    message = str(error.value)
    assert message.startswith("--augment_flip_left_right: the table of organs does not say what")
    assert "(by their names lung_left and lung_right)" in message and "liver" in message
    config(flip_left_right=0.5).of_table(SIDED)
    config(flip_front_back=0.5).of_table(UNPAIRED)
    config(flip_left_right=0.0).of_table(UNPAIRED)


def test_organs_that_are_not_learned_need_no_pairs():
    some = dataclasses.replace(config(flip_left_right=0.5), organs=("heart",))
    assert some.of_table(UNPAIRED).organs == ("heart",)


@pytest.mark.parametrize("module", ["trainer.main", "trainer.preview", "trainer.doctor"])
def test_every_program_that_augments_refuses_in_one_line(tmp_path, module):
    slices.make(tmp_path / "data", patients=3, slices=2, table=UNPAIRED)
    own = {"trainer.main": {"workdir": tmp_path / "run"}}.get(module, {})
    done = run_entry(module, data=tmp_path / "data", augment_flip_left_right=0.5, **own)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: --augment_flip_left_right: the table of organs")
    assert not (tmp_path / "run").exists()


PARTNER = np.array([0, 2, 1, 3, 4], np.uint8)  # SIDED's labels in the mirrored picture, by hand
COLUMNS = [2, 1, 0, 3]  # and its organs


def batch(count=40, size=16):
    """Images that tell where each pixel came from, labels, and organs contoured in part."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 1), np.uint8)
    labels = rng.integers(0, 5, (count, size, size), np.uint8)
    return images, labels, rng.integers(0, 2, (count, 4))


def augmented(organs, seed=(3, 1), **strengths):
    """What the network is shown of `batch`: images, labels, contoured organs."""
    images, labels, contoured = map(tf.constant, batch())
    chosen = dataclasses.replace(Strengths.none(), **strengths)
    drawn = tf.range(len(images)), tf.constant(seed), chosen

    @tf.function
    def run():
        moved, moved_labels = augment(images, labels, *drawn)
        return moved, *exchange_sides(moved_labels, contoured, *drawn, organs)

    return [value.numpy() for value in run()]


def test_a_mirrored_slice_has_the_labels_of_the_other_side_pixel_for_pixel():
    images, labels, contoured = batch()
    found = augmented(SIDED, flip_left_right=1.0)
    np.testing.assert_array_equal(found[0], np.flip(images, 2))
    np.testing.assert_array_equal(found[1], PARTNER[np.flip(labels, 2)])
    np.testing.assert_array_equal(found[2], contoured[:, COLUMNS])


def test_labels_and_contoured_organs_change_where_the_picture_is_mirrored_and_only_there():
    images, labels, contoured = batch()
    found = augmented(SIDED, flip_left_right=0.5, flip_front_back=0.5)
    kinds = set()
    for n, (image, label, names) in enumerate(zip(*found, strict=True)):
        for axes in ((), (0,), (1,), (0, 1)):
            if np.array_equal(image, np.flip(images[n], axes)):
                kinds.add(axes)
                table, order = (PARTNER, COLUMNS) if 1 in axes else (np.arange(5), np.arange(4))
                np.testing.assert_array_equal(label, table[np.flip(labels[n], axes)])
                np.testing.assert_array_equal(names, contoured[n, order])
    assert len(kinds) == 4  # every one occurred, and every slice was one of them


@pytest.mark.parametrize(
    "strengths", [{"flip_front_back": 1.0}, {"rotation_deg": 180.0}, {"elastic_px": 4.0}]
)
def test_nothing_but_mirroring_left_to_right_exchanges_sides(strengths):
    plain, found = augmented(SEGTHOR, **strengths), augmented(SIDED, **strengths)
    for one, other in zip(plain, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_table_without_sides_is_mirrored_as_it_was():
    _, labels, contoured = batch()
    found = augmented(SEGTHOR, flip_left_right=1.0)
    np.testing.assert_array_equal(found[1], np.flip(labels, 2))
    np.testing.assert_array_equal(found[2], contoured)


def test_the_loss_of_a_step_sees_the_other_side(tmp_path, monkeypatch, tiny):
    """Through the whole training step, of networks that learn one side or both."""
    only = {"Patient_01": ("lung_left", "heart")}
    slices.make(tmp_path, patients=2, slices=4, size=32, table=SIDED, contoured=only)
    source = sources.open_source(str(tmp_path), 1)
    seen = []

    def spy(*given):
        note = tf.numpy_function(lambda *x: seen.append(x) or np.float32(0), given[2:4], tf.float32)
        return segment(*given) + note

    segment = losses.segment
    monkeypatch.setattr(losses, "segment", spy)
    for names in (SIDED.names, ("lung_left",)):
        strengths = dataclasses.replace(Strengths.none(), flip_left_right=1.0)
        chosen = {"ema": 0.0, "batch_size": 4, "augment": strengths}
        config = Config(organs=names, shuffle_buffer=1, **chosen)
        learner = Learner(config, source, tf.distribute.get_strategy(), 1)
        batches = data.per_replica(data.training(source, config, 4), 4)
        (stored,) = batches.take(1).as_numpy_iterator()
        seen.clear()
        learner.train(iter(batches), tf.constant(1))
        channels = np.zeros(5, np.uint8)
        channels[SIDED.labels(names)] = np.arange(1, len(names) + 1)
        (truth, contoured) = seen[0]
        mirrored = np.flip(stored[records.LABELS], 2)
        assert {1, 2} & set(np.unique(mirrored))
        np.testing.assert_array_equal(truth, channels[PARTNER[mirrored]])
        partners = [SIDED.names[place] for place in np.array(COLUMNS)[SIDED.places(names)]]
        expected = [int(name in only["Patient_01"]) for name in partners]
        np.testing.assert_array_equal(contoured, np.tile(expected, (4, 1)))


def test_the_preview_shows_the_exchanged_labels(tmp_path, monkeypatch):
    slices.make(tmp_path, patients=3, slices=2, table=SIDED)
    found = preview.read_fullest_slices(sources.open_source(str(tmp_path), None), 2)
    shown = []
    monkeypatch.setattr(preview.drawing, "overlay", lambda image, truth, **_: shown.append(truth))
    preview.draw_slices(found, 0, config(flip_left_right=1.0, **dict.fromkeys(OTHERS, 0.0)), SIDED)
    for truth, one in zip(shown, found, strict=True):
        np.testing.assert_array_equal(truth, PARTNER[np.flip(one.labels, 1)])


OTHERS = ("rotation_deg", "scale", "shift", "elastic_px")
