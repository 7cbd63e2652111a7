"""Prediction: what was planted comes back, on the scan's own grid, whatever happens to others."""

import functools
import gzip
import itertools
import json
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from unittest import mock

import hanging
import nibabel
import numpy as np
import pytest
import tensorflow as tf
from programs import run, run_entry, start
from tiny_models import CODED_HU, CODED_RECIPE, coded_scan, save_coded

from segthor import files, inputs, nifti, organs
from segthor.errors import InputError
from segthor.geometry import Placement
from segthor.organs import SEGTHOR
from segthor.patients import Patient
from segthor.recipe import Recipe
from serving.prediction import bundle, facts, walk
from serving.prediction.case import predict_case
from serving.prediction.plan import Plan
from serving.prediction.predictor import Ensemble
from serving.prediction.worker import Worker
from serving.scoring import pairs
from tests import file_order

SHAPE = (44, 38, 30)
ALL_AXCODES = [
    "".join(pair[flip] for pair, flip in zip(order, flips, strict=True))
    for order in itertools.permutations(("LR", "PA", "SI"))
    for flips in itertools.product((0, 1), repeat=3)
]


def planted(shape=SHAPE, seed=0) -> np.ndarray:
    """Boxes of the four organs, no two alike, inside the body."""
    labels = np.zeros(shape, np.uint8)
    rng = np.random.default_rng(seed)
    for value in (2, 4, 3, 1):
        low = rng.integers(5, [n - 14 for n in shape])
        part = tuple(slice(a, a + b) for a, b in zip(low, rng.integers(3, 9, 3), strict=True))
        labels[part] = value
    return labels


def affine_of(axcodes="LPS", spacing_mm=(1.0, 1.1, 2.5), oblique_deg=0.0):
    target = nibabel.orientations.axcodes2ornt(axcodes)
    directions = np.linalg.inv(nibabel.orientations.inv_ornt_aff(target, (1, 1, 1)))[:3, :3]
    tilt = np.deg2rad(oblique_deg)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ directions * np.asarray(spacing_mm)
    affine[:3, 3] = (-31.5, 17.25, 112.0)
    return affine


def save_scan(path, hu, affine, sform=1, qform=1, slope=1.0, intercept=0.0):
    """Written by nibabel alone, stored as (HU - intercept) / slope."""
    stored = (hu - intercept) / slope
    image = nibabel.Nifti1Image(stored.astype(hu.dtype if slope == 1 else np.int16), None)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(slope, intercept)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_coded(folder)
    return str(folder)


@pytest.fixture(scope="module")
def worker(model, tmp_path_factory):
    return Worker(Plan(output=str(tmp_path_factory.mktemp("out") / "predictions"), models=(model,)))


def predict(worker, path):
    """One scan through the steps of a case; the label map as nibabel reads it."""
    (case,) = inputs.find(str(path), organs=SEGTHOR)
    run_parts(worker, case)
    return nibabel.load(worker.results.path(case))


def run_parts(worker, case):
    """Predicts a case, one part after the other."""
    for _ in predict_case(worker, case):
        pass


def run_networks(worker, case):
    """Predicts a case as far as its networks go; returns the parts that are left."""
    parts = predict_case(worker, case)
    next(parts), next(parts)
    return parts


def assert_on_the_scans_grid(result, scan_path, labels):
    scan = nibabel.load(scan_path)
    assert result.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(result.dataobj), labels)
    np.testing.assert_array_equal(result.affine, scan.affine)
    for field in ("pixdim", "sform_code", "qform_code", "xyzt_units", "quatern_b", "srow_x", "dim"):
        np.testing.assert_array_equal(result.header[field], scan.header[field], field)


@pytest.mark.parametrize("axcodes", ALL_AXCODES)
def test_a_planted_label_map_comes_back_in_every_orientation(worker, tmp_path, axcodes):
    labels = planted(seed=ALL_AXCODES.index(axcodes))
    path = tmp_path / f"{axcodes}.nii.gz"
    save_scan(path, coded_scan(labels), affine_of(axcodes))
    assert_on_the_scans_grid(predict(worker, path), path, labels)


