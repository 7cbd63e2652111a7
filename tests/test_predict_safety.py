"""What a prediction job must never do: harm a finished result, believe nonsense, share a folder."""

import json
import os
import shutil
import signal
import time

import hanging
import nibabel
import numpy as np
import pytest
import tensorflow as tf
from programs import run_entry, start
from test_predict import affine_of, planted, save_scan
from tiny_models import coded_scan, save_coded

from segthor.errors import InputError
from segthor.recipe import prepare
from serving.prediction import bundle, postprocess
from serving.prediction.postprocess import Rule
from serving.prediction.predictor import Ensemble, Input
from tests import file_order


@pytest.fixture
def model(tmp_path):
    save_coded(tmp_path / "model")
    return tmp_path / "model"


def save_case(path, seed=1):
    save_scan(path, coded_scan(planted(seed=seed)), affine_of())


def predict(tmp_path, model, **flags):
    flags = {"input": tmp_path / "scans", "output": tmp_path / "out"} | flags
    return run_entry("serving.predict", model=model, **flags)


@pytest.mark.parametrize("name", ["../scans/A", "a/b", "..", "ABSOLUTE"])
def test_a_name_in_a_csv_writes_nothing_outside_the_output(tmp_path, model, name):
    save_case(tmp_path / "scans" / "A.nii.gz")
    before = (tmp_path / "scans" / "A.nii.gz").read_bytes()
    name = str(tmp_path / "scans" / "A") if name == "ABSOLUTE" else name
    (tmp_path / "list.csv").write_text(f"patient,ct\n{name},scans/A.nii.gz\n")
    done = predict(tmp_path, model, input=tmp_path / "list.csv")
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr
    assert (tmp_path / "scans" / "A.nii.gz").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) in (
        ["list.csv", "model", "out", "scans"],
        ["list.csv", "model", "scans"],
    )


def test_finished_label_maps_stay_when_their_scans_are_gone_and_count_again_when_back(
    tmp_path, model
):
    save_case(tmp_path / "scans" / "A.nii.gz")
    (tmp_path / "list.csv").write_text("patient,ct\nA,scans/A.nii.gz\n")
    assert predict(tmp_path, model, input=tmp_path / "list.csv").returncode == 0
    made = (tmp_path / "out" / "A.nii.gz").read_bytes()
    facts = json.loads((tmp_path / "out" / "cases" / "A.json").read_text())
    os.rename(tmp_path / "scans", tmp_path / "away")
    for overwrite in (False, True):
        done = predict(tmp_path, model, input=tmp_path / "list.csv", overwrite=overwrite)
        assert done.returncode == 1 and "failed: A" in done.stdout
        assert (tmp_path / "out" / "A.nii.gz").read_bytes() == made
    os.rename(tmp_path / "away", tmp_path / "scans")
    done = predict(tmp_path, model, input=tmp_path / "list.csv")
    assert done.returncode == 0 and "1 of them done before" in done.stdout
    assert json.loads((tmp_path / "out" / "cases" / "A.json").read_text()) == facts


@pytest.mark.parametrize("content", ["", "[]", "{", '"x"'])
def test_facts_that_cannot_be_read_are_made_anew(tmp_path, model, content):
    save_case(tmp_path / "scans" / "A.nii.gz")
    assert predict(tmp_path, model).returncode == 0
    (tmp_path / "out" / "cases" / "A.json").write_text(content)
    done = predict(tmp_path, model)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 and "0 of them done before" in done.stdout, done.stdout


def test_a_second_job_in_one_folder_is_refused_and_one_after_a_kill_is_not(tmp_path, model):
    save_case(tmp_path / "scans" / "A.nii.gz")
    code = "import sys, time\nfrom segthor import locks\nwith locks.lock_folder(sys.argv[1]):\n"
    code += "    print('held', flush=True)\n    time.sleep(300)"
    child = start(["-c", code, tmp_path / "out"])
    assert child.stdout.readline() == "held\n"
    done = predict(tmp_path, model)
    assert done.returncode == 2 and "another process is writing there" in done.stderr
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert predict(tmp_path, model).returncode == 0


def test_the_run_after_a_killed_one_names_the_case_that_was_under_way(tmp_path, model):
    save_case(tmp_path / "scans" / "A.nii.gz")
    flags = [f"--model={model}", f"--input={tmp_path / 'scans'}", f"--output={tmp_path / 'out'}"]
    with hanging.file(tmp_path / "scans" / "B.nii.gz"):
        process = start(["-m", "serving.predict", *flags], stdout=None, stderr=None)
        while not (tmp_path / "out" / "A.nii.gz").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.wait()
    # A case that is given up is named by its own run, and is no killed one.
    with hanging.file(tmp_path / "scans" / "B.nii.gz"):
        named = predict(tmp_path, model, case_timeout=2)
    assert named.returncode == 1 and "failed: B" in named.stdout
    case = f"a process was killed while it worked on B ({tmp_path / 'scans' / 'B.nii.gz'})"
    (line,) = [line for line in named.stderr.splitlines() if case in line]
    assert line.startswith("warning: ") and "--most_scan_gb" in line
    os.remove(tmp_path / "scans" / "B.nii.gz")
    save_case(tmp_path / "scans" / "B.nii.gz")
    last = predict(tmp_path, model)
    assert last.returncode == 0 and "while it worked on" not in last.stderr
    assert sorted(os.listdir(tmp_path / "out" / "cases")) == ["A.json", "B.json"]


