"""The audit sees what leaves a GPU; training step, evaluation and signatures leave nothing."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import slices
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver
from tiny_models import CODED_RECIPE, reads_codes

from segthor import flags_of
from segthor.organs import SEGTHOR
from serving.prediction import bundle, signatures
from trainer import (
    augment,
    data,
    main,  # noqa: F401  which defines the flags
    placement,
    sources,
    warp,
)
from trainer.config import DECODERS, PRECISIONS, Config
from trainer.learner import Learner
from trainer.strengths import Strengths

ROOT = Path(__file__).resolve().parents[1]
SIZE, BATCH = 64, 4
COMMON = {"batch_size": BATCH, "shuffle_buffer": 16}
FAMILIES = (
    *("vgg16", "resnet18", "resnext50", "seresnet18", "seresnext50", "densenet121"),
    *("inceptionv3", "inceptionresnetv2", "mobilenet", "mobilenetv2", "efficientnetb0"),
)
IMAGES = tf.TensorSpec([16, SIZE, SIZE, 3], tf.float32)


def audit_of(function, *specs):
    return placement.audit(tf.function(function).get_concrete_function(*specs))


def kinds(operations):
    return [operation.kind for operation in operations]


def audit_of_augmentation():
    return audit_of(
        lambda *values: augment.augment(*values, Strengths(flip_left_right=0.5)),
        tf.TensorSpec([16, SIZE, SIZE, 3], tf.uint8),
        tf.TensorSpec([16, SIZE, SIZE], tf.uint8),
        tf.TensorSpec([16], tf.int32),
        tf.TensorSpec([2], tf.int32),
    )


def test_a_type_without_a_gpu_kernel_is_named_with_the_line_that_made_it():
    found = audit_of(
        lambda values: tf.gather(tf.constant(np.arange(9, dtype=np.uint8)), values),
        tf.TensorSpec([16, SIZE, SIZE], tf.int64),
    )
    assert kinds(found.without_kernel) == ["GatherV2"]
    assert found.without_kernel[0].line.startswith("tests/test_placement.py:")
    assert (found.without_kernel[0].dtype, found.without_kernel[0].shape) == ("int64", (16, 64, 64))


def test_large_sums_of_int32_are_the_hosts_and_small_ones_and_others_are_not():
    for dtype, size, expected in (
        (tf.int32, SIZE, ["AddV2"]),
        (tf.int32, 1, []),
        (tf.int64, SIZE, []),
        (tf.float32, SIZE, []),
    ):
        found = audit_of(lambda values: values + 1, tf.TensorSpec([16, size, size], dtype))
        assert kinds(found.in_host_memory) == expected


def test_a_loop_over_examples_is_a_loop_and_what_is_inside_is_seen():
    found = audit_of(lambda images: tf.map_fn(lambda x: tf.raw_ops.Digamma(x=x), images), IMAGES)
    assert len(found.loops) == 1
    found = audit_of(
        lambda images: tf.map_fn(lambda x: tf.cast(x, tf.int32) + 1, images, tf.int32), IMAGES
    )
    assert "AddV2" in kinds(found.in_host_memory)


def test_what_the_host_wants_to_know_of_the_device_is_named():
    def until_small(images):
        while tf.reduce_max(images) > 1:
            images /= 2
        return images

    assert kinds(audit_of(until_small, IMAGES).to_host) == ["Greater"]

    def three_times(images):
        left = tf.constant(3)  # int32 is the host's
        while left > 0:
            images /= 2
            left -= 1
        return images

    assert not audit_of(three_times, IMAGES).to_host


def test_launches_are_counted_by_hand():
    def compute(images):
        shape = tf.shape(images)  # the host's
        return tf.reshape(tf.exp(images) * 2, [shape[0], -1])  # two

    assert audit_of(compute, IMAGES).launches.total() == 2
    compiled = tf.function(compute, jit_compile=True)
    assert audit_of(lambda images: compiled(images) + 1, IMAGES).launches.total() == 2


def test_augmentation_stays_on_the_device():
    found = audit_of_augmentation()
    assert not (found.without_kernel or found.in_host_memory or found.loops or found.to_host)
    assert set(found.launches) == {placement.AUGMENTATION}


def test_a_gather_of_uint8_put_back_is_found(monkeypatch):
    def resample(images, labels, rows, columns):
        del columns
        at = tf.cast(rows, tf.int32)
        return tf.cast(images, tf.float32), tf.gather(tf.reshape(labels, [-1]), at)

    monkeypatch.setattr(warp, "resample", resample)
    assert kinds(audit_of_augmentation().without_kernel) == ["GatherV2"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    slices.make(folder, size=96)
    return sources.open_source(str(folder), None)


def check_step_and_evaluation(source, config):
    learner = Learner(config, source, tf.distribute.get_strategy(), 10)
    rows = data.per_replica(data.training(source, config, BATCH), BATCH)
    found = placement.audit(learner.trace_training(iter(rows)))
    assert not (found.without_kernel or found.in_host_memory)
    assert [loop.line.partition(":")[0] for loop in found.loops] == ["trainer/learner.py"]
    assert not found.to_host  # the loop over the steps never waits for the device
    assert found.launches[placement.UPDATE] == 1
    batch = next(iter(data.per_replica(data.evaluation(source, BATCH), BATCH)))
    found = placement.audit(learner.counts.get_concrete_function(batch))
    assert not (found.without_kernel or found.in_host_memory or found.loops)
    assert all(np.prod(one.shape) < placement.LARGE for one in found.to_host)  # the counts
    return learner


@pytest.mark.parametrize(
    "chosen",
    [
        {"backbone": "resnet18", "precision": "float16", "task": "joint"},
        pytest.param(
            {"backbone": "mobilenetv2", "decoder": "fpn", "optimizer": "sgd", "loss": "bce_dice"},
            marks=pytest.mark.thorough,
        ),
    ],
    ids=lambda chosen: chosen["backbone"],
)
def test_step_and_evaluation_stay_on_the_device(source, chosen):
    check_step_and_evaluation(source, Config(organs=slices.NAMES, **COMMON | chosen))


@pytest.mark.thorough
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", sorted(path.stem for path in ROOT.glob("configs/*.flags")))
def test_every_flag_file_stays_on_the_device(source, name, precision):
    chosen = Config()
    with flagsaver.flagsaver():
        try:
            flags.FLAGS(["trainer.main", f"--flagfile={ROOT}/configs/{name}.flags"])
        except flags.UnrecognizedFlagError:
            pytest.skip("of the data job")
        chosen = flags_of.read(Config).of_table(source.organs)
    # Oversampling concerns the order of the slices, and needs counts that this dataset lacks.
    small = {"encoder_weights": "none", "batch_size": BATCH, "oversample": 0.0}
    small["precision"] = precision
    check_step_and_evaluation(source, dataclasses.replace(chosen, **small))


@pytest.mark.thorough
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("backbone", FAMILIES)
def test_every_decoder_and_family_stays_on_the_device(source, backbone, decoder):
    config = Config(organs=slices.NAMES, **COMMON, backbone=backbone, decoder=decoder)
    learner = check_step_and_evaluation(source, config)
    check_signatures(
        lambda images: {bundle.PROBABILITIES: learner.model(images)["segment"]},
        source.dataset.recipe,
    )


def check_signatures(network, recipe=CODED_RECIPE):
    values = bundle.label_values(slices.NAMES, SEGTHOR)
    for signature in signatures.make(network, recipe, values).values():
        found = placement.audit(signature)
        assert not (found.without_kernel or found.in_host_memory or found.loops)


def test_the_exported_signatures_stay_on_the_device():
    check_signatures(reads_codes()[0])


@pytest.mark.thorough
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_compiled_step_has_the_same_losses(source, decoder):
    # Adam divides a gradient by its size: where it is nearly 0, a rounding error changes the weight
    # by the whole learning rate. SGD keeps such differences small over many steps.
    sgd = {"optimizer": "sgd", "learning_rate": 0.02}

    def losses(xla):
        tf.keras.utils.set_random_seed(1)
        config = Config(
            **COMMON, **sgd, organs=slices.NAMES, backbone="resnet18", decoder=decoder, xla=xla
        )
        learner = Learner(config, source, tf.distribute.get_strategy(), 20)
        rows = data.per_replica(data.training(source, config, BATCH), BATCH)
        return learner.train(iter(rows), tf.constant(20))[0].numpy()

    np.testing.assert_allclose(losses(True), losses(False), rtol=2e-2)
