"""Each program ends with a command that works as it stands, whatever the folders are called."""

import gzip
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import slices
from cases import TINY_RECIPE, save_patients
from programs import ROOT, run
from test_export import RECIPE, save_run
from test_postprocess import tuned
from test_predict import affine_of, planted, save_scan
from tiny_models import coded_scan

from beam_jobs import driver
from segthor import phantom
from segthor.organs import SEGTHOR
from segthor.recipe import Recipe
from trainer.config import Config

NAME = """Jane's "CT" $(touch obeyed), 2"""
SMALL = "--decoder=pspnet --backbone=resnet18 --steps=1 --batch_size=4 --encoder_weights=none "
SMALL += " ".join(slices.NO_AUGMENTATION)


def shell(command: str, cwd, tiny=False) -> str:
    """What a command of Python's printed that a user typed into a shell in `cwd`."""
    print_words = 'python() { printf "%s\\0" "$@"; }; '  # the shell decides what the words are
    words = subprocess.run(["bash", "-c", print_words + command], cwd=cwd, stdout=-1, check=True)
    program = words.stdout.decode().removesuffix("\0").split("\0")
    done = run(program, tiny=tiny, cwd=cwd, environment={"PYTHONPATH": ROOT})
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def hinted(said: str) -> str:
    """The one command that a program ended with."""
    (line,) = [line for line in said.splitlines() if line.startswith("Next")]
    return line.partition(": ")[2]


def holding(text: bytes, folder: Path) -> list[Path]:
    """The files in a folder that hold a text, unpacked."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    opened = {".gz": gzip.open}
    return [path for path in paths if text in opened.get(path.suffix, open)(path, "rb").read()]


def listed(path) -> str:
    """A path with a comma and quotes, as a flag takes it that is a list."""
    return '"' + str(path).replace('"', '""') + '"'


def follow(said: str, cwd, more: str = "", tiny=False, **places) -> str:
    """Runs the command that was hinted at, with the user's own paths for the words in capitals."""
    command = hinted(said)
    for word, place in places.items():
        assert len(re.findall(rf"={word}(?= |$)", command)) == 1, command
        command = re.sub(rf"={word}(?= |$)", "=" + shlex.quote(place).replace("\\", r"\\"), command)
    return shell(f"{command} {more}", cwd, tiny)


def test_from_phantoms_to_the_report_each_hint_leads_to_the_next(tmp_path):
    places = {w: f"{NAME}/{w}" for w in ("DATASET", "RUN", "MODEL", "PREDICTIONS", "EVALUATION")}
    patients = shlex.quote(f"{NAME}/patients")
    said = shell(f"python -m segthor.phantom --output={patients} --patients=3", tmp_path)
    small = "--crop_mm=264 --pixel_mm=2.75"
    said = follow(said, tmp_path, small, DATASET=places["DATASET"])
    assert "--flagfile=configs/smoke.flags" in hinted(said)  # of the package, in any folder
    said = follow(said, tmp_path, SMALL, tiny=True, RUN=places["RUN"])
    said = follow(said, tmp_path, tiny=True, MODEL=places["MODEL"])
    scans = {"SCANS": places["DATASET"], "PREDICTIONS": places["PREDICTIONS"]}
    said = follow(said, tmp_path, "--split=validation", **scans)
    said = follow(said, tmp_path, EVALUATION=places["EVALUATION"])
    follow(said, tmp_path)
    assert (tmp_path / places["EVALUATION"] / "report.html").exists()
    # What docs/privacy.md says: only these hold a patient's name.
    folder = tmp_path / NAME
    named = {"best_patients.csv"}  # and TensorBoard's pictures, as pixels
    assert {path.name for path in holding(b"Patient_", folder / "RUN")} == named
    assert holding(b"Patient_", folder / "MODEL") == []
    named = {"predictions.csv", *(f"Patient_0{number}.json" for number in (1, 3))}
    assert {path.name for path in holding(b"Patient_", folder / "PREDICTIONS")} == named
    # The scans from a plain folder, which knows no split.
    predictions, dataset = (shlex.quote(places[word]) for word in ("PREDICTIONS", "DATASET"))
    flags = f"--predictions={predictions} --labels={dataset} --split=validation"
    command = f"python -m serving.evaluate {flags} --scans={patients} --output=other"
    said = follow(shell(command, tmp_path), tmp_path)
    assert "2 patients, 0 of them failed" in said
    assert sorted(os.listdir(tmp_path)) == sorted([NAME, "other"])


