"""The networks: shapes, scaling, weights from files, precision; and the learning rate."""

import dataclasses
import functools
import inspect
import re
import sys
import types

import efficientnet.model as eff
import numpy as np
import pytest
import tensorflow as tf
from classification_models.weights import WEIGHTS_COLLECTION
from segmentation_models.backbones.backbones_factory import Backbones

from segthor import fields
from segthor.errors import InputError
from segthor.organs import SEGTHOR, Organ, Organs
from trainer import layers, model, schedules, weights
from trainer.config import BACKBONES, DECODERS, Config
from trainer.strengths import Strengths

SMALL = Config(backbone="resnet18", organs=SEGTHOR.names)


def images(count=2, size=32, context=3, seed=0):
    shape = (count, size, size, context)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def size_of(decoder):
    return 96 if decoder == "pspnet" else 32


@functools.cache
def built(decoder, xla):
    """A network for tests that leave its weights as they are."""
    config = dataclasses.replace(SMALL, decoder=decoder, xla=xla)
    return model.build(config, size_of(decoder), 3)


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_decoder_gives_probabilities_of_every_voxel(decoder):
    size = size_of(decoder)
    output = built(decoder, False)(images(size=size))["segment"].numpy()
    assert output.shape == (2, size, size, 5) and output.dtype == np.float32
    np.testing.assert_allclose(output.sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("decoder", DECODERS)
def test_an_organ_begins_with_a_hundredth_of_the_pixels(decoder):
    for xla in (False, True):
        network = built(decoder, xla)
        kernel = layers.weights_by_name(network)[f"{layers.SEGMENT_HEAD}/kernel"]
        before = kernel.numpy()
        kernel.assign(tf.zeros_like(kernel))
        share = network(images(size=size_of(decoder)))["segment"].numpy()
        kernel.assign(before)
        np.testing.assert_allclose(share[..., 1:] / share[..., :1], 0.01, rtol=1e-5)


def test_heads_follow_the_task_and_the_organs():
    chosen = {"organs": ("trachea", "aorta"), "backbone": "resnet18"}
    assert model.build(Config(**chosen), 32, 1).output_shape == {"segment": (None, 32, 32, 3)}
    classifier = model.build(Config(**chosen, task="classify", loss="focal"), 32, 3)
    assert classifier(images())["classify"].shape == (2, 2)
    joint = model.build(Config(**chosen, task="joint"), 32, 3)
    output = joint(images())
    assert output["segment"].shape == (2, 32, 32, 3) and output["classify"].shape == (2, 2)
    assert ((output["classify"].numpy() >= 0) & (output["classify"].numpy() <= 1)).all()
    # one encoder: the joint network is the classifier and a decoder, not two encoders
    assert joint.count_params() < 1.5 * classifier.count_params()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_computes_inside_and_ends_in_float32(precision):
    network = model.build(dataclasses.replace(SMALL, precision=precision), 32, 3)
    body = network.get_layer("resnet18")
    assert body.output["segment"].dtype == precision
    assert all(weight.dtype == "float32" for weight in network.trainable_variables)
    assert (
        network.output["segment"].dtype
        == network.get_layer("segment_logits").output.dtype
        == "float32"
    )
    assert tf.keras.mixed_precision.global_policy().name == "float32"


def test_upsampling_for_xla_is_the_same_network():
    plain, compiled = built("unet", False), model.build(dataclasses.replace(SMALL, xla=True), 32, 3)
    compiled.set_weights(plain.get_weights())
    outlined, expected = compiled(images())["segment"], plain(images())["segment"]
    np.testing.assert_allclose(outlined, expected, atol=1e-6)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_images_are_scaled_as_the_published_weights_were_trained(backbone):
    import segmentation_models as sm

    x = images(1, 8).astype(np.float32)
    expected = sm.get_preprocessing(backbone)(x.copy())
    for layer in weights.scaling(backbone):
        x = layer(x)
    np.testing.assert_allclose(x, expected, atol=1e-4)


def asked_for(backbone):
    """What the library fetches for the encoder: file, address, checksum ('' for none)."""

    class Asked(Exception):
        pass

    def get_file(name, url, file_hash="", **_):
        raise Asked(name, url, file_hash)

    utils = types.SimpleNamespace(**vars(tf.keras.utils) | {"get_file": get_file})
    keras = {n: getattr(tf.keras, n) for n in ("backend", "layers", "models")}
    with pytest.raises(Asked) as asked:
        Backbones.get_backbone(
            backbone, input_shape=(224, 224, 3), weights="imagenet", include_top=False,
            **keras, utils=utils,
        )  # fmt: skip
    return asked.value.args


def test_every_encoder_of_the_library_is_there():
    assert sorted(BACKBONES) == sorted(Backbones.models_names())


# seresnet50 takes three seconds to build twice.
@pytest.mark.parametrize(
    "backbone",
    ["mobilenetv2", "seresnet18", pytest.param("seresnet50", marks=pytest.mark.thorough)],
)
def test_a_classifier_looks_at_the_encoders_deepest_layer(backbone):
    config = Config(task="classify", loss="ce", backbone=backbone, organs=("heart",))
    body = model.build(config, 32, 3).get_layer(backbone)
    keras = {n: getattr(tf.keras, n) for n in ("backend", "layers", "models", "utils")}
    shape = {"input_shape": (32, 32, 3), "weights": None, "include_top": False}
    library = Backbones.get_backbone(backbone, **shape, **keras)
    assert body.output["classify"].shape == library.output.shape
    assert len(body.get_weights()) == len(library.get_weights())


@pytest.mark.parametrize("backbone, chosen", weights.PUBLISHED)
def test_the_table_of_weights_is_the_libraries_own(backbone, chosen):
    name, folder, md5 = weights.PUBLISHED[backbone, chosen]
    if backbone.startswith("efficientnet"):
        stem = backbone.replace("efficientnetb", "efficientnet-b")
        assert (folder, md5) == (eff.BASE_WEIGHTS_PATH, eff.WEIGHTS_HASHES[stem][1])
        assert name == f"{stem}_weights_tf_dim_ordering_tf_kernels_autoaugment_notop.h5"
        assert "'_weights_tf_dim_ordering_tf_kernels_autoaugment_notop.h5'" in inspect.getsource(
            eff
        )
    elif backbone.startswith("mobilenet"):  # joins the name while it builds
        assert asked_for(backbone) == (name, folder + name, md5)
    elif backbone.startswith(("res", "se")):
        (row,) = [
            row
            for row in WEIGHTS_COLLECTION
            if (row["model"], row["dataset"]) == (backbone, chosen) and not row["include_top"]
        ]
        assert (row["name"], row["url"], row["md5"]) == (name, folder + name, md5)
    else:  # stated in the code that builds the encoder, in pieces
        builder = inspect.unwrap(Backbones.models[backbone][0])
        source = inspect.getsource(sys.modules[builder.__module__])
        joined = re.sub(r"[\s'\"()+]", "", source)
        assert name in joined and md5 in joined and folder in joined


def saved_encoder(path, backbone="resnet18"):
    """An h5 file as the library publishes them, with weights of our own."""
    keras = {n: getattr(tf.keras, n) for n in ("backend", "layers", "models", "utils")}
    encoder = Backbones.get_backbone(
        backbone, input_shape=(32, 32, 3), weights=None, include_top=False, **keras
    )
    for weight in encoder.weights:
        if weight.shape == (3,):  # of the BatchNorm before the first convolution
            weight.assign([30.0, 60.0, 90.0])
    encoder.save_weights(path)
    return next(w.numpy() for w in encoder.weights if w.shape.rank == 4)


def test_the_encoder_starts_from_a_file_or_a_folder(tmp_path):
    path = str(tmp_path / "resnet18_imagenet_1000_no_top.h5")
    first = saved_encoder(path)
    network = model.build(dataclasses.replace(SMALL, encoder_weights=path), 32, 3)
    np.testing.assert_array_equal(
        network.get_layer("resnet18").get_layer("conv0").get_weights()[0], first
    )
    with pytest.raises(InputError, match="expected md5 318e3ac0cd98d51e917526c9f62f0b50"):
        weights.find_file(str(tmp_path), "resnet18")
    with pytest.raises(InputError, match="resnet34_imagenet_1000_no_top.h5 from https.*md5 8caaa"):
        weights.find_file(str(tmp_path), "resnet34")


@pytest.mark.parametrize("backbone, context", [("resnet18", 1), ("resnet18", 7), ("vgg16", 5)])
def test_equal_slices_give_what_the_published_network_gives(backbone, context, tmp_path):
    path = str(tmp_path / "published.h5")
    saved_encoder(path, backbone)
    config = Config(
        organs=("heart",), task="classify", loss="ce", backbone=backbone, encoder_weights=path
    )
    published, spread = model.build(config, 32, 3), model.build(config, 32, context)
    heads = [network.get_layer(layers.CLASSIFY_HEAD) for network in (published, spread)]
    heads[1].set_weights(heads[0].get_weights())
    image = np.random.default_rng(0).uniform(0, 255, [2, 32, 32, 1]).astype(np.float32)
    expected, found = (
        tf.keras.Model(network.input, network.get_layer("classify_logits").output)(
            np.repeat(image, network.input.shape[-1], -1)
        ).numpy()
        for network in (published, spread)
    )
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_middle_slice_weighs_most():
    kernel = np.ones([3, 3, 3, 1])
    found = weights.spread(kernel, 7)[0, 0, :, 0]
    np.testing.assert_allclose(found, np.array([2, 3, 6, 11, 6, 3, 2]) / 11)


def test_a_published_name_means_the_published_weights_whatever_lies_here(tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr(weights, "_download", lambda *entry: fetched.append(entry) or "published")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet").mkdir()
    assert weights.find_file("imagenet", "resnet18") == "published"
    (tmp_path / "imagenet11k").write_bytes(b"")
    with pytest.raises(InputError, match="expected one of none, imagenet for vgg16.*imagenet11k"):
        weights.find_file("imagenet11k", "vgg16")
    (tmp_path / "none").write_bytes(b"")
    assert weights.find_file("none", "resnet18") is None
    assert len(fetched) == 1
    with pytest.raises(InputError, match="./imagenet holds no weights of resnet18"):
        weights.find_file("./imagenet", "resnet18")
    assert weights.find_file("./imagenet11k", "resnet18") == "./imagenet11k"
    (tmp_path / "mine.h5").write_bytes(b"")
    assert weights.find_file("mine.h5", "resnet18") == "mine.h5"


def test_a_file_that_holds_no_weights_of_the_encoder_is_refused(tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(b"no HDF5")
    with pytest.raises(InputError, match="weights.h5 holds no weights of resnet18"):
        model.build(dataclasses.replace(SMALL, encoder_weights=str(path)), 32, 3)
    saved_encoder(str(path))
    with pytest.raises(InputError, match="weights.h5 holds no weights of resnet34"):
        model.build(Config(backbone="resnet34", encoder_weights=str(path)), 32, 3)


def test_weights_that_cannot_be_fetched_are_named_with_address_and_md5(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(weights, "_CACHE", str(tmp_path))
    monkeypatch.setattr(tf.keras.utils, "get_file", offline)
    with pytest.raises(
        InputError, match="https://.*no_top.h5 could not be downloaded.*md5 318e3ac0"
    ):
        weights.find_file("imagenet", "resnet18")
    with pytest.raises(InputError, match="expected one of none, imagenet for vgg16"):
        weights.find_file("imagenet11k", "vgg16")


def test_a_size_that_the_pyramid_cannot_pool_is_refused():
    with pytest.raises(InputError, match="multiple of 48 pixels, found 256"):
        model.build(dataclasses.replace(SMALL, decoder="pspnet"), 256, 3)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"task": "detect"}, "task: expected one of segment"),
        ({"task": "classify", "loss": "dice"}, "loss: expected ce or focal"),
        ({"task": "classify", "loss": "ce", "surface_distances": True}, "a segmentation task"),
        ({"organs": ("heart", "heart")}, "organs: expected names of organs, each once"),
        ({"steps": 0, "epochs": 0}, "steps: expected steps or epochs above 0"),
    ],
)
def test_choices_that_cannot_work_are_refused_at_once(wrong, message):
    with pytest.raises(InputError, match=message):
        Config(**wrong)


