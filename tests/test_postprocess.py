"""Post-processing and how it is chosen."""

import json
import os
import shutil

import nibabel
import numpy as np
import pytest
from programs import run_entry
from scipy import ndimage
from skimage import measure
from tiny_models import at_work_in, killed_while_writing, save_coded

from segthor.errors import InputError
from segthor.organs import SEGTHOR
from serving.prediction import bundle, candidates, postprocess
from serving.prediction.facts import Change
from serving.prediction.postprocess import Rule
from tests import file_order

SPACING_MM = (1.0, 1.0, 2.0)


def blobs(seed=0, shape=(24, 22, 20)) -> np.ndarray:
    """Many pieces of all sizes, with holes."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.2)
    return noise > 0.1


def pieces(mask):
    """Sizes by scikit-image, which labels by another algorithm than scipy."""
    labelled = measure.label(mask, connectivity=3)
    return labelled, np.bincount(labelled.ravel())[1:]


def test_the_largest_piece_is_scikit_images_largest():
    for seed in range(5):
        mask = blobs(seed)
        labelled, sizes = pieces(mask)
        assert len(sizes) > 1
        found = postprocess.clean(mask, Rule(largest=True), 0.002)
        np.testing.assert_array_equal(found, labelled == 1 + sizes.argmax())


@pytest.mark.parametrize("min_cm3", [0.004, 0.02, 0.05, 100])
def test_pieces_below_a_volume_go_and_all_others_stay(min_cm3):
    mask = blobs(3)
    labelled, sizes = pieces(mask)
    kept = 1 + np.flatnonzero(sizes * 0.002 >= min_cm3)
    found = postprocess.clean(mask, Rule(min_cm3=min_cm3), 0.002)
    np.testing.assert_array_equal(found, np.isin(labelled, kept))


def test_pieces_that_touch_at_a_corner_are_one():
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True
    assert np.count_nonzero(postprocess.clean(mask, Rule(largest=True), 1.0)) == 2


def test_only_enclosed_background_is_filled():
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[1:8, 1:8, 1:8] = 2
    labels[3:5, 3:6, 3:6] = 0  # enclosed
    labels[6, 6, 6] = 4  # enclosed, but another organ's
    labels[1:3, 4, 4] = 0  # opens the hole to the outside
    before = labels.copy()
    made = file_order.on_grid(labels, SPACING_MM)
    assert postprocess.apply(made, {"heart": Rule(fill_holes=True)}) == {}
    np.testing.assert_array_equal(labels, before)
    labels[1, 4, 4] = 2
    changes = postprocess.apply(made, {"heart": Rule(fill_holes=True)})
    assert changes == {"heart": Change(removed_cm3=0.0, filled_cm3=(18 + 1) * 0.002)}
    assert labels[6, 6, 6] == 4
    assert np.count_nonzero(labels == 2) == 7**3 - 1


def test_organs_without_a_rule_are_left_as_they_are():
    labels = (blobs(1) * 2 + (blobs(2) & ~blobs(1)) * 4).astype(np.uint8)
    before = labels.copy()
    made = file_order.on_grid(labels, SPACING_MM)
    changes = postprocess.apply(made, {"heart": Rule(largest=True)})
    np.testing.assert_array_equal(labels == 4, before == 4)
    removed = np.count_nonzero((before == 2) & (labels == 0))
    assert changes["heart"].removed_cm3 == pytest.approx(removed * 0.002)
    assert np.count_nonzero(before == 2) == np.count_nonzero(labels == 2) + removed


def test_rules_are_the_same_in_every_axis_order():
    labels = (blobs(5) * 3).astype(np.uint8)
    turned = np.ascontiguousarray(labels.transpose(2, 0, 1))
    rules = {"trachea": Rule(min_cm3=0.01, fill_holes=True)}
    postprocess.apply(file_order.on_grid(labels, SPACING_MM), rules)
    postprocess.apply(file_order.on_grid(turned, (2.0, 1.0, 1.0)), rules)
    np.testing.assert_array_equal(turned, labels.transpose(2, 0, 1))


def test_nothing_stays_nothing():
    labels = np.zeros((5, 5, 5), np.uint8)
    rule = Rule(largest=True, min_cm3=1, fill_holes=True)
    assert postprocess.apply(file_order.on_grid(labels, SPACING_MM), {"aorta": rule}) == {}
    assert not postprocess.clean(np.zeros((3, 3, 3), bool), rule, 1.0).any()


def test_what_is_stored_with_a_model_is_what_it_loads(tmp_path):
    version = save_coded(tmp_path)
    assert bundle.load(version).rules == {}
    rules = {"heart": Rule(largest=True), "aorta": Rule(min_cm3=0.5, fill_holes=True)}
    postprocess.save(version, rules, [])
    assert bundle.load(version).rules == rules
    path = tmp_path / "1" / "assets" / "postprocess.json"
    path.write_text(path.read_text().replace("fill_holes", "sharpen"))
    with pytest.raises(InputError, match="another version"):
        bundle.load(version)


def ball(shape, center, radius):
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return ((grid - center) ** 2).sum(-1) <= radius**2


AFFINE = np.diag([-1, -1, 1, 1])


def crumbs_and_holes():
    """(predicted, truth): a heart with a crumb far off, an aorta of two true pieces with a hole."""
    shape = (48, 44, 40)
    truth = np.zeros(shape, np.uint8)
    truth[ball(shape, (16, 16, 16), 9)] = 2
    truth[ball(shape, (36, 30, 12), 5)] = truth[ball(shape, (36, 30, 30), 4)] = 4
    predicted = truth.copy()
    predicted[40:42, 5:7, 5:7] = 2
    predicted[ball(shape, (36, 30, 12), 2)] = 0
    return predicted, truth


def test_tuning_removes_crumbs_fills_holes_and_keeps_true_pieces():
    maps = (file_order.label_map(labels, AFFINE) for labels in crumbs_and_holes())
    patient = candidates.score_candidates(*maps, ("heart", "aorta"))
    rules, table = candidates.choose([patient] * 3, organs=SEGTHOR)
    assert rules["heart"] == Rule(min_cm3=0.1)
    assert rules["aorta"] == Rule(fill_holes=True)
    assert len(table) == 2 * len(candidates.CANDIDATES)
    chosen = [row for row in table if row["chosen"]]
    assert [row["dice"] for row in chosen] == [1, 1]


def test_tuning_leaves_alone_what_needs_nothing():
    _, truth = crumbs_and_holes()
    truth = file_order.label_map(truth, AFFINE)
    rules, _ = candidates.choose(
        [candidates.score_candidates(truth, truth, ("heart", "trachea"))], organs=SEGTHOR
    )
    assert rules == {"heart": Rule(), "trachea": Rule()}


def tuned(tmp_path) -> tuple[str, dict]:
    """A model's digest, and the flags that tune it on three patients."""
    model = tmp_path / "model"
    save_coded(model)
    digest = bundle.load(str(model)).digest
    predicted, truth = crumbs_and_holes()
    affine = np.diag([-1, -1, 1, 1])
    for folder in ("raw", "labels"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        nibabel.save(nibabel.Nifti1Image(predicted, affine), tmp_path / f"raw/P{number}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(truth, affine), tmp_path / f"labels/P{number}.nii.gz")
    head = json.dumps({"models": [digest], "postprocess": {}})
    (tmp_path / "raw" / "predictions.json").write_text(head)
    flags = {"model": model, "predictions": tmp_path / "raw", "labels": tmp_path / "labels"}
    return digest, flags


def test_the_entry_stores_its_choice_with_the_model_and_refuses_others(tmp_path):
    digest, flags = tuned(tmp_path)
    model, head = flags["model"], tmp_path / "raw" / "predictions.json"
    for content, words in (
        ({"models": ["another"], "postprocess": {}}, "another model"),
        ({"models": [digest], "postprocess": {"heart": {}}}, "--nopostprocess"),
        ([1], "expected the settings that serving.predict writes"),
        ({"models": [[1]]}, "expected the settings that serving.predict writes"),
    ):
        head.write_text(json.dumps(content))
        done = run_entry("serving.tune", **flags)
        assert done.returncode == 2 and words in done.stderr
        assert len(done.stderr.splitlines()) == 1
    head.write_text(json.dumps({"models": [digest], "postprocess": {}}))
    done = run_entry("serving.tune", **flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("<- chosen") == 4
    rules = bundle.load(str(model)).rules
    assert rules["heart"] == Rule(min_cm3=0.1) and rules["aorta"] == Rule(fill_holes=True)
    stored = json.loads((model / "1" / "assets" / "postprocess.json").read_text())
    assert len(stored["table"]) == 4 * len(candidates.CANDIDATES)


def test_a_patient_that_cannot_be_read_is_named_and_takes_no_part(tmp_path):
    _, flags = tuned(tmp_path)
    for folder in ("raw", "labels"):
        shutil.copy(tmp_path / folder / "P0.nii.gz", tmp_path / folder / "P3.nii.gz")
    (tmp_path / "raw" / "P1.nii.gz").write_bytes(b"")
    done = run_entry("serving.tune", **flags)
    assert done.returncode == 1 and done.stderr == "", done.stderr
    assert "[2/4] P1  FAILED: " in done.stdout and "1 patients FAILED" in done.stdout
    rules = flags["model"] / "1" / "assets" / "postprocess.json"
    stored = rules.read_bytes()
    assert {row["patients"] for row in json.loads(stored)["table"]} == {3}
    (tmp_path / "labels" / "P2.nii.gz").unlink()
    (tmp_path / "labels" / "P2.nii.gz").mkdir()
    done = run_entry("serving.tune", **flags)
    assert done.returncode == 2 and rules.read_bytes() == stored, done.stdout


def test_one_tuning_of_a_model_at_a_time_and_the_next_clears_what_a_killed_one_left(tmp_path):
    _, flags = tuned(tmp_path)
    version = flags["model"] / "1"
    assets = sorted(os.listdir(version / "assets"))
    killed_while_writing(version / "assets" / "postprocess.json")
    with at_work_in(version):
        done = run_entry("serving.tune", **flags)
    assert done.returncode == 2 and not (version / "assets" / "postprocess.json").exists()
    (line,) = done.stderr.splitlines()
    assert f"{version}: another process is writing there" in line and "P0" not in done.stdout
    # The same model twice is one folder.
    done = run_entry("serving.tune", **flags | {"model": f"{flags['model']},{version}"})
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(version / "assets")) == sorted([*assets, "postprocess.json"])
