"""The examples of docs/python.md run as they stand, in the order of the page."""

import re

import dicom_phantoms as phantoms
import programs
import pytest
import slices
from programs import ROOT
from test_predict import affine_of, planted, save_scan
from tiny_models import coded_scan, save_coded

EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
LAST_OF_FIRST_PART = next(n for n, code in enumerate(EXAMPLES) if "import trainer" in code)


def run(code, folder):
    done = programs.run(["-c", code], cwd=folder, environment={"PYTHONPATH": ROOT})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_examples_of_a_model(tmp_path):
    save_coded(tmp_path / "model")
    save_scan(tmp_path / "scans" / "Patient_41.nii.gz", coded_scan(planted()), affine_of())
    (tmp_path / "scans" / "broken.nii.gz").write_bytes(b"not an image" * 40)
    hu, affine = phantoms.posed(coded_scan(planted(seed=3)), affine_of())
    phantoms.write_series(tmp_path / "series" / "A", hu, affine)
    *before, broken = EXAMPLES[:LAST_OF_FIRST_PART]
    (tmp_path / "more").mkdir()
    (tmp_path / "scans" / "broken.nii.gz").rename(tmp_path / "more" / "broken.nii.gz")
    restore = "import os\nos.rename('more/broken.nii.gz', 'scans/broken.nii.gz')\n"
    said = run("\n".join([*before, restore, broken]), tmp_path)
    assert "{'esophagus': 1, 'heart': 2, 'trachea': 3, 'aorta': 4}" in said
    assert "broken.nii.gz: expected a NIfTI file, found no NIfTI header" in said
    assert (tmp_path / "predictions" / "Patient_41.nii.gz").exists()
    assert (tmp_path / "plans" / "dicom" / "A_rtstruct.dcm").exists()


def test_the_examples_of_a_network(tmp_path):
    slices.make(tmp_path / "data" / "dataset", contoured={"Patient_01": ("heart",)})
    said = run("\n".join(EXAMPLES[LAST_OF_FIRST_PART:]) + "\nprint(next(iter(shared)))", tmp_path)
    assert "val_loss" in said


def test_the_examples_loss_takes_nothing_from_an_organ_that_was_not_contoured():
    """What Keras makes of the loss and its weights, by the gradient of the logits."""
    tf = pytest.importorskip("tensorflow")
    code = next(code for code in EXAMPLES if "def loss" in code)
    names = {"tf": tf, "organs": 3}
    exec(re.search(r"def loss.*?(?=\n\n\n)", code, re.DOTALL).group(), names)
    logits = tf.random.stateless_normal([2, 4, 4, 3], [1, 2])
    labels = tf.constant([[[0, 1, 2, 3]] * 4] * 2, tf.uint8)
    contoured = tf.constant([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    values = names["loss"](labels, logits)
    assert values.shape == (2, 3)
    model = tf.keras.Sequential([tf.keras.Input((4, 4, 3)), tf.keras.layers.Activation("linear")])
    model.compile(loss=names["loss"])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = model.compiled_loss(labels, logits, sample_weight=contoured)
    assert float(total) == pytest.approx(float(tf.reduce_sum(values * contoured)) / 6, rel=1e-5)
    gradients = tape.gradient(total, logits).numpy()
    assert (gradients[0, ..., 1] == 0).all() and (abs(gradients).max((1, 2)) > 0).sum() == 5