@pytest.mark.parametrize("name", ["one.nii", "one.nii.gz", "ONE.NII.GZ"])
@pytest.mark.parametrize("forms", [(1, 0), (0, 1), (2, 1), (4, 4)])
@pytest.mark.parametrize("oblique_deg", [0, 11])
def test_header_facts_are_the_scans_own(worker, tmp_path, name, forms, oblique_deg):
    labels = planted(seed=7)
    path = tmp_path / name
    sform, qform = forms
    save_scan(path, coded_scan(labels), affine_of("LPS", oblique_deg=oblique_deg), sform, qform)
    result = predict(worker, path)
    assert os.path.basename(result.get_filename()) == name
    assert_on_the_scans_grid(result, path, labels)


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept"),
    [
        (np.int16, 1, 0),
        (np.uint16, 1, -1024),
        (np.int16, 2, -1000),
        (np.float32, 1, 0),
        (np.int16, 0.5, 12.5),
        (np.int32, 1, 0),
    ],
)
def test_hu_are_read_whatever_they_are_stored_as(worker, tmp_path, dtype, slope, intercept):
    labels = planted(seed=3)
    path = tmp_path / "scan.nii.gz"
    hu = coded_scan(labels).astype(np.float64)
    stored = np.asarray((hu - intercept) / slope)
    image = nibabel.Nifti1Image(np.rint(stored).astype(dtype), affine_of())
    image.header.set_slope_inter(slope, intercept)
    nibabel.save(image, path)
    with open(path, "rb") as raw:  # nibabel resets the scaling of some types: say it in the file
        content = bytearray(gzip.decompress(raw.read()))
    content[112:120] = np.array([slope, intercept], "<f4").tobytes()
    content[352:] = np.rint(stored).astype(dtype).tobytes(order="F")
    path.write_bytes(gzip.compress(bytes(content)))
    np.testing.assert_array_equal(np.asarray(predict(worker, path).dataobj), labels)


def save_network(folder, network, names=organs.SEGTHOR.names, recipe=CODED_RECIPE, training=None):
    contents = bundle.Contents(recipe, names, SEGTHOR, training or {})
    return bundle.load(bundle.save(str(folder), network, [], contents))


def constant(*shares):
    """A network that gives every pixel these probabilities."""
    return lambda images: {
        "probabilities": tf.ones_like(images[..., :1]) * tf.constant(shares, tf.float32)
    }


def segment(ensemble, hu=None, probabilities=False):

    hu = coded_scan(planted()) if hu is None else hu
    scan = file_order.volume(hu, affine_of())
    return ensemble.segment(ensemble.inputs(scan), probabilities)


def inside(found):
    """The label in the middle of the scan, where no box's border is near."""
    return int(found.labels[15, 20, 20])


def test_folds_are_averaged(tmp_path):
    one = save_network(tmp_path / "1", constant(0.5, 0.1, 0.4, 0, 0))
    two = save_network(tmp_path / "2", constant(0.1, 0.5, 0.4, 0, 0))
    assert inside(segment(Ensemble([one]))) == 0
    assert inside(segment(Ensemble([two]))) == 1
    found = segment(Ensemble([one, two]), probabilities=True)
    assert inside(found) == 2
    values = {name: int(array[20, 20, 15]) for name, array in found.probabilities.items()}
    assert values == {"esophagus": 76, "heart": 102, "trachea": 0, "aorta": 0}


def test_single_organ_models_are_resolved_by_probability(tmp_path):
    heart = save_network(tmp_path / "h", constant(0.3, 0.7), ("heart",))
    aorta = save_network(tmp_path / "a", constant(0.2, 0.8), ("aorta",))
    doubtful = save_network(tmp_path / "t", constant(0.55, 0.45), ("trachea",))
    for order in itertools.permutations([heart, aorta, doubtful]):
        assert inside(segment(Ensemble(order))) == 4
    assert inside(segment(Ensemble([heart, doubtful]))) == 2
    assert inside(segment(Ensemble([doubtful]))) == 0
    assert Ensemble([aorta, heart]).organs == ("heart", "aorta")


