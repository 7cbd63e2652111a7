"""Another project's settings of Keras, TensorFlow and matplotlib change no result of ours."""

import json
import os
import subprocess
import sys

import pytest

# As a program does it: flags parsed, TensorFlow loaded, a network built, run and trained a step.
PROGRAM = """
import hashlib, sys
import numpy as np
from trainer.config import Config
from segthor import plots, startup
startup.load_tensorflow()
import tensorflow as tf
from tests import tiny_network
from trainer import model
tiny_network.install()
tf.keras.utils.set_random_seed(1)
config = Config(organs=("heart",), backbone="resnet18", decoder="pspnet", encoder_weights="none")
network = model.build(config, 96, 3, load_published=False)
images = np.random.default_rng(1).integers(0, 255, (2, 96, 96, 3)).astype(np.float32)
with tf.GradientTape() as tape:
    probabilities = network(images, training=True)["segment"]
    loss = tf.reduce_mean(probabilities[..., 1])
gradient = tape.gradient(loss, network.trainable_variables[0])
for values in (probabilities, gradient):
    print(values.dtype.name, values.shape, hashlib.sha256(values.numpy().tobytes()).hexdigest())
figure = plots.new_figure(figsize=(3, 3))
figure.subplots().plot([1, 2], [3, 4], label="a")
plots.save(figure, sys.argv[1])
"""
HOSTILE = {
    "KERAS_BACKEND": "jax",
    "MPLBACKEND": "module://another_project",
    "MPLCONFIGDIR": "/dev/null/matplotlib",
    "SM_FRAMEWORK": "keras",
    "TF2_BEHAVIOR": "0",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_SET_ONEDNN_FPMATH_MODE": "BF16",
    "TF_USE_LEGACY_KERAS": "0",
    "TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit",
}
STYLE = "text.usetex: True\nfigure.facecolor: red\nno.such.key: 1\nbackend: TkAgg\nsavefig.dpi: 3\n"


def results(folder, settings: dict | None = None, **variables):
    home = folder / "home"
    (home / ".keras").mkdir(parents=True)
    if settings is not None:
        (home / ".keras" / "keras.json").write_text(json.dumps(settings))
        (folder / "matplotlibrc").write_text(STYLE)
    environment = {name: value for name, value in os.environ.items() if name not in HOSTILE}
    environment.pop("KERAS_HOME", None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder / "figure.png")],
        cwd=folder,
        env={**environment, "PYTHONPATH": os.getcwd(), "HOME": str(home), **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, (folder / "figure.png").read_bytes(), done.stderr


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return results(tmp_path_factory.mktemp("clean"))


@pytest.mark.parametrize(
    "settings",
    [
        {"image_data_format": "channels_first", "floatx": "float16", "epsilon": 0.1},
        # Keras 3 knows these. A new interpreter that loads TensorFlow takes four seconds.
        pytest.param(
            {"backend": "jax", "floatx": "bfloat16", "epsilon": "small"},
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_results_are_the_same_bytes_whatever_other_projects_set(clean, settings, tmp_path):
    numbers, figure, said = results(tmp_path, settings, **HOSTILE)
    assert numbers == clean[0] and "float32 (2, 96, 96, 2)" in numbers
    assert figure == clean[1]
    assert clean[2] == ""
    ignored = "TF_ENABLE_ONEDNN_OPTS, TF_SET_ONEDNN_FPMATH_MODE, TF_XLA_FLAGS"
    assert said == f"warning: {ignored} would change results; ignored\n"
    assert json.loads((tmp_path / "home/.keras/keras.json").read_text()) == settings


def test_no_keras_json_is_written_for_other_projects(clean, tmp_path_factory):
    (home,) = tmp_path_factory.getbasetemp().glob("clean0/home/.keras")
    assert list(home.iterdir()) == []