def test_the_organs_are_the_datasets_and_all_of_them_where_none_is_named():
    table = Organs((Organ("liver", 3, (1, 2, 3)), Organ("colon", 1, (4, 5, 6))))
    assert Config().of_table(table).organs == ("liver", "colon")
    assert Config(organs=("colon",)).of_table(table).organs == ("colon",)
    with pytest.raises(InputError, match="--organs: expected some of liver, colon, found heart"):
        Config(organs=("heart",)).of_table(table)


def test_a_configuration_survives_json():
    config = Config(organs=("heart",), ema=0.5, augment=Strengths(noise=0.3))
    assert fields.from_json(Config, config.to_json(), "config") == config


def rates(total=100, **chosen):
    config = Config(learning_rate=2.0, warmup=0.25, **chosen)
    steps = range(total + 1)
    return np.array([schedules.learning_rate(config, step, total, 0.5) for step in steps])


def test_onecycle_rises_for_the_warmup_and_falls_to_nearly_nothing():
    found = rates(schedule="onecycle")
    assert np.argmax(found) == 25 and found[25] == pytest.approx(2.0)
    assert found[0] == pytest.approx(2.0 / 25) and found[-1] == pytest.approx(2e-4, rel=1e-2)
    assert (np.diff(found[:26]) > 0).all() and (np.diff(found[25:]) < 0).all()
    assert found[63] == pytest.approx(2 * (1e-4 + (1 - 1e-4) * (1 + np.cos(np.pi * 38 / 75)) / 2))


def test_cosine_warms_up_linearly():
    found = rates(schedule="cosine")
    np.testing.assert_allclose(found[:25], 2 * np.arange(1, 26) / 25, rtol=1e-5)
    assert found[-1] == pytest.approx(0, abs=1e-6) and (np.diff(found[26:]) < 0).all()


@pytest.mark.parametrize("schedule", ["onecycle", "cosine"])
def test_a_timed_run_has_the_rates_of_one_whose_length_was_given_bit_for_bit(schedule):
    """Its length is a variable, which TensorFlow cannot fold into the graph as it does a number."""
    config, total = Config(schedule=schedule), 819
    length = tf.Variable(total)

    def compiled(of_total):
        rate = tf.function(lambda step: schedules.learning_rate(config, step, of_total(), 1.0))
        return [float(rate(tf.constant(step))) for step in range(total)]

    timed = compiled(lambda: tf.cast(length, tf.float32))
    assert timed == compiled(lambda: total)


def test_plateau_follows_the_drop_and_constant_stays():
    np.testing.assert_allclose(rates(schedule="plateau"), 1.0)
    np.testing.assert_allclose(rates(schedule="constant"), 2.0)