def test_models_that_cannot_go_together_are_refused(tmp_path):
    both = save_network(tmp_path / "b", constant(0.2, 0.4, 0.4), ("heart", "aorta"))
    heart = save_network(tmp_path / "h", constant(0.3, 0.7), ("heart",))
    with pytest.raises(InputError, match="both give heart but not the same organs"):
        Ensemble([both, heart])
    other = Recipe(crop_mm=64, pixel_mm=0, context=1, window_width_hu=300)
    wide = save_network(tmp_path / "w", constant(0.3, 0.7), ("heart",), recipe=other)
    with pytest.raises(InputError, match="different recipes"):
        Ensemble([heart, wide])
    with pytest.raises(InputError, match="expected a model that gives presence"):
        Ensemble([heart], gate=heart)


def test_the_gate_empties_only_slices_and_organs_that_it_denies(tmp_path):
    def sees_bright(images):  # the trachea (80 HU) is there where anything is brighter than 60 HU
        bright = tf.reduce_max(images, [1, 2, 3]) > 147
        return {"presence": tf.stack([tf.cast(bright, tf.float32) * 0.9], -1)}

    model = save_network(tmp_path / "m", constant(0.2, 0.3, 0.5), ("aorta", "trachea"))
    gate = save_network(tmp_path / "g", sees_bright, ("trachea",))
    hu = np.full(SHAPE, CODED_HU[0])
    hu[10:20, 10:20, 12:18] = CODED_HU[3]
    found = segment(Ensemble([model], gate=gate), hu).labels
    assert set(np.unique(found[12:18])) == {3}
    assert set(np.unique(found[:12])) == set(np.unique(found[18:])) == {4}


def test_two_passes_take_level_and_centre_from_the_first(tmp_path):
    level_recipe = Recipe(crop_mm=64, pixel_mm=0, context=1, window_width_hu=255, window_level="40")
    own = Recipe(
        crop_mm=32,
        pixel_mm=0,
        context=1,
        window_width_hu=255,
        window_level="median:heart",
        crop_center="organs:heart",
    )

    def bright(images):  # what lies within 10 HU of the level
        near = tf.abs(images[..., :1] - 127.5) < 10
        heart = tf.cast(near, tf.float32) * 0.98 + 0.01
        return {"probabilities": tf.concat([1 - heart, heart], -1)}

    save_coded(tmp_path / "level", level_recipe)
    save_network(tmp_path / "own", bright, ("heart",), own)
    labels = np.zeros(SHAPE, np.uint8)
    labels[8:14, 8:16, 9:14] = 2
    path = tmp_path / "scan.nii.gz"
    hu = coded_scan(labels)
    hu[labels == 2] = 57  # nearest to the heart's 40 HU for the first model
    hu[0, 0, 0] = 40  # what it takes for a crumb of heart must not move the box
    save_scan(path, hu, affine_of())
    plan = Plan(
        output=str(tmp_path / "out"),
        models=(str(tmp_path / "own"),),
        level_models=(str(tmp_path / "level"),),
    )
    worker = Worker(plan)
    result = predict(worker, path)
    np.testing.assert_array_equal(np.asarray(result.dataobj), labels)
    facts = json.loads((tmp_path / "out" / "cases" / "scan.json").read_text())
    assert facts["level_hu"] == 57
    with pytest.raises(InputError, match="--level_model"):
        Worker(Plan(output="x", models=plan.models))
    with pytest.raises(InputError, match="leave it out"):
        Worker(Plan(output="x", models=plan.level_models, level_models=plan.level_models))
    with pytest.raises(InputError, match="itself"):
        Worker(Plan(output="x", models=plan.models, level_models=plan.models))


