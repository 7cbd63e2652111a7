"""The model directory: what is in it, what it gives, and how it loads elsewhere."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from programs import run_entry
from tiny_models import save_coded

from segthor import json_files, organs
from segthor.errors import InputError
from segthor.recipe import Recipe, window
from serving.prediction import bundle
from trainer import model, run
from trainer.config import Config

RECIPE = Recipe(crop_mm=32, pixel_mm=1.0, window_width_hu=350)


def every_grey_level_counts(images):
    """Classes by grey level modulo 5: one level more or less is another class."""
    levels = tf.cast(images[..., 1], tf.int32)
    return {"probabilities": tf.one_hot(levels % 5, 5)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("model"))
    training = {"config": {"backbone": "resnet18"}, "score": 0.9}
    table = organs.SEGTHOR
    contents = bundle.Contents(RECIPE, table.names, table, training, {"numpy": "2"})
    bundle.save(folder, every_grey_level_counts, [], contents)
    return folder


def test_assets_explain_the_model(folder):
    assets = Path(folder) / "1" / "assets"
    assert Recipe(**json.loads((assets / "recipe.json").read_text())) == RECIPE
    rows = json.loads((assets / "organs.json").read_text())
    assert rows[0] == {"name": "background", "label": 0, "rgb": [0, 0, 0]}
    assert [(row["name"], row["label"], tuple(row["rgb"])) for row in rows[1:]] == [
        (organ.name, organ.label, organ.rgb) for organ in organs.SEGTHOR
    ]
    assert json.loads((assets / "training.json").read_text())["score"] == 0.9
    assert json.loads((assets / "model.json").read_text())["versions"] == {"numpy": "2"}


def test_what_was_saved_is_what_loads(folder):
    loaded = bundle.load(folder)
    assert (loaded.recipe, loaded.organs) == (RECIPE, organs.SEGTHOR.names)
    assert bundle.label_values(loaded.organs, organs=organs.SEGTHOR).tolist() == [0, 1, 2, 3, 4]
    assert loaded.training["score"] == 0.9
    assert set(loaded.signatures) == {"serving_default", "probabilities", "labels_from_hu"}


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_every_batch_size_gives_as_many_slices(folder, count):
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    found = bundle.load(folder).probabilities(images)
    assert (found.shape, found.dtype) == ((count, 32, 32, 5), np.float32)
    np.testing.assert_array_equal(found, np.eye(5, dtype=np.float32)[images[..., 1] % 5])


def test_labels_from_hu_are_those_of_the_recipes_window_bit_for_bit(folder):
    rng = np.random.default_rng(1)
    hu = rng.integers(-1100, 1500, (6, 32, 32, 3)).astype(np.float32)
    hu[1:3] += rng.normal(0, 1, (2, 32, 32, 3)).astype(np.float32)
    hu[3] = np.linspace(-200, 300, 32 * 32 * 3, dtype=np.float32).reshape(32, 32, 3)
    # 127.5 + 0.5 * 255 / 350 and the like: values at exact halves round up.
    level_hu = np.array([50, 50.5, 137, 12.25, -31, 400], np.float32)
    loaded = tf.saved_model.load(f"{folder}/1")
    found = loaded.signatures["labels_from_hu"](hu=hu, level_hu=level_hu)["labels"]
    images = [window(plane, float(level), 350) for plane, level in zip(hu, level_hu, strict=True)]
    assert found.dtype == tf.uint8
    np.testing.assert_array_equal(found, np.stack(images)[..., 1] % 5)


def test_labels_from_hu_of_no_slices_are_no_labels(folder):
    loaded = tf.saved_model.load(f"{folder}/1")
    none = loaded.signatures["labels_from_hu"](hu=np.zeros((0, 32, 32, 3), "f"), level_hu=[])
    assert none["labels"].shape == (0, 32, 32)


def test_labels_are_the_organs_own_where_the_model_knows_only_some(tmp_path):
    save_coded(tmp_path, names=("heart", "aorta"))
    loaded = bundle.load(str(tmp_path))
    assert bundle.label_values(loaded.organs, organs=organs.SEGTHOR).tolist() == [0, 2, 4]
    hu = np.array([-40, 40, 120, 30], np.float32).reshape(1, 2, 2, 1).repeat(32, 1).repeat(32, 2)
    call = tf.saved_model.load(loaded.folder).signatures["labels_from_hu"]
    found = call(hu=hu, level_hu=[40.0])["labels"].numpy()
    assert found[0, ::32, ::32].tolist() == [[0, 2], [4, 2]]


def test_each_export_is_the_next_version_and_the_newest_is_loaded(tmp_path):
    first = save_coded(tmp_path)
    second = save_coded(tmp_path, training={"second": True})
    assert [Path(first).name, Path(second).name] == ["1", "2"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["1", "2"]
    assert bundle.load(str(tmp_path)).training == {"second": True}
    assert bundle.load(first).training == {}
    assert bundle.load(first).digest == bundle.load(second).digest


def test_the_digest_names_the_weights(tmp_path):
    def save(name, weight):
        variable = tf.Variable([weight, 1.0])
        network = lambda images: {"presence": tf.sigmoid(images[:, 0, 0, :2] * variable)}  # noqa: E731
        contents = bundle.Contents(RECIPE, ("heart", "aorta"), organs.SEGTHOR)
        saved = bundle.save(str(tmp_path / name), network, [variable], contents)
        return bundle.load(saved).digest

    assert save("a", 1.0) == save("b", 1.0) != save("c", 1.001)


def test_a_classifier_gives_presence_and_no_labels(tmp_path):
    def network(images):
        return {"presence": tf.reduce_mean(images, [1, 2])[:, :2] / 255}

    contents = bundle.Contents(RECIPE, ("heart", "aorta"), organs.SEGTHOR)
    saved = bundle.save(str(tmp_path), network, [], contents)
    loaded = bundle.load(saved)
    assert set(loaded.signatures) == {"serving_default", "presence"}
    assert loaded.presence(np.full((3, 32, 32, 3), 255, np.uint8)).tolist() == [[1, 1]] * 3
    assert loaded.presence(np.zeros((0, 32, 32, 3), np.uint8)).shape == (0, 2)
    with pytest.raises(InputError, match="probabilities, found presence"):
        loaded.require("probabilities")


def test_an_export_that_fails_leaves_nothing(tmp_path):
    def breaks_in_the_middle(images):
        variable = tf.Variable([1.0])  # a variable made in a graph is an error
        return {"probabilities": images * variable}

    contents = bundle.Contents(RECIPE, organs.SEGTHOR.names, organs.SEGTHOR)
    with pytest.raises(ValueError):
        bundle.save(str(tmp_path), breaks_in_the_middle, [], contents)
    untracked = tf.Variable(tf.ones([5]))
    with pytest.raises(AssertionError):  # found only while the SavedModel is written
        bundle.save(
            str(tmp_path),
            lambda images: {"probabilities": tf.nn.softmax(images[..., :1] * untracked)},
            [],
            contents,
        )
    assert list(tmp_path.iterdir()) == []


def test_no_model_is_one_clear_line(tmp_path):
    for missing in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="expected a model directory"):
            bundle.load(str(missing))


def test_a_model_that_forgot_its_output_is_refused(tmp_path):
    version = Path(save_coded(tmp_path))
    example = version / "assets" / "example.npz"
    with np.load(example) as stored:
        arrays = dict(stored)
    arrays["probabilities"] = np.roll(arrays["probabilities"], 1, -1)
    np.savez(example, **arrays)
    with pytest.raises(InputError, match="found a difference of 1"):
        bundle.load(str(tmp_path))


def test_damaged_weights_are_refused(tmp_path):
    version = Path(save_coded(tmp_path))
    (weights,) = (version / "variables").glob("variables.data*")
    weights.write_bytes(b"\0" * 7)
    with pytest.raises(InputError, match="cannot be loaded"):
        bundle.load(str(tmp_path))


def test_the_training_record_of_another_model_is_refused(tmp_path):
    record = Path(save_coded(tmp_path)) / "assets" / "training.json"
    stored = json.loads(record.read_text())
    bundle.load(str(tmp_path))
    record.write_text(json.dumps(stored | {"score": 0.99}))
    with pytest.raises(InputError, match="training.json is not of this very model; export"):
        bundle.load(str(tmp_path))


STRANGER = """
import importlib.util, sys
sys.path.append(sys.argv[2])
for absent in ("keras", "tf_keras", "segthor", "serving", "trainer"):
    assert importlib.util.find_spec(absent) is None, absent
