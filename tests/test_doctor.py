"""The doctor names a planted bottleneck; its rules, and the line that a run says of its input."""

import dataclasses
import re
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import slices
import tensorflow as tf
import tiny_network
from programs import finish, start

from segthor.organs import SEGTHOR
from trainer import augment, diagnosis, model, sources, stopwatch
from trainer.config import Config
from trainer.diagnosis import Times
from trainer.journal import Journal
from trainer.strengths import Strengths

PLAIN = Config(
    organs=("heart",),
    backbone="resnet18",
    decoder="pspnet",
    batch_size=16,
    shuffle_buffer=200,
    augment=Strengths.none(),
    ema=0.0,
)
HEALTHY = Times(
    batch=16, read_s=0.01, input_s=0.02, augment_s=0.01, step_s=1.0, whole_s=1.0, waiting=0.01,
    larger=4, larger_s=3.9, validation_s=5.0, faults_per_step=10.0, memory_gb=1.0,
)  # fmt: skip


def times(config, source):
    return stopwatch.measure(config, source, tf.distribute.get_strategy(), 1.0)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    slices.make(folder, patients=9, slices=20, size=96)
    return sources.open_source(str(folder), None)


def slow_disk(monkeypatch):
    """Every record takes a while to be read, one at a time, wherever it is read."""
    whole, disk = tf.data.TFRecordDataset, threading.Lock()

    def delay(record):
        with disk:
            time.sleep(0.05)
        return record

    def throttled(*arguments, **options):
        records = whole(*arguments, **options)
        return records.map(lambda r: tf.ensure_shape(tf.numpy_function(delay, [r], tf.string), []))

    monkeypatch.setattr(tf.data, "TFRecordDataset", throttled)


def test_a_throttled_reader_is_named(tmp_path, monkeypatch, tiny):
    slices.make(tmp_path, patients=3, slices=3, size=96)
    source = sources.open_source(str(tmp_path), None)
    slow_disk(monkeypatch)
    found = times(dataclasses.replace(PLAIN, batch_size=1, shuffle_buffer=1), source)
    assert diagnosis.find_bottleneck(found) == diagnosis.READING
    assert "--data" in diagnosis.advise(found, PLAIN)[0]


def test_a_heavy_augmentation_is_named(source, monkeypatch, tiny):
    once = augment.augment

    def heavy(image, labels, *others):
        for _ in range(3):
            image, labels = once(tf.cast(image, tf.uint8), labels, *others)
        return image, labels

    monkeypatch.setattr(augment, "augment", heavy)
    monkeypatch.setattr(stopwatch, "_time_larger_step", lambda *_: None)
    found = times(dataclasses.replace(PLAIN, augment=Strengths(), batch_size=4), source)
    assert diagnosis.find_bottleneck(found) == diagnosis.AUGMENTING
    assert "--augment_elastic_px=0" in diagnosis.advise(found, PLAIN)[0]


def with_a_delay(*arguments, **options):
    """The tiny network; a step takes 0.03 s more, however many slices it has."""
    plain = tiny_network.network(*arguments, **options)

    def delay(values):
        waited = tf.numpy_function(lambda: time.sleep(0.03) or np.float32(0), [], tf.float32)
        return values + tf.ensure_shape(waited, [])

    return tf.keras.Model(plain.input, tf.keras.layers.Lambda(delay)(plain.output))


def test_a_tiny_batch_is_named_and_no_augmentation_is_not(tmp_path, monkeypatch):
    slices.make(tmp_path, patients=9, slices=20, size=32)
    source = sources.open_source(str(tmp_path), None)
    monkeypatch.setattr(model, "_decoders", lambda: {"unet": with_a_delay})
    config = dataclasses.replace(PLAIN, batch_size=1, decoder="unet")
    found = times(config, source)
    assert diagnosis.find_bottleneck(found) == diagnosis.BATCH
    assert "raise --batch_size from 1 to 4" in diagnosis.advise(found, config)[0]
    assert found.augment_s < 0.1 * found.step_s and found.waiting < diagnosis.WAITING


@pytest.mark.parametrize(
    "changed, expected",
    [
        ({}, "the network limits the run"),
        ({"input_s": 2.0, "read_s": 1.9}, "reading limits the run: 50% of the"),
        ({"waiting": 0.4, "read_s": 0.3, "input_s": 0.5}, "reading limits the run: 40% of the"),
        ({"waiting": 0.4, "read_s": 0.1, "input_s": 0.5}, "decoding and mixing limits the run"),
        ({"augment_s": 0.5}, "augmentation limits the run: it takes 50% of a step"),
        ({"larger_s": 2.0}, "a small batch limits the run: steps of 64 slices instead of 16 train "
         "2.0 times"),
        ({"larger_s": None}, "the network limits the run"),
    ],
)  # fmt: skip
def test_what_bounds_a_run_is_said_with_its_number_and_flag(changed, expected):
    lines = diagnosis.advise(dataclasses.replace(HEALTHY, **changed), PLAIN)
    assert expected in " ".join(lines)
    assert len(lines) == 1


def test_a_shuffle_buffer_of_one_is_named():
    lines = diagnosis.advise(HEALTHY, dataclasses.replace(PLAIN, shuffle_buffer=1))
    assert "since the buffer holds 1 and a batch 16" in lines[1]
    assert lines[1].endswith("raise --shuffle_buffer to 512")


@pytest.mark.parametrize("waited_s, told", [(0.5, True), (0.05, False)])
def test_a_run_says_after_a_hundred_steps_that_input_bounds_it(waited_s, told, tmp_path, capsys):
    journal = Journal(str(tmp_path), dataclasses.replace(PLAIN), organs=SEGTHOR)
    journal.begin(0, 1000, 10, resumed=False)
    learner = SimpleNamespace(step=50, rate=0.1, global_batch=4)
    said = []
    for _ in range(5):  # the first call compiles and does not count
        journal.trained(learner, np.zeros(50), 1.0, waited_s)
        said.append("The input limits this run: 50% of" in capsys.readouterr().out)
    assert said == [False, False, told, False, False]


def test_the_program_tells(source, network):
    command = ["-m", "trainer.doctor", f"--data={source.folder}", "--seconds=1", "--batch_size=4"]
    command += ["--shuffle_buffer=1", "--decoder=pspnet", "--backbone=resnet18", "--steps=100"]
    (output,) = finish([start(command, tiny=network == "tiny")])
    assert "limits the run" in output and "ms per batch" in output
    assert "100 steps and" in output and "take about" in output
    assert "raise --shuffle_buffer" in output
    assert "GeneratorDatasetOp" not in output  # nor any other of TensorFlow's notes
    assert not [line for line in output.splitlines() if re.match(r"[IWE]\d{4} |WARNING", line)]
