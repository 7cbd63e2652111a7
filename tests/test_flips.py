"""Test-time augmentation: only flips that the training saw, and organs of a side change places."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from programs import run_entry
from test_predict import affine_of, run_parts, save_scan
from tiny_models import CODED_HU, CODED_RECIPE, coded_scan

from segthor import inputs, nifti
from segthor.errors import InputError
from segthor.organs import SEGTHOR, Organ, Organs
from serving.prediction import bundle, flips
from serving.prediction.predictor import Ensemble
from serving.prediction.worker import Plan, Worker
from tests import file_order

BOTH = {"flip_left_right": 0.5, "flip_front_back": 0.5}
LEFT_RIGHT, FRONT_BACK = BOTH | {"flip_front_back": 0.0}, BOTH | {"flip_left_right": 0.0}
RED = (255, 0, 0)
SIDED = Organs(
    (
        Organ("heart", 5, RED),
        Organ("lung_left", 1, RED, side="left", mirror="lung_right"),
        Organ("lung_right", 2, RED, side="right", mirror="lung_left"),
    )
)
UNPAIRED = Organs(tuple(dataclasses.replace(organ, mirror="") for organ in SIDED))
LUNG_HU, HEART_HU = CODED_HU[1], CODED_HU[2]


def trained(augment):
    return {"config": {"augment": augment}}


def save(folder, network, table, names=None, augment=LEFT_RIGHT, recipe=CODED_RECIPE):
    names = names or table.names
    contents = bundle.Contents(recipe, names, table, trained(augment))
    return bundle.load(bundle.save(str(folder), network, [], contents))


def by_side(images):
    """Classes background, heart, left and right lung: what is as bright as a lung is the lung of
    the half of the picture that it lies in, columns from the patient's right to the left. It is
    surer in even columns, which are odd in a mirrored picture.
    """
    grey = images[..., 0]
    lung = tf.cast(tf.abs(grey - (LUNG_HU - 40 + 127.5)) < 5, tf.float32)
    heart = tf.cast(tf.abs(grey - (HEART_HU - 40 + 127.5)) < 5, tf.float32)
    left = tf.cast(tf.range(64) >= 32, tf.float32)[None, None, :] * tf.ones_like(grey)
    shares = tf.stack([1 - lung - heart, heart, lung * left, lung * (1 - left)], -1)
    sure = tf.where(tf.range(64) % 2 == 0, 0.96, 0.8)[None, None, :, None]
    return {"probabilities": shares * sure + (1 - sure) / 4}


def chest(shape=(44, 38, 30)):
    """(scan, labels [Z, Y, X]): two lungs of unequal size and a heart; `shape`: x, y, z."""
    labels = np.zeros(shape, np.uint8)
    labels[26:38, 10:26, 5:25] = SIDED["lung_left"].label
    labels[6:17, 8:28, 3:27] = SIDED["lung_right"].label
    labels[18:26, 12:20, 8:18] = SIDED["heart"].label
    codes = np.array([0, 1, 1, 0, 0, 2], np.uint8)
    hu = coded_scan(codes[labels])
    scan = file_order.volume(hu, affine_of())
    return scan, scan.grid.to_zyx(labels)


def segment(scan, *bundles, tta=True):
    ensemble = Ensemble(bundles, tta=tta)
    return ensemble.segment(ensemble.inputs(scan), probabilities=True)


def test_flips_are_averaged_in_the_scans_own_frame(tmp_path):
    """A network that is surer on the left of what it is shown is even-handed after averaging."""

    def surer_on_the_left(images):
        heart = tf.linspace(0.0, 1.0, 64)[None, None, :, None] * tf.ones_like(images[..., :1])
        return {"probabilities": tf.concat([1 - heart, heart], -1)}

    model = save(tmp_path / "m", surer_on_the_left, SEGTHOR, ("heart",))
    scan, _ = chest()
    plain = segment(scan, model, tta=False).probabilities["heart"]
    even = segment(scan, model).probabilities["heart"]
    assert np.ptp(plain[15, 20]) > 100
    assert set(np.unique(even[15, 20])) <= {127, 128}


@pytest.mark.parametrize("augment", [LEFT_RIGHT, FRONT_BACK, BOTH])
def test_averaging_flips_leaves_every_lung_on_its_side(tmp_path, augment):
    model = save(tmp_path / "m", by_side, SIDED, augment=augment)
    scan, labels = chest()
    np.testing.assert_array_equal(segment(scan, model, tta=False).labels, labels)
    result = segment(scan, model)
    np.testing.assert_array_equal(result.labels, labels)
    mean = (0.96 + 0.01 + 0.8 + 0.05) / 2 if augment["flip_left_right"] else 0.85
    assert result.probabilities["lung_left"][labels == 1].min() == round(mean * 255)


def test_classes_that_are_not_exchanged_call_half_a_lung_left_and_the_case_is_marked(
    tmp_path, monkeypatch
):
    """The measured fault: of 31 247 voxels of a right lung 15 221 were called left."""
    monkeypatch.setattr(flips, "_exchanged_classes", lambda bundle: ())
    save(tmp_path / "m", by_side, SIDED)
    scan, labels = chest()
    save_scan(tmp_path / "scan.nii.gz", file_order.of(scan).array, affine_of())
    worker = Worker(Plan(str(tmp_path / "out"), (str(tmp_path / "m"),), tta=True))
    (case,) = inputs.find(str(tmp_path / "scan.nii.gz"), organs=SEGTHOR)
    run_parts(worker, case)
    lungs = np.isin(labels, (1, 2))
    predicted = nifti.read(worker.results.path(case)).zyx
    assert 0.4 < (predicted != labels)[lungs].mean() < 0.6
    review = worker.results.facts(case).review
    assert not review.calibrated and review.review
    torn = {n for n, row in review.organs.items() if "flips have a Dice of" in row.reason}
    assert torn == {"lung_left", "lung_right"}  # the model's training is a reason in every organ
    assert all(review.organs[name].review for name in torn)
    assert "models or flips have a Dice of" in review.reason


def test_a_network_is_shown_the_flips_of_its_training_and_no_others(tmp_path):
    for augment, expected in (
        (LEFT_RIGHT, [(), (2,)]),
        (FRONT_BACK, [(), (1,)]),
        (BOTH, [(), (2,), (1,), (1, 2)]),
    ):
        model = save(tmp_path / "m", by_side, SIDED, augment=augment)
        made = flips.list_flips(model)
        assert [flip.axes for flip in made] == expected
        assert [bool(flip.classes) for flip in made] == [2 in axes for axes in expected]


NO_FLIPS = [{}, dict.fromkeys(BOTH, 0.0), {"flip_left_right": "0.5"}, None, [0.5]]


@pytest.mark.parametrize("augment", NO_FLIPS)
def test_a_model_that_saw_no_flip_or_does_not_say_refuses_them(tmp_path, augment):
    model = save(tmp_path / "m", by_side, SIDED, augment=augment)
    with pytest.raises(InputError, match="had none .*; predict without --tta") as error:
        Ensemble([model], tta=True)
    assert model.folder in str(error.value) and "\n" not in str(error.value)
    Ensemble([model])


def test_one_model_of_several_that_saw_no_flip_is_named(tmp_path):
    saw = save(tmp_path / "saw", by_side, SIDED)
    unseen = save(tmp_path / "unseen", by_side, SIDED, augment={})
    with pytest.raises(InputError, match=f"{tmp_path / 'unseen'}/1: --tta averages"):
        Ensemble([saw, unseen], tta=True)


def test_a_table_with_sides_and_no_pairs_refuses_the_flip_that_exchanges_them(tmp_path):
    model = save(tmp_path / "m", by_side, UNPAIRED)
    with pytest.raises(InputError, match="by their names lung_left and lung_right.*'mirror'"):
        Ensemble([model], tta=True)
    front_back = save(tmp_path / "f", by_side, UNPAIRED, augment=FRONT_BACK)
    scan, labels = chest()
    np.testing.assert_array_equal(segment(scan, front_back).labels, labels)


def test_a_model_that_knows_one_of_a_pair_refuses_the_flip(tmp_path):
    def constant(images):
        return {"probabilities": tf.ones_like(images[..., :1]) * tf.constant([0.4, 0.6])}

    model = save(tmp_path / "m", constant, SIDED, ("lung_left",))
    with pytest.raises(InputError, match="knows lung_left without its mirror image lung_right"):
        Ensemble([model], tta=True)


def test_the_pairs_lie_in_the_exported_model(tmp_path):
    save(tmp_path / "m", by_side, SIDED)
    rows = json.loads((tmp_path / "m" / "1" / "assets" / "organ_table.json").read_text())
    assert [row.get("mirror") for row in rows] == [None, "lung_right", "lung_left"]
    assert bundle.load(str(tmp_path / "m")).table == SIDED


def test_predict_ends_in_one_line_before_anything_is_predicted(tmp_path):
    save(tmp_path / "m", by_side, SIDED, augment={})
    scan, _ = chest()
    save_scan(tmp_path / "scans" / "a.nii.gz", file_order.of(scan).array, affine_of())
    done = run_entry("serving.predict", model=tmp_path / "m", input=tmp_path / "scans",
                     output=tmp_path / "out", tta=True)  # fmt: skip
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "--tta averages over the flips of the training" in done.stderr
    assert not (tmp_path / "out").exists()
