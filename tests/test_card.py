"""The model card: its numbers are those of manifest, run and model, and people can read it."""

import csv
import dataclasses
import json

import dicom_phantoms as phantoms
import numpy as np
import pytest
import slices
from programs import run_entry
from test_predict import affine_of, planted, save_scan
from tiny_models import coded_scan, save_coded

from segthor import json_files, organs, scans
from segthor import model_directory as directory
from segthor.errors import InputError
from segthor.figures import OrganFigures
from segthor.manifest import Audit, Dataset
from segthor.organs import SEGTHOR
from serving import card, card_text
from serving.prediction import postprocess
from serving.review import expectation
from serving.review.evidence import FEATURES
from serving.scoring.page import markdown
from trainer import run
from trainer.config import Config

NAMES = SEGTHOR.names
LIMIT = 'Esophagus below the carina | see "our" protocol <b>'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dataset `data`, a run of it `run` with scores, and a model with its card, `model`."""
    folder = tmp_path_factory.mktemp("card")
    made = slices.make(folder / "data", patients=9, contoured={"Patient_01": ("heart", "aorta")})
    rows = []
    for number, row in enumerate(made.patients):
        figures = OrganFigures(500.0, 90.0, 20.0 + 30 * number, 1, 0, (0.0, 0.0, 0.0))
        rows.append(dataclasses.replace(row, audit=Audit((), {"heart": figures})))
    dataclasses.replace(made, patients=tuple(rows)).save(str(folder / "data"))
    (folder / "run").mkdir()
    with open(folder / "run" / "best_patients.csv", "w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["patient", *NAMES])
        table.writerows([["Patient_03", 0.7, 0.9, 0.8, ""], ["Patient_06", 0.8, 0.92, 0.9, ""]])
    version = save_coded(folder / "model")
    card.save(version, card.make(record_of(folder), str(folder / "run"), "best", "", LIMIT))
    return folder


def record_of(folder):
    data = run.Data(str(folder / "data"), Dataset.load(str(folder / "data")).digest())
    config = Config(organs=NAMES)
    versions = {"tensorflow": "2.21.0"}
    recipe = Dataset.load(str(folder / "data")).recipe
    summary = {"steps": 100, "best": {"step": 90}}
    return run.RunRecord(
        config, recipe, NAMES, SEGTHOR, data, 1, None, versions, None, None, summary
    )


def assets(folder):
    return folder / "model" / "1" / "assets"


def test_the_population_is_the_manifests(folder):
    found = json.loads((assets(folder) / "model_card.json").read_text())
    train = found["population"]["train"]
    # Two of three patients train; they hold 7, 8 and 9 slices in turn, of 3 x 1.5 x 1.5 mm.
    assert train["patients"] == 6 and train["slices"] == 3 * (7 + 8)
    assert found["population"]["validation"]["slices"] == 3 * 9
    assert train["scans"]["slice_mm"] == [3.0, 3.0, 3.0]
    assert train["scans"]["field_of_view_mm"] == [48.0, 48.0, 48.0]
    assert train["scans"]["length_mm"] == [21.0, 22.5, 24.0]
    assert train["organs"]["heart"]["patients"] == 6
    assert train["organs"]["trachea"]["patients"] == 5  # Patient_01 has none
    # Mean HU of 20, 50, 110, 140, 200 and 230 in patients 1, 2, 4, 5, 7 and 8.
    assert train["organs"]["heart"]["mean_hu"] == [20.0, 125.0, 230.0]
    assert train["organs"]["heart"]["above_contrast_hu"] == 4
    assert train["organs"]["aorta"]["volume_cm3"] is None


def test_scores_and_limits_are_those_of_the_held_out_patients(folder):
    found = json.loads((assets(folder) / "model_card.json").read_text())
    dice = found["scores"]["esophagus"]["dice"]
    assert dice["mean"] == pytest.approx(0.75) and dice["lowest"] == 0.7 and dice["count"] == 2
    assert 0.7 <= dice["low"] <= 0.75 <= dice["high"] <= 0.8
    assert found["scores"]["aorta"] == {}
    limits = "\n".join(found["limits"])
    assert "It was trained on 6 patients only." in limits
    assert "esophagus: the mean Dice of the held-out patients is 0.75." in limits
    assert "aorta: no held-out patient has a score." in limits
    assert "trachea is contoured in 5 of 6 training patients." in limits
    assert "heart" not in limits


def test_the_text_answers_what_a_site_asks(folder):
    text = (assets(folder) / "model_card.md").read_text()
    digest = directory.digest(str(folder / "model" / "1"))
    for words in (
        f"Model `{digest}`: esophagus, heart, trachea, aorta.",
        "| esophagus | 1 | Esophagus | 32849002 | from the 4th cervical vertebra to the",
        "6 patients with 45 slices for training, 3 with 27 slices held out.",
        "| slice distance, mm | 3, 3, 3 | 3, 3, 3 |",
        "| heart | Dice | 2 | 0.910 | 0.900 to 0.920 | 0.910 | 0.900 |",
        "The model is not calibrated",
        f"- {LIMIT}\n",
        "It is no medical device",
        "| tensorflow | 2.21.0 |",
        "position",
    ):
        assert words in text, words
    assert "Patient_0" not in text and "None" not in text.replace("None: the run", "")


def test_calibration_and_rules_come_in_later(folder, tmp_path):
    version = save_coded(tmp_path / "model")
    card.refresh(version)  # a model without a card keeps working
    assert card.read(version) is None
    card.save(version, card.make(record_of(folder), str(folder / "run"), "last", "For trials.", ""))
    line = {"organ": "heart", "scans": "all", "count": 9, "mean_dice": 0.9, "auroc": None}
    expectation.Calibration(expectation.FORMAT, FEATURES, 9, 90, {}, {}, (line,)).save(version)
    postprocess.save(version, {"heart": postprocess.Rule(largest=True, fill_holes=True)}, [])
    card.refresh(version)
    text = (tmp_path / "model" / "1" / "assets" / "model_card.md").read_text()
    assert "Calibrated on 9 patients (90 scans" in text
    assert "| heart | all | 9 | 0.900 | none |" in text
    assert "Post-processing: heart: largest piece, holes filled." in text
    assert "For trials." in text and "The exported checkpoint is the last one." in text


@pytest.mark.parametrize("missing", ["gone", "changed"])
def test_a_population_that_is_not_known_is_said(folder, tmp_path, missing):
    record = record_of(folder)
    data = {
        "gone": run.Data(str(tmp_path / "gone"), "0"),
        "changed": run.Data(record.data.folder, "0"),
    }
    made = card.make(dataclasses.replace(record, data=data[missing]), str(tmp_path), "best", "", "")
    version = save_coded(tmp_path / "model")
    card.save(version, made)
    text = (tmp_path / "model" / "1" / "assets" / "model_card.md").read_text()
    assert "Not described: the dataset" in text and "no scores of its best checkpoint" in text


@pytest.mark.parametrize("damaged", [["no card"], {"format": 2}, {"format": 1}, None])
def test_a_damaged_card_is_one_line(tmp_path, damaged):
    version = save_coded(tmp_path / "model")
    json_files.write(directory.asset(version, card.JSON), damaged)
    with pytest.raises(InputError, match="expected a model card of format 1"):
        card.read(version)
    json_files.write(str(tmp_path / "model_card_0.json"), damaged)
    with pytest.raises(InputError, match="model_card_0.json: expected a model card"):
        card.of_predictions(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("best_patients.csv", "patient,esophagus\nA,1\n"),
        ("best_patients.csv", "patient,esophagus,heart,trachea,aorta\nA,1,1,many,1\n"),
        ("best_surfaces.csv", "patient,organ\nA,heart\n"),
    ],
)
def test_damaged_scores_of_a_run_are_one_line(folder, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=f"{name}.*expected"):
        card.make(record_of(folder), str(tmp_path), "best", "", "")


def test_the_report_shows_the_card_of_the_model_that_predicted(folder, tmp_path):
    labels = planted()
    save_scan(tmp_path / "scans" / "A.nii.gz", coded_scan(labels), affine_of())
    flags = {"input": tmp_path / "scans", "output": tmp_path / "out"}
    done = run_entry("serving.predict", model=folder / "model", **flags)
    assert done.returncode == 0, done.stderr
    report = {"predictions": tmp_path / "out", "scans": tmp_path / "scans", "nogif": ""}
    report.pop("nogif")
    done = run_entry("serving.report", output=tmp_path / "report", gif="false", **report)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("<summary>Model card</summary>") == 1
    assert "<h2>Model card</h2>" in page and "&lt;b&gt;" in page
    assert "<td>from the 4th cervical vertebra" in page
    # Another model's predictions bring another card.
    save_coded(tmp_path / "other", names=organs.SEGTHOR.names[:2])
    done = run_entry("serving.predict", model=tmp_path / "other", overwrite="true", **flags)
    assert done.returncode == 0, done.stderr
    assert card.of_predictions(str(tmp_path / "out")) == []


def test_markdown_becomes_html_and_nothing_in_it_is_obeyed():
    text = "# A <script>\n\n- one `x`\n- **two**\n\n| a | b |\n|---|---|\n| 1 \\| 2 | & |\n\nplain"
    assert markdown.as_html(text) == (
        "<h2>A &lt;script&gt;</h2>\n<ul><li>one <code>x</code></li><li><b>two</b></li></ul>\n"
        "<table><tr><th>a</th><th>b</th></tr><tr><td>1 | 2</td><td>&amp;</td></tr></table>\n"
        "<p>plain</p>"
    )


def test_the_rule_of_contouring_changes_neither_digest_nor_equality():
    bare = organs.Organs(tuple(dataclasses.replace(organ, contouring="") for organ in SEGTHOR))
    assert bare == SEGTHOR and bare.digest() == SEGTHOR.digest()
    assert [row.get("contouring") for row in SEGTHOR.to_json()] == [o.contouring for o in SEGTHOR]
    assert all("contouring" not in row for row in bare.to_json())
    assert len(np.unique([organ.contouring for organ in SEGTHOR])) == 4
    assert card_text.markdown  # the module needs no TensorFlow; see test_walls


@pytest.mark.parametrize(
    ("maker", "known"),
    [("GE MEDICAL SYSTEMS", "ge"), ("Siemens Healthineers", "siemens"), ("St. Mary's, Geneva", "")],
)
def test_the_scanner_is_named_by_known_words_alone(tmp_path, maker, known):
    def change(dataset, k=0):
        dataset.Manufacturer, dataset.ConvolutionKernel = maker, "B30f"
        dataset.ContrastBolusAgent = "agent of Jane Doe"

    hu, affine = phantoms.posed(coded_scan(planted()), affine_of(), "FFS")
    phantoms.write_series(tmp_path / "A", hu, affine, patient_position="FFS", change=change)
    found = scans.read(str(tmp_path / "A")).acquisition
    expected = {"kernel": "B30f", "position": "FFS", "contrast agent": "yes"}
    assert found == expected | ({"maker": known} if known else {})


def test_scanners_and_positions_are_counted(folder, tmp_path):
    made = Dataset.load(str(folder / "data"))
    rows = [
        dataclasses.replace(row, acquisition={"maker": "ge", "position": position})
        for row, position in zip(made.patients, ["HFS", "FFS", "HFS"] * 3, strict=True)
    ]
    dataclasses.replace(made, patients=tuple(rows)).save(str(tmp_path / "data"))
    record = dataclasses.replace(
        record_of(folder), data=run.Data(str(tmp_path / "data"), made.digest())
    )
    version = save_coded(tmp_path / "model")
    card.save(version, card.make(record, str(tmp_path), "best", "", ""))
    text = (tmp_path / "model" / "1" / "assets" / "model_card.md").read_text()
    assert "Of 6 training patients: maker: ge (6); position: FFS (3), HFS (3)." in text


@pytest.mark.parametrize(
    "recipe, expected",
    [
        ({"context": 3}, "3 neighbouring slices"),
        ({"context": 3, "context_mm": 2.5}, "3 slices 2.5 mm apart"),
    ],
)
def test_the_slices_of_the_input_are_described(recipe, expected):
    assert card_text._context(recipe) == expected