import numpy as np, tensorflow as tf
folder = sys.argv[1]
loaded = tf.saved_model.load(folder)
with np.load(folder + "/assets/example.npz") as example:
    found = loaded.signatures["serving_default"](images=tf.constant(example["images"]))
    print(np.abs(found["probabilities"].numpy() - example["probabilities"]).max() < 1e-5)
"""


def packages_without_keras_and_segthor(folder: Path) -> Path:
    """A folder of links to every installed package but those."""
    folder.mkdir()
    for package in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not package.name.lower().startswith(("keras", "tf_keras", "segthor", "__editable__")):
            (folder / package.name).symlink_to(package)
    return folder


def save_run(workdir, config, recipe=RECIPE) -> None:
    """A run of the trainer that ended, of a network that was not trained."""
    tf.keras.utils.set_random_seed(1)
    network = model.build(config, recipe.size_px, recipe.context)
    for variable in network.variables:  # as training would leave them: no two alike
        noise = tf.random.stateless_uniform(variable.shape, [3, 4], -0.01, 0.01)
        variable.assign_add(noise)
    tf.train.CheckpointManager(tf.train.Checkpoint(model=network), str(workdir / "best"), 1).save()
    data, table = run.Data("data", "0"), organs.SEGTHOR
    record = run.RunRecord(config, recipe, config.organs, table, data, 1, None, {})
    (workdir / run.RUN).write_text(json.dumps(record.to_json()))
    (workdir / "summary.json").write_text('{"finished": true, "best": {"dice": 0.5}}')


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(network, model directory, what the entry said) of a run of both tasks, in bfloat16."""
    folder = tmp_path_factory.mktemp("run")
    names = organs.SEGTHOR.names
    config = Config(task="joint", organs=names, backbone="resnet18", precision="bfloat16")
    save_run(folder / "run", config)
    done = run_entry("serving.export", workdir=folder / "run", output=folder / "model")
    assert done.returncode == 0, done.stderr
    return run.restore(str(folder / "run"))[0], folder / "model", done.stdout