def build(tmp_path, capsys, patients=3, **values) -> str:
    """What the build of tiny patients said."""
    save_patients(tmp_path / "patients", patients)
    recipe = Recipe(**TINY_RECIPE, context=values.pop("context", 3))
    source, output = str(tmp_path / "patients"), str(tmp_path / NAME)
    assert (
        driver.build(driver.Settings(source, output, recipe, **{"organs": SEGTHOR} | values)) == 0
    )
    return capsys.readouterr().out


def test_real_patients_are_trained_with_all_flags(tmp_path, capsys, monkeypatch):
    command = hinted(build(tmp_path, capsys))
    data = shlex.quote(str(tmp_path / NAME))
    expected = f"python -m trainer.main --flagfile=configs/all.flags --data={data} --workdir=RUN"
    assert command == expected
    monkeypatch.chdir(tmp_path)
    assert hinted(build(tmp_path, capsys)) == expected


def test_the_hint_leaves_out_what_the_dataset_cannot_give(tmp_path, capsys, monkeypatch):
    """An organ that nobody contoured."""
    monkeypatch.chdir(ROOT)
    said = build(tmp_path, capsys, context=1, label_values=(("heart", 2), ("aorta", 4)))
    assert "--organs=heart,aorta" in hinted(said)
    monkeypatch.chdir(tmp_path)
    small = "--backbone=resnet18 --steps=1 --batch_size=4 --encoder_weights=none"
    assert "Best Dice" in follow(said, tmp_path, small, tiny=True, RUN="run")


def test_no_training_is_hinted_at_where_all_patients_are_held_out(tmp_path, capsys):
    said = build(tmp_path, capsys, split="hash", validation_fraction=1.0)
    assert "Next" not in said and "Cannot be trained on" in said


def test_a_dataset_that_holds_out_no_patient_can_be_trained_on(tmp_path, capsys):
    said = build(tmp_path, capsys, patients=1, split="hash", validation_fraction=0.0)
    small = "--backbone=resnet18 --steps=1 --batch_size=4 --encoder_weights=none"
    assert "Next" in follow(said, ROOT, small, tiny=True, RUN=str(tmp_path / "run"))


def test_phantoms_without_contours_are_not_to_be_built(tmp_path):
    command = "python -m segthor.phantom --output=phantoms --patients=0 --test_patients=1"
    assert "Next" not in shell(command, tmp_path)


def test_a_tuned_model_of_any_name_is_predicted_with(tmp_path):
    folder = tmp_path / NAME
    folder.mkdir()
    _, flags = tuned(folder)
    flags["model"] = listed(flags["model"])
    words = [f"--{name}={value}" for name, value in flags.items()]
    said = shell(shlex.join(["python", "-m", "serving.tune", *words]), tmp_path)
    save_scan(folder / "scans" / "A.nii.gz", coded_scan(planted()), affine_of())
    places = {"SCANS": f"{NAME}/scans", "PREDICTIONS": f"{NAME}/predictions"}
    assert "1 label maps written" in follow(said, tmp_path, **places)
    assert os.listdir(tmp_path) == [NAME]


@pytest.mark.parametrize(
    "task, recipe, expected",
    [
        ("segment", RECIPE, "--model={listed} --input=SCANS"),
        ("classify", RECIPE, "--model=MODEL --gate={plain} --input=SCANS"),
        (
            "segment",
            Recipe(crop_mm=32, pixel_mm=1.0, window_level="median:heart"),
            "--model={listed} --level_model=LEVEL_MODEL --input=SCANS",
        ),
    ],
)
def test_an_exported_model_is_named_as_what_it_can_be(tmp_path, task, recipe, expected, tiny):
    loss = "ce" if task == "classify" else "dice_ce"
    config = Config(task=task, loss=loss, backbone="resnet18").of_table(SEGTHOR)
    save_run(tmp_path / NAME / "run", config, recipe)
    workdir, model = (shlex.quote(f"{NAME}/{name}") for name in ("run", "model"))
    said = shell(f"python -m serving.export --workdir={workdir} --output={model}", tmp_path, True)
    expected = expected.format(plain=model, listed=shlex.quote(listed(f"{NAME}/model")))
    assert f"python -m serving.predict {expected} --output=" in hinted(said)


def test_the_driver_knows_phantoms_by_their_own_mark(tmp_path):
    phantom.write_dataset(str(tmp_path), 0, 0, "small", 0)
    assert os.listdir(tmp_path) == [driver._PHANTOMS]