def test_a_scan_without_the_levels_organs_is_named(tmp_path):
    own = Recipe(crop_mm=32, pixel_mm=0, context=1, window_level="median:heart")
    save_coded(tmp_path / "level")
    save_network(tmp_path / "own", constant(0.1, 0.9), ("heart",), own)
    worker = Worker(Plan("out", (str(tmp_path / "own"),), level_models=(str(tmp_path / "level"),)))
    path = tmp_path / "scan.nii.gz"
    save_scan(path, coded_scan(np.zeros(SHAPE, np.uint8)), affine_of())
    (case,) = inputs.find(str(path), organs=SEGTHOR)
    with pytest.raises(InputError, match="none of these organs"):
        run_networks(worker, case)


def test_probabilities_lie_on_the_grid_and_agree_with_the_labels(model, tmp_path):
    worker = Worker(Plan(str(tmp_path / "out"), (model,), probabilities=True))
    labels = planted(seed=5)
    path = tmp_path / "Patient_05.nii.gz"
    save_scan(path, coded_scan(labels), affine_of("RAS"))
    predict(worker, path)
    for organ in organs.SEGTHOR:
        file = tmp_path / "out" / "probabilities" / f"Patient_05_{organ.name}.nii.gz"
        image = nibabel.load(file)
        np.testing.assert_array_equal(image.affine, nibabel.load(path).affine)
        values = np.asarray(image.dataobj)
        assert values.min() >= 0 and values.max() <= 1
        np.testing.assert_array_equal(values > 0.5, labels == organ.label)


def test_the_walk_reads_ahead_and_writes_behind_in_order():
    log = []

    def steps(case):
        log.append(("read", case))
        yield
        log.append(("compute", case))
        yield
        log.append(("write", case))

    outcomes = list(walk.walk([1, 2, 3], steps, 5))
    assert [(o.case, o.reason) for o in outcomes] == [(1, ""), (2, ""), (3, "")]
    for case in (1, 2, 3):
        places = [log.index((name, case)) for name in ("read", "compute", "write")]
        assert places == sorted(places)
    assert log.index(("read", 2)) < log.index(("write", 1))


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
@pytest.mark.parametrize("how", ["fail", "break", "hang"])
def test_trouble_in_any_step_of_one_case_is_its_own(stage, how):
    done = []

    def step(name, case):
        if (name, case) == (stage, 2):
            if how == "fail":
                raise InputError("scan 2 is damaged")
            if how == "break":
                raise MemoryError("no room")
            time.sleep(30)

    def steps(case):
        step("read", case)
        yield
        step("compute", case)
        yield
        step("write", case)
        done.append(case)

    limit = 0.5 if how == "hang" else 30
    outcomes = list(walk.walk([1, 2, 3], steps, limit))
    assert [outcome.case for outcome in outcomes] == [1, 2, 3]
    assert done == [1, 3]
    words = {"fail": "scan 2 is damaged", "break": "no memory left", "hang": "case_timeout"}
    assert words[how] in outcomes[1].reason
    assert outcomes[0].reason == outcomes[2].reason == ""


def folder_of_scans(folder, count=3):
    """SegTHOR's names; returns name -> planted labels."""
    planted_by_name = {}
    for number in range(41, 41 + count):
        name = f"Patient_{number}.nii.gz"
        planted_by_name[name] = planted(seed=number)
        save_scan(folder / name, coded_scan(planted_by_name[name]), affine_of("RAS"))
    return planted_by_name