def test_the_entry_exports_what_the_trainer_restores(exported):
    network, folder, said = exported
    images = np.random.default_rng(2).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    expected = network(images.astype(np.float32), training=False)
    loaded = bundle.load(str(folder))
    assert loaded.training["summary"]["best"] == {"dice": 0.5}
    for task, found in (
        ("segment", loaded.probabilities(images)),
        ("classify", loaded.presence(images)),
    ):
        assert np.ptp(found) > 0.05
        np.testing.assert_allclose(found, expected[task], atol=1e-5)
    assert "python -m serving.predict" in said


def test_the_arithmetic_is_float32_whatever_the_training_precision(exported):
    call = tf.saved_model.load(str(exported[1] / "1")).signatures["probabilities"]
    graphs = [call.graph, *(f.graph for f in call.graph._functions.values() if hasattr(f, "graph"))]
    kinds = {tensor.dtype for g in graphs for op in g.get_operations() for tensor in op.outputs}
    assert tf.float32 in kinds
    assert not kinds & {tf.bfloat16, tf.float16}


def test_a_stranger_without_keras_and_without_this_package_gets_the_stored_output(
    exported, tmp_path
):
    script = tmp_path / "stranger.py"
    script.write_text(STRANGER)
    packages = packages_without_keras_and_segthor(tmp_path / "packages")
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(script), str(exported[1] / "1"), str(packages)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if "KERAS" not in name},
    )
    assert done.stdout == "True\n", done.stderr


def test_a_folder_without_a_run_is_one_clear_line(tmp_path):
    done = run_entry("serving.export", workdir=tmp_path, output=tmp_path / "model")
    assert done.returncode == 2
    assert "run.json" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "model").exists()


def test_a_model_on_another_file_system_is_the_same_model(tmp_path):
    """A file system of fsspec's that lives in memory stands for an object store."""
    here = bundle.load(save_coded(tmp_path))
    version = save_coded("memory://models/coded")
    assert version == "memory://models/coded/1"
    assert save_coded("memory://models/coded").endswith("/2")
    json_files.write("memory://models/coded/3/assets/model.json", {})  # an upload that was killed
    there = bundle.load("memory://models/coded")
    assert there.digest == here.digest and there.recipe == here.recipe
    images = np.random.default_rng(4).integers(0, 256, (2, 64, 64, 1)).astype(np.uint8)
    np.testing.assert_array_equal(there.probabilities(images), here.probabilities(images))
