"""The contact sheet shows stored slices first and then exactly what the training step would get."""

import dataclasses

import numpy as np
import pytest
import slices
import tensorflow as tf
from PIL import Image
from programs import run

from segthor import drawing, records
from segthor.organs import SEGTHOR
from trainer import augment, preview, sources
from trainer.config import Config
from trainer.strengths import Strengths


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    slices.make(folder)
    return sources.open_source(str(folder), None)


def test_of_each_patient_the_slice_with_most_organs_is_shown(source):
    found = preview.read_fullest_slices(source, 3)
    most = {}
    for shard in source.train:
        with open(f"{source.folder}/{shard.file}", "rb") as stream:
            for payload in records.read_frames(stream, shard.file):
                one = records.decode(payload)
                most[one.patient] = max(most.get(one.patient, 0), len(np.unique(one.labels)) - 1)
    assert [one.patient for one in found] == sorted(most)[:3]
    assert [sum(one.present) for one in found] == [most[one.patient] for one in found]


def test_the_patients_are_those_that_the_run_trains_on(source):
    few = sources.open_source(source.folder, None, patients=2, draw=1)
    found = preview.read_fullest_slices(few, 4)
    assert sorted(one.patient for one in found) == sorted(few.chosen)


def test_the_first_column_is_as_stored_and_the_others_what_a_step_would_get(source):
    config = Config(seed=5)
    found = preview.read_fullest_slices(source, 3)
    images = np.stack([one.image for one in found])
    labels = np.stack([one.labels for one in found])
    for step in (None, 2):
        expected = images, labels
        if step is not None:
            place, seed = tf.range(3), tf.constant([5, step])
            expected = augment.augment(
                tf.constant(images), tf.constant(labels), place, seed, config.augment
            )
        cells = preview.draw_slices(found, step, config, organs=SEGTHOR)
        for (tile, _), image, truth in zip(cells, *expected, strict=True):
            middle = np.rint(image).astype(np.uint8)[..., 1]
            scale = tile.shape[0] // 32
            expected_tile = drawing.overlay(
                middle, truth=np.asarray(truth), scale=scale, organs=SEGTHOR
            )
            np.testing.assert_array_equal(tile, expected_tile)
    assert [caption for _, caption in preview.draw_slices(found, None, config, organs=SEGTHOR)] == [
        f"{one.patient}, slice {one.z}" for one in found
    ]


def test_without_augmentation_every_column_is_the_first(source):
    config = dataclasses.replace(Config(), augment=Strengths.none())
    found = preview.read_fullest_slices(source, 2)
    stored, step = (preview.draw_slices(found, step, config, organs=SEGTHOR) for step in (None, 0))
    for (one, _), (other, _) in zip(stored, step, strict=True):
        np.testing.assert_array_equal(one, other)


def command(*arguments):
    return run(["-m", "trainer.preview", *arguments])


def test_the_program_takes_the_trainers_flags_and_writes_one_picture(source, tmp_path):
    flagfile = tmp_path / "run.flags"
    flagfile.write_text("--backbone=resnet18\n--augment_rotation_deg=45\n")
    output = tmp_path / "preview.png"
    result = command(
        f"--flagfile={flagfile}", f"--data={source.folder}", f"--output={output}", "--versions=2"
    )
    assert result.returncode == 0, result.stderr
    width, height = Image.open(output).size
    assert width > 3 * 224 and height > 4 * 224
    assert str(output) in result.stdout


@pytest.mark.parametrize("arguments, named", [
    (["--data=nowhere"], "nowhere"),
    (["--augment_noise=7"], "noise"),
])  # fmt: skip
def test_bad_input_ends_in_one_line_and_no_picture(tmp_path, arguments, named):
    result = command(*arguments, f"--output={tmp_path / 'preview.png'}")
    assert result.returncode == 2
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and named in lines[0] and "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
