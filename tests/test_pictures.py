"""The pictures show the slices, contours and figures that they say they show."""

import types

import numpy as np
import pytest
import slices
import tensorflow as tf
from PIL import Image

from segthor import drawing, organs, plots, records
from segthor.organs import SEGTHOR
from trainer import pictures, sources, validate
from trainer.config import Config

UNCONTOURED = "Patient_03"  # held out by `slices.make`


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    slices.make(folder, contoured={UNCONTOURED: ("heart", "trachea")})
    return sources.open_source(str(folder), None)


@pytest.fixture(scope="module")
def held_out(source):
    found = []
    for shard in source.validation:
        with open(f"{source.folder}/{shard.file}", "rb") as stream:
            found += [records.decode(p) for p in records.read_frames(stream, shard.file)]
    return found


def learner(names, offset_px=5):
    """A network that reads the labels off the grey levels and shifts them."""
    values = np.array([0] + [organs.SEGTHOR[name].label for name in names])

    def predict(images):
        labels = np.roll(images.numpy()[..., 1] // 50, offset_px, axis=1)
        return tf.argmax(labels[..., None] == values, -1)

    return types.SimpleNamespace(config=Config(organs=tuple(names)), predict=predict)


def scores(held_out, names, dice):
    """A validation that found this Dice in each slice, over all organs together."""
    counts = np.zeros([len(held_out), len(names), 3], int)
    counts[:, 0] = np.stack([100 * np.array(dice), [100] * len(dice), [100] * len(dice)], 1)
    return validate.VolumeDice((), tuple(names), np.zeros([0, len(names)]), counts)


@pytest.fixture
def sheets(monkeypatch):
    """What was put on the sheets."""
    seen = []
    draw = drawing.sheet

    def remember(tiles, columns, captions, note, organs):
        seen.append((tiles, captions))
        return draw(tiles, columns, captions, note, organs=organs)

    monkeypatch.setattr(drawing, "sheet", remember)
    return seen


def test_slices_are_read_by_their_place_in_the_order_asked_for(source, held_out):
    places = [9, 0, 12, 3]
    found = pictures.read_slices(source, source.validation, places)
    for one, place in zip(found, places, strict=True):
        assert (one.patient, one.z) == (held_out[place].patient, held_out[place].z)
        np.testing.assert_array_equal(one.image, held_out[place].image)


def test_shards_that_hold_none_of_the_slices_are_not_opened(source):
    gone = types.SimpleNamespace(file="gone.tfrecord", records=5)
    found = pictures.read_slices(source, [gone, *source.validation], [6, 7])
    assert [one.patient for one in found] == [source.validation[0].patients[0]] * 2


@pytest.mark.parametrize("names", [organs.SEGTHOR.names, ("aorta", "esophagus"), ("heart",)])
def test_the_worst_slices_are_drawn_with_truth_and_prediction_of_the_learned_organs(
    source, held_out, sheets, names
):
    dice = np.linspace(0.9, 0.5, len(held_out))
    dice[[4, 10]] = 0.25, 0.08
    sheet = pictures.worst_slices(learner(names), source, scores(held_out, names, dice), 3)
    (tiles, captions) = sheets[0]
    assert sheet.dtype == np.uint8 and sheet.ndim == 3
    assert [caption.split()[-1] for caption in captions] == ["0.08", "0.25", "0.50"]
    for place, tile, caption in zip((10, 4, len(dice) - 1), tiles, captions, strict=True):
        one = held_out[place]
        assert caption.startswith(f"{one.patient}, slice {one.z}, ")
        labels = np.roll(one.image[..., 1] // 50, 5, axis=0)
        learned = [
            organs.SEGTHOR[name].label
            for name in names
            if one.contoured[organs.SEGTHOR[name].label - 1]
        ]
        truth, predicted = (np.where(np.isin(x, learned), x, 0) for x in (one.labels, labels))
        expected = drawing.overlay(
            one.image[..., 1], truth, predicted, tile.shape[0] // 32, organs=SEGTHOR
        )
        np.testing.assert_array_equal(tile, expected)
    assert {caption.split(",")[0] for caption in captions} > {UNCONTOURED}


def test_a_classifier_has_no_contours_to_show(source, held_out):
    classifier = learner(organs.SEGTHOR.names)
    classifier.config = Config(task="classify", loss="focal")
    found = scores(held_out, organs.SEGTHOR.names, [0.5] * len(held_out))
    assert pictures.worst_slices(classifier, source, found) is None


ROWS = [
    {"step": "10", "loss": "1.5", "learning_rate": "1e-3", "dice": "0.2", "dice_heart": "0.3"},
    {"step": "20", "loss": "0.9", "learning_rate": "5e-4", "dice": "0.6", "dice_heart": "0.7"},
    {"step": "30", "loss": "0.8", "learning_rate": "1e-4", "dice": "nan", "dice_heart": "0.5"},
]


def test_the_learning_curve_plots_the_logs_columns_against_the_step():
    losses, scores, rate = learning_axes(ROWS)
    assert points(losses, "loss") == [(10, 1.5), (20, 0.9), (30, 0.8)]
    assert points(scores, "heart") == [(10, 0.3), (20, 0.7), (30, 0.5)]
    assert points(scores, "mean")[:2] == [(10, 0.2), (20, 0.6)]
    assert [tuple(p) for p in rate.lines[0].get_xydata()] == [(10, 1e-3), (20, 5e-4), (30, 1e-4)]
    assert "0.600 at step 20" in scores.get_title()
    assert all(axes.get_ylabel() for axes in (losses, scores, rate)) and scores.get_xlabel()


def test_organs_that_the_run_does_not_learn_are_not_in_the_legend():
    _, scores, _ = learning_axes(ROWS)
    legend = {text.get_text() for text in scores.get_legend().get_texts()}
    assert legend == {"heart", "mean"}


def test_a_run_without_a_single_score_still_has_a_curve(tmp_path):
    rows = [{"step": 5, "loss": 1.0, "learning_rate": 0.1, "dice": float("nan")}]
    losses, rate = learning_axes(rows)  # no panel for scores
    assert losses.get_xlabel() and losses.get_ylabel() and rate.get_ylabel()
    path = tmp_path / "curve.png"
    plots.save(pictures.learning_curve(rows, SEGTHOR), str(path))
    assert Image.open(path).size == (900, 700)
    assert [entry.name for entry in tmp_path.iterdir()] == ["curve.png"]


def learning_axes(rows):
    return pictures.learning_curve(rows, organs=SEGTHOR).axes


def points(axes, label):
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return [(float(x), float(y)) for x, y in line.get_xydata()]
