"""A run that starts from another: what it takes, what it leaves, and what is refused."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import slices
import tensorflow as tf
from programs import as_flags, finish, start
from programs import run as program
from segmentation_models.backbones.backbones_factory import Backbones
from test_export import save_run
from test_trainer import command, last_step
from tiny_models import save_coded

from segthor import model_directory
from segthor.errors import InputError
from segthor.organs import SEGTHOR
from segthor.recipe import Recipe
from serving.prediction import bundle, example
from trainer import data, layers, model, run, sources
from trainer import start as starts
from trainer.config import Config
from trainer.learner import Learner

RECIPE = Recipe(crop_mm=96, pixel_mm=1.0)
NETWORK = {"backbone": "resnet18", "decoder": "pspnet"}
THERE = Config(**NETWORK, organs=("aorta", "heart", "trachea"), encoder_weights="imagenet")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """(run, model exported of it), both of `THERE`, scaled as published weights want it."""
    return save_earlier(tmp_path_factory.mktemp("earlier"))


def save_earlier(folder, tiny=False):
    save_run(folder / "run", dataclasses.replace(THERE, encoder_weights="none"), RECIPE)
    record = json.loads((folder / "run" / run.RUN).read_text())
    record["config"]["encoder_weights"] = "imagenet"
    (folder / "run" / run.RUN).write_text(json.dumps(record))
    flags = as_flags(workdir=folder / "run", output=folder / "model")
    done = program(["-m", "serving.export", *flags], tiny=tiny)
    assert done.returncode == 0, done.stderr
    return folder / "run", folder / "model"


def begun(path, size=96, context=3, **chosen):
    """(network, what `load_weights` says) of a configuration that starts there."""
    config = Config(**NETWORK | {"organs": THERE.organs} | chosen, start_from=str(path))
    config = starts.resolve_start(config, "/nowhere")
    network = model.build(config, size, context)
    return network, starts.load_weights(network, config)


def images(size=96):
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype(np.float32)


def test_from_a_run_or_its_export_the_first_predictions_are_the_same_bit_for_bit(earlier):
    expected = run.restore(str(earlier[0]))[0](images(), training=False)["segment"].numpy()
    assert np.ptp(expected) > 0.05
    said = []
    for path in earlier:
        network, taken = begun(path)
        found = network(images(), training=False)["segment"].numpy()
        np.testing.assert_array_equal(found, expected)
        assert taken["fresh"] == [] and taken["organs"] == list(THERE.organs)
        assert taken["taken"] == len(network.variables)
        said.append(taken["digest"])
    assert said[0] == said[1] == bundle.load(str(earlier[1])).digest
    exported = bundle.load(str(earlier[1])).probabilities(images().astype(np.uint8))
    np.testing.assert_allclose(exported, expected, atol=example.EXAMPLE_TOLERANCE)


def test_outputs_go_with_the_organs_names_and_a_new_organ_starts_fresh(earlier):
    old = layers.weights_by_name(run.restore(str(earlier[0]))[0])
    tf.keras.utils.set_random_seed(7)
    fresh = layers.weights_by_name(
        model.build(Config(**NETWORK, organs=("heart", "liver", "aorta")), 48, 3)
    )
    tf.keras.utils.set_random_seed(7)
    network, taken = begun(
        earlier[1], 48, organs=("heart", "liver", "aorta")
    )  # another matrix, too
    for weight in ("kernel", "bias"):
        found = layers.weights_by_name(network)[f"segment_head/{weight}"].numpy()
        there = old[f"segment_head/{weight}"].numpy()  # background, aorta, heart, trachea
        np.testing.assert_array_equal(found[..., [0, 1, 3]], there[..., [0, 2, 1]])
        new = fresh[f"segment_head/{weight}"].numpy()[..., 2]
        np.testing.assert_array_equal(found[..., 2], new)
    assert (taken["organs"], taken["fresh_organs"]) == (["heart", "aorta"], ["liver"])
    assert "organs known there: heart, aorta; new organs: liver" in starts.describe_start(taken)


def test_what_has_another_shape_or_is_not_there_stays_fresh_and_is_named(earlier):
    network, taken = begun(earlier[1], 48, context=5)
    assert {name.partition("/")[0] for name in taken["fresh"]} == {"bn_data", "conv0"}
    network, taken = begun(earlier[1], 64, task="joint", decoder="unet")
    fresh = {name.partition("/")[0] for name in taken["fresh"]}
    assert "classify_head" in fresh and "decoder_stage0a_conv" in fresh and "conv0" not in fresh
    assert "and " in starts.describe_start(taken) and "classify_head" in starts.describe_start(
        taken
    )


@pytest.mark.parametrize("decoder", ["unet", "fpn", "linknet", "pspnet"])
def test_weights_have_one_name_each_in_every_network_and_the_encoder_is_the_librarys(decoder):
    config = Config(backbone="vgg16", decoder=decoder, organs=("heart",), task="joint")
    first, second = (model.build(config, 96, 3) for _ in range(2))
    assert list(layers.weights_by_name(first)) == list(layers.weights_by_name(second))
    assert not any(name.startswith("conv2d") for name in layers.weights_by_name(first))
    keras = {n: getattr(tf.keras, n) for n in ("backend", "layers", "models", "utils")}
    library = Backbones.get_backbone(
        "vgg16", input_shape=(96, 96, 3), weights=None, include_top=False, **keras
    )
    known = [layer.name for layer in library.layers if layer.weights]
    found = [layer.name for layer in layers.encoder(first)]
    assert found == known[: len(found)] and len(found) >= 7
    assert decoder == "pspnet" or found == known


def test_layers_that_keras_numbers_have_the_same_names_in_every_network():
    config = Config(backbone="inceptionv3", decoder="pspnet", organs=("heart",))
    first, second = (layers.weights_by_name(model.build(config, 96, 3)) for _ in range(2))
    assert list(first) == list(second) and "conv2d_1/kernel" in first
    assert [v.shape for v in first.values()] == [v.shape for v in second.values()]
    assert [v.name for v in first.values()] != [v.name for v in second.values()]


def test_a_frozen_encoder_stays_as_it_is_and_then_learns(tmp_path, network):
    slices.make(tmp_path, size=96)
    source = sources.open_source(str(tmp_path), None)
    config = Config(**NETWORK, organs=("heart",), batch_size=4, freeze_encoder_steps=2)
    learner = Learner(config, source, tf.distribute.get_strategy(), 10)
    encoder = {name for layer in layers.encoder(learner.model) for name in [layer.name]}
    batches = iter(data.per_replica(data.training(source, config, 4), 4))

    def changed(before):
        now = {name: v.numpy() for name, v in layers.weights_by_name(learner.model).items()}
        return now, {n.partition("/")[0] for n in now if not np.array_equal(now[n], before.get(n))}

    before, _ = changed({})
    learner.train(batches, tf.constant(2))
    frozen, layers_changed = changed(before)
    first = {"tiny": layers.SEGMENT_HEAD, "resnet18": "psp_level1_conv"}[network]
    assert first in layers_changed and not encoder & layers_changed
    learner.train(batches, tf.constant(2))
    assert encoder <= changed(frozen)[1]
    learner.finish_average()
    assert learner.step == 4


def test_what_cannot_be_started_from_is_one_line(earlier, tmp_path):
    def refused(message, path, **chosen):
        with pytest.raises(InputError, match=message):
            begun(path, **chosen)

    refused("expected a run or an exported model, found none", tmp_path / "nowhere")
    refused(
        "expected a network with --backbone=resnet34 as in this run, found resnet18",
        earlier[1],
        backbone="resnet34",
    )
    save_coded(tmp_path / "nameless")
    refused("exported without the names of its weights", tmp_path / "nameless")
    for number, (name, change) in enumerate(
        [("weights.json", lambda text: text.replace(b"conv0", b"conv1")),
         ("model.json", lambda text: text.replace(b'"digest": "', b'"digest": "0'))]
    ):  # fmt: skip
        shutil.copytree(earlier[1], tmp_path / str(number))
        path = tmp_path / str(number) / "1" / "assets" / name
        path.write_bytes(change(path.read_bytes()))
        refused("the weights are not those that were exported", tmp_path / str(number))
        with pytest.raises(InputError, match="are not those that were exported"):
            bundle.load(str(tmp_path / str(number)))
    shutil.copytree(earlier[1], tmp_path / "damaged")
    (weights,) = (tmp_path / "damaged/1/variables").glob("variables.data*")
    weights.write_bytes(weights.read_bytes()[:1000])
    refused("the weights cannot be read", tmp_path / "damaged")


@pytest.mark.parametrize(
    "made, message",
    [
        ([], "expected a run or an exported model, found none"),
        (["1/"], "expected a run or an exported model, found none"),
        (["1"], "expected a run or an exported model, found none"),
        (["\u00b2/saved_model.pb"], "expected a run or an exported model, found none"),
        (["1/saved_model.pb", "1/assets/"], "exported without the names of its weights"),
        (["1/saved_model.pb", "1/assets/weights.json/"], "weights.json: cannot be read"),
        (["run.json/"], "run.json: cannot be read"),
        (["run.json"], "run.json: expected JSON"),
    ],
)
def test_odd_folders_to_start_from_are_one_line(tmp_path, made, message):
    for name in made:
        path = tmp_path / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(b"")
    with pytest.raises(InputError, match=message):
        starts.resolve_start(Config(start_from=str(tmp_path)), str(tmp_path / "new"))


@pytest.mark.parametrize("name", ["a\nb", "x" * 5000, "x/" * 3000, "a\0b", "\udcff", "gs:/", "#"])
def test_odd_names_to_start_from_are_one_line(tmp_path, name):
    for made in (name, f"{tmp_path}/{name}"):
        with pytest.raises(InputError, match="expected a run or an exported model, found none"):
            starts.resolve_start(Config(start_from=made), str(tmp_path / "new"))


def test_a_model_from_before_weights_had_names_keeps_its_digest():
    weights = [np.arange(3, dtype=np.float32)]
    found = model_directory.weights_digest(weights, Recipe(), ("heart",), organs=SEGTHOR)
    assert found == "5cacf42342db1ace"
    assert (
        model_directory.weights_digest(
            weights, Recipe(), ("heart",), weight_names=["a"], organs=SEGTHOR
        )
        != found
    )


def test_the_trainer_starts_from_a_model_says_so_and_goes_on_without_it(tiny, tmp_path):
    slices.make(tmp_path / "data", size=96)
    earlier = save_earlier(tmp_path / "earlier", tiny=True)
    shutil.copytree(earlier[1], tmp_path / "model")
    flags = ["--organs=heart,esophagus", f"--start_from={tmp_path}/model", "--steps=2"]
    flags += ["--checkpoint_every=1", "--learning_rate=1e-9", *slices.NO_AUGMENTATION]
    train = command(tmp_path / "data", tmp_path / "run", *flags)
    (output,) = finish([start(train, tiny=True)])
    assert "organs known there: heart; new organs: esophagus" in output
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["start"]["fresh_organs"] == ["esophagus"] and record["start"]["fresh"] == []
    assert record["config"]["encoder_weights"] == "imagenet"  # so the images are scaled as there
    there = layers.weights_by_name(run.restore(str(earlier[0]))[0])["conv0/kernel"].numpy()
    found = layers.weights_by_name(run.restore(str(tmp_path / "run"))[0])["conv0/kernel"].numpy()
    np.testing.assert_allclose(found, there, atol=1e-6)
    shutil.rmtree(tmp_path / "model")
    (output,) = finish([start(train, tiny=True)])
    assert "Continuing at step 2" in output and last_step(tmp_path / "run") == 2