def test_three_broken_among_ten_give_seven_results_and_three_reasons(model, tmp_path):
    scans, out = tmp_path / "scans", tmp_path / "out"
    labels = folder_of_scans(scans, 10)
    content = (scans / "Patient_43.nii.gz").read_bytes()
    (scans / "Patient_43.nii.gz").write_bytes(content[: len(content) // 2])
    (scans / "Patient_45.nii.gz").write_bytes(b"not an image")
    with hanging.file(scans / "Patient_48.nii.gz"):
        done = run_entry("serving.predict", model=model, input=scans, output=out, case_timeout=5)
    assert done.returncode == 1
    names = [f"Patient_{n}" for n in (43, 45, 48)]
    reasons = [line for line in done.stdout.splitlines() if line.startswith("failed: ")]
    assert [line.split()[1] for line in reasons] == names
    for line, word in zip(reasons, ("truncated", "NIfTI", "--case_timeout"), strict=True):
        assert word in line
    assert "Traceback" not in done.stderr + done.stdout
    good = {name: map_ for name, map_ in labels.items() if name[:10] not in names}
    found = {path.name for path in out.glob("*.nii.gz")}
    assert found == set(good)
    for name, expected in good.items():
        np.testing.assert_array_equal(np.asarray(nibabel.load(out / name).dataobj), expected)
    assert "7 label maps written" in done.stdout and "3 failed" in done.stdout

    # Mended, the same command does these three and no more.
    (scans / "Patient_48.nii.gz").unlink()
    for name in names:
        save_scan(scans / f"{name}.nii.gz", coded_scan(labels[f"{name}.nii.gz"]), affine_of("RAS"))
    before = {name: (out / name).stat().st_mtime_ns for name in good}
    done = run_entry("serving.predict", model=model, input=scans, output=out)
    assert done.returncode == 0, done.stdout
    assert "10 scans" in done.stdout and "7 of them done before" in done.stdout
    assert {name: (out / name).stat().st_mtime_ns for name in good} == before
    for name, expected in labels.items():
        np.testing.assert_array_equal(np.asarray(nibabel.load(out / name).dataobj), expected)


def test_a_folder_of_another_models_results_is_refused(model, tmp_path):
    scans, out = tmp_path / "scans", tmp_path / "out"
    folder_of_scans(scans, 1)
    worker = Worker(Plan(str(out), (model,)))
    worker.results.claim(overwrite=False)
    predict(worker, scans / "Patient_41.nii.gz")
    save_network(tmp_path / "other", constant(0.9, 0.1, 0, 0, 0))
    other = Worker(Plan(str(out), (str(tmp_path / "other"),)))
    with pytest.raises(InputError, match="made with another models"):
        other.results.claim(overwrite=False)
    (case,) = inputs.find(str(scans), organs=SEGTHOR)
    assert worker.results.is_finished(case) and not other.results.is_finished(case)
    other.results.claim(overwrite=True)
    assert not other.results.is_finished(case)
    assert not os.path.exists(worker.results.path(case))  # nor do its label maps pass for others'


def test_a_scan_that_changed_is_predicted_again(worker, tmp_path):
    path = tmp_path / "Patient_90.nii.gz"
    save_scan(path, coded_scan(planted(seed=1)), affine_of())
    predict(worker, path)
    (case,) = inputs.find(str(path), organs=SEGTHOR)
    assert worker.results.is_finished(case)
    save_scan(path, coded_scan(planted(seed=2)), affine_of())
    assert not worker.results.is_finished(case)
    predict(worker, path)
    assert worker.results.is_finished(case)
    os.remove(facts.path(worker.results.folder, case.name))
    assert not worker.results.is_finished(case)


def test_a_killed_overwrite_leaves_no_old_label_map_beside_newer_facts(worker, tmp_path):
    path = tmp_path / "Patient_91.nii.gz"
    save_scan(path, coded_scan(planted(seed=1)), affine_of())
    predict(worker, path)
    (case,) = inputs.find(str(path), organs=SEGTHOR)
    save_scan(path, coded_scan(planted(seed=2)), affine_of())
    parts = run_networks(worker, case)
    with (
        mock.patch("segthor.nifti.write", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        next(parts)
    assert not worker.results.is_finished(case)
    told = worker.results.facts(case).label_map  # the older one, and its own facts
    assert files.sha256(worker.results.path(case)) == told["sha256"]


def test_a_scan_replaced_while_it_is_predicted_is_not_finished(worker, tmp_path):
    path = tmp_path / "Patient_92.nii.gz"
    save_scan(path, coded_scan(planted(seed=1)), affine_of())
    (case,) = inputs.find(str(path), organs=SEGTHOR)
    parts = run_networks(worker, case)
    save_scan(path, coded_scan(planted(seed=2)), affine_of())
    assert list(parts) == []
    assert not worker.results.is_finished(case)
    predict(worker, path)
    assert worker.results.is_finished(case)


def test_a_scan_that_changes_while_it_is_read_fails_with_one_line(worker, tmp_path):
    path = tmp_path / "Patient_93.nii.gz"
    save_scan(path, coded_scan(planted(seed=1)), affine_of())
    (case,) = inputs.find(str(path), organs=SEGTHOR)
    read = nifti.read

    def reads_while_it_changes(given, *limits):
        scan = read(given, *limits)
        save_scan(path, coded_scan(planted(seed=2)), affine_of())
        return scan

    with (
        mock.patch("segthor.nifti.read", reads_while_it_changes),
        pytest.raises(InputError, match=r"Patient_93.nii.gz: changed while it was read"),
    ):
        next(predict_case(worker, case))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"model": "nowhere"}, "expected a model directory"),
        (
            {"input": "nowhere"},
            "nowhere: expected a folder, a scan (.nii.gz) or a .csv, found nothing",
        ),
        ({"input": "{tmp}/empty"}, "expected at least one scan"),
        ({"output": "{tmp}/scans"}, "--input is read there"),
        ({"output": "{tmp}/other"}, "expected an empty folder"),
        ({"output": "{tmp}/list"}, "expected the settings that serving.predict writes"),
        ({"split": "validation"}, "expected a dataset, found"),
        ({"case_timeout": "soon"}, "case_timeout"),
        ({"case_timeout": "inf"}, "--case_timeout: expected 0.1 to 1e+06, found inf"),
        ({"case_timeout": "nan"}, "--case_timeout: expected 0.1 to 1e+06, found nan"),
        ({"most_scan_gb": "nan"}, "--most_scan_gb: expected 0 to 1e+06, found nan"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(model, tmp_path, flags, words):
    folder_of_scans(tmp_path / "scans", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "predictions.json").write_text("[1]")
    usual = {"model": model, "input": "{tmp}/scans", "output": "{tmp}/out"} | flags
    done = run_entry(
        "serving.predict", **{k: str(v).replace("{tmp}", str(tmp_path)) for k, v in usual.items()}
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ") and words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
    assert len(list((tmp_path / "scans").iterdir())) == 1


def test_layouts(tmp_path):
    """SegTHOR's train/ and test/, a folder per patient, GT beside the CT, and a CSV."""

    def touch(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def names(path, find=inputs.find):
        return [
            (c.name, c.label_map if find is inputs.find else c.labels)
            for c in find(str(path), organs=SEGTHOR)
        ]

    touch("s/train/Patient_01/Patient_01.nii.gz", "s/train/Patient_01/GT.nii.gz")
    touch("s/train/Patient_02/Patient_02.nii", "s/train/Patient_02/gt.nii", "s/test/Patient_41.nii")
    expected = [
        ("Patient_01", "Patient_01.nii.gz"),
        ("Patient_02", "Patient_02.nii"),
        ("Patient_41", "Patient_41.nii"),
    ]
    assert names(tmp_path / "s") == expected
    assert names(tmp_path / "s" / "train") == expected[:2]
    assert names(tmp_path / "s" / "test") == expected[2:]
    assert names(tmp_path / "s" / "train", inputs.find_contours) == [
        ("Patient_01", str(tmp_path / "s/train/Patient_01/GT.nii.gz")),
        ("Patient_02", str(tmp_path / "s/train/Patient_02/gt.nii")),
    ]
    touch("f/Patient_01.nii.gz", "f/GT_01.nii.gz", "f/notes.txt")
    assert names(tmp_path / "f") == [("Patient_01", "Patient_01.nii.gz")]
    assert names(tmp_path / "f", inputs.find_contours) == [
        ("Patient_01", str(tmp_path / "f/GT_01.nii.gz"))
    ]
    (tmp_path / "list.csv").write_text("patient,ct,labels,organs\nA,f/x.nii,f/y.nii,heart;aorta\n")
    assert names(tmp_path / "list.csv") == [("A", "A.nii")]
    (labels,) = inputs.find_contours(str(tmp_path / "list.csv"), organs=SEGTHOR)
    assert labels.organs == ("heart", "aorta") and labels.labels == str(tmp_path / "f/y.nii")
    shutil.copytree(tmp_path / "s" / "test", tmp_path / "s" / "train" / "Patient_41")
    with pytest.raises(InputError, match="two patients are named Patient_41"):
        inputs.find(str(tmp_path / "s"), organs=SEGTHOR)


def test_a_beam_job_gives_what_a_local_run_gives(model, tmp_path):
    from serving.prediction import distributed

    scans = tmp_path / "scans"
    labels = folder_of_scans(scans, 6)
    (scans / "Patient_44.nii.gz").write_bytes(b"not an image")
    found = inputs.find(str(scans), organs=SEGTHOR)
    plan = Plan(str(tmp_path / "out"), (model,))
    results = Worker(plan).results
    results.claim(overwrite=False)
    distributed.run(plan, found, "DirectRunner", [])
    assert [scan.name for scan in found if not results.is_finished(scan)] == ["Patient_44"]
    assert "NIfTI" in results.facts(found[3]).failed
    for name, expected in labels.items():
        if name != "Patient_44.nii.gz":
            image = nibabel.load(tmp_path / "out" / name)
            np.testing.assert_array_equal(np.asarray(image.dataobj), expected)
    # An element that is handed out again does nothing: not one file changes.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.nii.gz")}
    distributed.run(plan, [found[0], found[1]], "DirectRunner", [])
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_entry_runs_a_beam_job_and_knows_its_options(model, tmp_path):
    labels = folder_of_scans(tmp_path / "scans", 2)
    flags = {"model": model, "input": tmp_path / "scans", "output": tmp_path / "out"}
    done = run_entry("serving.predict", **flags, runner="DirectRunner")
    assert done.returncode == 0, done.stderr
    assert "2 label maps written" in done.stdout
    for name, expected in labels.items():
        image = nibabel.load(tmp_path / "out" / name)
        np.testing.assert_array_equal(np.asarray(image.dataobj), expected)
    done = run_entry("serving.predict", **flags, direct_num_workers=2)
    assert done.returncode == 2 and "unknown option '--direct_num_workers=2'" in done.stderr
    done = run_entry("serving.predict", **flags, runner="DirectRunner", overwirte=True)
    assert done.returncode == 2 and "unknown option '--overwirte=True'" in done.stderr


def test_a_run_killed_at_any_moment_is_completed_by_the_same_command(model, tmp_path):
    """Two moments here; benchmarks/faults.py tries more."""
    labels = folder_of_scans(tmp_path / "scans", 8)
    command = ["-m", "serving.predict", f"--model={model}"]
    command += [f"--input={tmp_path / 'scans'}", f"--output={tmp_path / 'out'}"]
    for done_before in (1, 4):
        process = start(command, stderr=None)
        while len(list((tmp_path / "out").glob("Patient_*.nii.gz"))) < done_before:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for path in (tmp_path / "out").glob("Patient_*.nii.gz"):
            array = np.asarray(nibabel.load(path).dataobj)
            np.testing.assert_array_equal(array, labels[path.name])
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert not re.search(r" 0 of them done before", done.stdout)
    for name, expected in labels.items():
        array = np.asarray(nibabel.load(tmp_path / "out" / name).dataobj)
        np.testing.assert_array_equal(array, expected)


def test_scans_models_and_results_may_lie_on_another_file_system(tmp_path):
    """A file system of fsspec's that lives in memory stands for an object store."""
    import fsspec

    save_coded("memory://clinic/model")
    labels = folder_of_scans(tmp_path, 2)
    for name in labels:
        with fsspec.open(f"memory://clinic/scans/{name}", "wb") as stream:
            stream.write((tmp_path / name).read_bytes())
    worker = Worker(Plan("memory://clinic/out", ("memory://clinic/model",)))
    worker.results.claim(overwrite=False)
    found = inputs.find("memory://clinic/scans", organs=SEGTHOR)
    outcomes = walk.walk(found, functools.partial(predict_case, worker), 60)
    assert [outcome.reason for outcome in outcomes] == ["", ""]
    for case in found:
        assert worker.results.is_finished(case)
        with fsspec.open(worker.results.path(case)) as stream:
            image = nibabel.Nifti1Image.from_bytes(gzip.decompress(stream.read()))
        np.testing.assert_array_equal(np.asarray(image.dataobj), labels[case.label_map])


def test_a_dataset_names_its_scans_by_split_and_its_contours(tmp_path):
    from segthor import manifest

    def patient(name, split, contoured=organs.SEGTHOR.names):
        return manifest.Built(
            patient=name,
            ct=f"/ct/{name}.nii.gz",
            labels=f"/gt/{name}.nii.gz",
            fingerprint="",
            split=split,
            fold=0,
            slices=1,
            organs=contoured,
            level_hu=50.0,
            placement=Placement((10, 96, 96), (2.5, 0.9, 0.98), (0.0, 0.0), (1.0, 1.0), 96),
            audit=manifest.Audit(),
        )

    patients = (patient("A", manifest.TRAIN), patient("B", manifest.VALIDATION, ("heart",)))
    unlabelled = (manifest.Unlabelled("C", "/ct/C.nii"),)
    shards = [
        manifest.Shard(f"{one.split}.tfrecord", one.split, 0, 1, 1, "", (one.patient,))
        for one in patients
    ]
    data = manifest.Dataset(
        Recipe(), 1, tuple(shards), patients, unlabelled=unlabelled, organs=SEGTHOR
    )
    data.save(str(tmp_path))
    assert [scan.label_map for scan in inputs.find(str(tmp_path), organs=SEGTHOR)] == [
        "A.nii.gz",
        "B.nii.gz",
        "C.nii",
    ]
    assert [scan.name for scan in inputs.find(str(tmp_path), "validation", organs=SEGTHOR)] == ["B"]
    assert inputs.find_contours(str(tmp_path), organs=SEGTHOR)[1] == Patient(
        "B", "/ct/B.nii.gz", "/gt/B.nii.gz", "validation", ("heart",)
    )


def test_nnunets_layout_is_predicted_and_its_contours_are_read_by_its_own_numbers(tmp_path):
    values = {"background": 0, "heart": 1, "aorta": 3}
    nnunet = tmp_path / "Dataset001"
    for name in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b_0000.nii.gz"):
        (nnunet / name).parent.mkdir(parents=True, exist_ok=True)
        (nnunet / name).touch()
    (nnunet / "dataset.json").write_text(json.dumps({"labels": values}))
    found = [(scan.name, scan.label_map) for scan in inputs.find(str(nnunet), organs=SEGTHOR)]
    assert found == [("a", "a.nii.gz"), ("b", "b.nii.gz")]
    expected = Patient(
        "a",
        str(nnunet / "imagesTr/a_0000.nii.gz"),
        str(nnunet / "labelsTr/a.nii.gz"),
        organs=("heart", "aorta"),
        label_values=(("heart", 1), ("aorta", 3)),
    )
    assert inputs.find_contours(str(nnunet), organs=SEGTHOR) == (expected,)
    stored = np.zeros((4, 4, 2), np.uint8)
    stored[0], stored[1], stored[2] = values["heart"], values["aorta"], 2
    truth, predicted = tmp_path / "truth.nii", tmp_path / "predicted.nii"
    nibabel.Nifti1Image(stored, np.eye(4)).to_filename(truth)
    ours = np.zeros_like(stored)
    ours[0], ours[1] = organs.SEGTHOR["heart"].label, organs.SEGTHOR["aorta"].label
    nibabel.Nifti1Image(ours, np.eye(4)).to_filename(predicted)
    found, true = pairs.read(
        replace(expected, labels=str(truth)), Patient("a", "", str(predicted)), organs=SEGTHOR
    )
    np.testing.assert_array_equal(found.zyx, true.zyx)
