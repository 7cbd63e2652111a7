"""OpenVINO in TensorFlow's place: the same probabilities and label maps, named, and kept quiet."""

import json
import os
import subprocess
import sys
from multiprocessing.pool import ThreadPool

import nibabel
import numpy as np
import pytest
from programs import run_entry
from test_predict import affine_of, planted, save_scan
from tiny_models import coded_scan, save_coded

from segthor import organs
from segthor.errors import InputError
from segthor.organs import SEGTHOR
from segthor.recipe import Recipe
from serving.prediction import bundle, engine
from trainer import model
from trainer.config import Config

NAMES = organs.SEGTHOR.names


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """(by TensorFlow, by OpenVINO): a U-Net that outlines, with a head that says what is there."""
    folder = str(tmp_path_factory.mktemp("model"))
    config = Config(task="joint", organs=NAMES, backbone="resnet18")
    network = model.build(config, 64, 3)

    def both(images):
        found = network(images, training=False)
        return {"probabilities": found["segment"], "presence": found["classify"]}

    contents = bundle.Contents(Recipe(crop_mm=64, pixel_mm=1), NAMES, SEGTHOR)
    bundle.save(folder, both, network.variables, contents)
    return [bundle.load(folder, name) for name in engine.ENGINES]


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    """(a model whose labels are known, a folder of two scans, the labels of the first)."""
    folder = tmp_path_factory.mktemp("coded")
    save_coded(folder / "model")
    (folder / "scans").mkdir()
    for seed in (3, 4):
        save_scan(
            folder / "scans" / f"Patient_{seed}.nii.gz", coded_scan(planted(seed=seed)), affine_of()
        )
    return folder / "model", folder / "scans", planted(seed=3)


@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_probabilities_are_tensorflows(networks, count):
    images = np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3)).astype(np.uint8)
    ours, theirs = (one.probabilities(images) for one in networks)
    assert (theirs.shape, theirs.dtype) == (ours.shape, np.float32)
    np.testing.assert_allclose(theirs, ours, atol=1e-4)  # bfloat16 would be off by 1e-2
    first, second = np.sort(ours, -1)[..., -1], np.sort(ours, -1)[..., -2]
    clear = first - second > 2e-4
    assert clear.size == 0 or clear.mean() > 0.9
    np.testing.assert_array_equal(theirs.argmax(-1)[clear], ours.argmax(-1)[clear])


def test_flipped_slices_are_computed_as_flipped(networks):
    images = np.random.default_rng(5).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    ours, theirs = (one.probabilities(np.flip(images, (1, 2))) for one in networks)
    np.testing.assert_allclose(theirs, ours, atol=1e-4)


def test_a_later_batch_leaves_an_earlier_result_as_it_is(networks):
    rng, (_, openvino) = np.random.default_rng(6), networks
    images = rng.integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    found = openvino.probabilities(images)
    before = found.copy()
    openvino.probabilities(255 - images)
    np.testing.assert_array_equal(found, before)


def test_many_batches_at_once_are_those_one_after_the_other(networks):
    rng, (_, openvino) = np.random.default_rng(8), networks
    batches = [rng.integers(0, 256, (2, 64, 64, 3)).astype(np.uint8) for _ in range(24)]
    alone = [openvino.probabilities(batch) for batch in batches]
    with ThreadPool(2 * engine.BATCHES_AT_ONCE[engine.OPENVINO]) as threads:
        together = threads.map(openvino.probabilities, batches, 1)
    np.testing.assert_array_equal(together, alone)


def test_what_is_not_served_by_default_is_tensorflows(networks):
    images = np.random.default_rng(7).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    ours, theirs = (one.presence(images) for one in networks)
    np.testing.assert_array_equal(theirs, ours)


def test_label_maps_are_tensorflows_and_the_engine_is_named(coded, tmp_path):
    model_folder, scans, expected = coded
    maps = {}
    for name in engine.ENGINES:
        done = run_entry("serving.predict", model=model_folder, input=scans,
                         output=tmp_path / name, engine=name)  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = nibabel.load(tmp_path / name / "Patient_3.nii.gz")
        maps[name] = np.asarray(found.dataobj)
        facts = json.loads((tmp_path / name / "cases" / "Patient_3.json").read_text())
        assert facts["engine"] == name
    np.testing.assert_array_equal(maps["openvino"], maps["tensorflow"])
    np.testing.assert_array_equal(maps["openvino"], expected)
    settings = {n: json.loads((tmp_path / n / "predictions.json").read_text()) for n in maps}
    assert settings["openvino"]["engine"] == "openvino"
    assert "engine" not in settings["tensorflow"]  # as jobs of before have it, which go on


def test_one_folder_holds_the_results_of_one_engine(coded, tmp_path):
    model_folder, scans, _ = coded
    flags = {"model": model_folder, "input": scans, "output": tmp_path / "out"}
    assert run_entry("serving.predict", **flags).returncode == 0
    done = run_entry("serving.predict", **flags, engine="openvino")
    assert done.returncode == 2
    assert "holds predictions made with another engine" in done.stderr
    assert run_entry("serving.predict", **flags, engine="openvino", overwrite=True).returncode == 0


def test_the_stored_example_is_tried_on_the_engine(coded, monkeypatch):
    def wrong(path):
        return {"probabilities": lambda images: np.full((*images.shape[:3], 5), 0.2, np.float32)}

    monkeypatch.setattr(engine, "with_openvino", wrong)
    with pytest.raises(InputError, match="expected the stored output of the stored example"):
        bundle.load(str(coded[0]), engine.OPENVINO)


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"pip install segthor\[openvino\]"):
        engine.require(engine.OPENVINO)
    engine.require(engine.TENSORFLOW)


def test_what_it_cannot_read_is_one_line(tmp_path):
    with pytest.raises(InputError, match="OpenVINO cannot read the model") as caught:
        engine.with_openvino(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_it_tells_nobody_that_it_was_used(coded, tmp_path):
    """OpenVINO's package would leave notes in the user's home and send them to its makers."""
    version = coded[0] / "1"
    script = f"from serving.prediction import engine; engine.with_openvino({str(version)!r})"
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | {"HOME": str(home)},
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(home.iterdir()) == []