def test_a_killed_exports_remains_go_with_the_next_export(tmp_path):
    (tmp_path / "model" / ".partial-0123" / "variables").mkdir(parents=True)
    save_coded(tmp_path / "model")
    assert sorted(os.listdir(tmp_path / "model")) == ["1"]


def test_the_model_folder_is_no_output(tmp_path, model):
    save_case(tmp_path / "scans" / "A.nii.gz")
    done = predict(tmp_path, model, output=model)
    assert done.returncode == 2 and "--model is read there" in done.stderr


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 3.0])
def test_a_network_that_gives_no_probabilities_fails_and_names_the_slices(model, value):
    loaded = bundle.load(str(model))
    network = loaded.signatures["probabilities"]

    def damaged(images):
        given = network(images=images)["probabilities"].numpy()
        given[[1, 4], 3, 4] = value
        return {"probabilities": tf.constant(given)}

    loaded.signatures["probabilities"] = damaged
    scan = file_order.volume(coded_scan(planted()), affine_of())
    inputs = {loaded.recipe.digest(): Input(loaded.recipe, prepare(scan, loaded.recipe))}
    with pytest.raises(InputError, match="expected probabilities that sum to 1.*slices 2, 5 "):
        Ensemble([loaded]).segment(inputs)


@pytest.mark.parametrize(
    ("asset", "change", "message"),
    [
        ("organs.json", lambda rows: [rows[0], rows[2], rows[1], *rows[3:]], "not those that"),
        ("organs.json", lambda rows: [{**row, "label": 2} for row in rows], "organs.json"),
        ("organs.json", lambda rows: {}, "organs.json"),
        ("organs.json", lambda rows: rows[:1], "organs.json"),
        ("recipe.json", lambda recipe: recipe | {"window_level": "60"}, "not those that"),
        ("recipe.json", lambda recipe: recipe | {"crop_mm": "x"}, "recipe.json"),
        ("recipe.json", lambda recipe: [1], "recipe.json"),
        ("training.json", lambda record: [], "training.json"),
        ("model.json", lambda record: {"format": 1}, "with its digest"),
        ("model.json", lambda record: [], "model of format"),
    ],
)
def test_a_model_changed_by_hand_is_refused_at_load(tmp_path, model, asset, change, message):
    path = model / "1" / "assets" / asset
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(InputError, match=message) as error:
        bundle.load(str(model))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04nonsense"])
def test_a_damaged_example_is_one_line(model, content):
    (model / "1" / "assets" / "example.npz").write_bytes(content)
    with pytest.raises(InputError, match="the stored example cannot be run"):
        bundle.load(str(model))


def test_models_with_different_rules_are_not_averaged(tmp_path):
    versions = [save_coded(tmp_path / name) for name in "ab"]
    postprocess.save(versions[0], {"heart": Rule(largest=True)}, [])
    postprocess.save(versions[1], {"heart": Rule(fill_holes=True)}, [])
    for pair in (versions, versions[::-1]):
        with pytest.raises(InputError, match="store different post-processing"):
            Ensemble([bundle.load(path) for path in pair]).rules()
    shutil.copy(*(f"{version}/assets/postprocess.json" for version in versions))
    assert Ensemble([bundle.load(path) for path in versions]).rules() == {
        "heart": Rule(largest=True)
    }


def test_text_in_a_scans_header_stays_out_of_its_label_map(tmp_path, model):
    save_case(tmp_path / "scans" / "A.nii.gz")
    image = nibabel.load(tmp_path / "scans" / "A.nii.gz")
    for field in ("descrip", "db_name", "aux_file", "intent_name"):
        image.header[field] = b"DOE^JANE"
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header),
                 tmp_path / "scans" / "A.nii")  # fmt: skip
    os.remove(tmp_path / "scans" / "A.nii.gz")
    assert b"DOE^JANE" in (tmp_path / "scans" / "A.nii").read_bytes()
    assert predict(tmp_path, model).returncode == 0
    assert b"DOE" not in (tmp_path / "out" / "A.nii").read_bytes()


def test_a_scan_beyond_the_memory_that_it_may_fill_fails_alone(tmp_path, model):
    save_case(tmp_path / "scans" / "A.nii.gz")
    large = np.full((80, 80, 60), -1000, np.int16)
    save_scan(tmp_path / "scans" / "B.nii.gz", large, affine_of())
    done = predict(tmp_path, model, most_scan_gb=3e-4)
    assert done.returncode == 1 and "1 label maps written" in done.stdout
    assert "failed: B" in done.stdout and "--most_scan_gb of build and predict" in done.stdout
    assert sorted(os.listdir(tmp_path / "out")) == [
        "A.nii.gz",
        "cases",
        "predictions.csv",
        "predictions.json",
    ]
