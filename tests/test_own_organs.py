"""A site's own table: an organ more is one line of a CSV, and every program knows it."""

import csv
import json
import zipfile

import nibabel
import numpy as np
import programs
import pytest
from cases import TINY_RECIPE, save, tiny_patient
from programs import run_entry

from segthor import organ_table, records
from segthor.errors import InputError
from segthor.geometry import Placement
from segthor.manifest import Audit, Built, Dataset, Shard
from segthor.organs import SEGTHOR, Organ, Organs
from segthor.recipe import Recipe
from serving.scoring import pairs

# Not SegTHOR's order, numbers with gaps, and ranges for one organ alone.
FOUR = """# our site
name,label,rgb,volume_cm3,side,left_of
aorta,40,70 130 255,,,
heart,2,255 130 190,250 to 2200,,trachea
trachea,9,250 210 40,,,
esophagus,100,230 60 60,,,
"""
FIFTH = "spinal_cord,255,1 2 3,,,\n"
LABELS = {"aorta": 40, "heart": 2, "trachea": 9, "esophagus": 100, "spinal_cord": 255}
CORD = (slice(22, 26), slice(22, 26), slice(2, 14))


def drawn(made, names) -> np.ndarray:
    """A phantom's contours as the site numbers them, and what it contours beside them."""
    labels = np.zeros(made.labels.shape, np.uint8)
    for label, name in enumerate(("esophagus", "heart", "trachea", "aorta"), 1):
        labels[made.labels == label] = LABELS[name]
    if "spinal_cord" in names:
        labels[CORD][made.labels[CORD] == 0] = LABELS["spinal_cord"]
    return labels


def run(module, **flags) -> str:
    done = programs.run(["-m", module, *programs.as_flags(**flags)], tiny=True)
    assert done.returncode == 0, f"{module}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """(folder, said): patients with a fifth organ through all programs, and what these said."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "organs.csv").write_text(FOUR + FIFTH)
    for number in range(1, 7):
        made = tiny_patient(number)
        place = folder / "patients" / "train" / f"P{number}"
        save(place / f"P{number}.nii.gz", made.hu, made.affine)
        save(place / "GT.nii.gz", drawn(made, LABELS), made.affine)
    trained = {"batch_size": 4, "steps": 2, "shuffle_buffer": 8, "backbone": "resnet18"}
    found = {"predictions": folder / "predictions", "scans": folder / "patients"}
    said = {
        "build": run("beam_jobs.build", input=folder / "patients", output=folder / "dataset",
                     organ_table=folder / "organs.csv", validation_fraction=0.4, **TINY_RECIPE),
        "verify": run("beam_jobs.verify", data=folder / "dataset"),
        "inspect": run("beam_jobs.inspect", data=folder / "dataset"),
        "train": run("trainer.main", data=folder / "dataset", workdir=folder / "run", **trained),
        "export": run("serving.export", workdir=folder / "run", output=folder / "model"),
        "predict": run("serving.predict", model=folder / "model", input=folder / "patients",
                       output=folder / "predictions", probabilities=True),
        "tune": run("serving.tune", model=folder / "model", predictions=folder / "predictions",
                    labels=folder / "dataset"),
        "evaluate": run("serving.evaluate", labels=folder / "patients",
                        output=folder / "evaluation", **found),
        "report": run("serving.report", labels=folder / "dataset", output=folder / "report",
                      **found),
        "submission": run("serving.submission", output=folder / "entry.zip", **found),
    }  # fmt: skip
    return folder, said


def test_the_dataset_holds_the_sites_organs(site):
    folder, said = site
    dataset = Dataset.load(str(folder / "dataset"))
    assert dataset.organs.names == tuple(LABELS)
    assert {row.organs for row in dataset.patients} == {tuple(LABELS)}
    assert set(dataset.statistics.hu_percentiles) == set(LABELS)
    seen = set()
    for shard in dataset.shards:
        for record in records.slices(str(folder / "dataset" / shard.file)):
            assert record.contoured == (1,) * 5
            values = set(np.unique(record.labels)) - {0}
            assert record.present == tuple(int(label in values) for label in LABELS.values())
            seen |= values
    assert seen == set(LABELS.values())
    assert "spinal_cord" in said["inspect"]
    assert "spinal_cord: volume_cm3" in (folder / "dataset" / "audit.html").read_text()


def test_the_run_learns_all_of_them_and_the_model_says_so(site):
    folder, _ = site
    run_json = json.loads((folder / "run" / "run.json").read_text())
    assert run_json["organs"] == list(LABELS)
    classes = json.loads((folder / "model" / "1" / "assets" / "organs.json").read_text())
    assert [(row["name"], row["label"]) for row in classes] == [("background", 0), *LABELS.items()]
    assert classes[-1]["rgb"] == [1, 2, 3]


def test_label_maps_hold_the_sites_numbers_and_each_organ_is_scored_and_shown(site):
    folder, said = site
    for path in (folder / "predictions").glob("*.nii.gz"):
        values = set(np.unique(np.asarray(nibabel.load(path).dataobj)).tolist())
        assert values - {0} <= set(LABELS.values())
        facts = json.loads((folder / "predictions/cases" / f"{path.name[:2]}.json").read_text())
        assert facts["organs"] == list(LABELS) == list(facts["volumes_cm3"])
        assert (
            folder / "predictions/probabilities" / f"{path.name[:2]}_spinal_cord.nii.gz"
        ).exists()
    with open(folder / "evaluation" / "scores.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["organ"] for row in rows] == list(LABELS) * 6
    truth = {row["organ"]: float(row["truth_cm3"]) for row in rows}
    assert all(truth.values())
    assert "SEGTHOR'S OWN" not in said["evaluate"]
    html = (folder / "report" / "report.html").read_text()
    start = html.index('id="data">') + len('id="data">')
    page = json.loads(html[start : html.index("</script>", start)])
    assert [(o["name"], o["key"]) for o in page["organs"]] == [
        ("aorta", "a"), ("heart", "h"), ("trachea", "r"), ("esophagus", "e"), ("spinal_cord", "s"),
    ]  # fmt: skip
    assert len(zipfile.ZipFile(folder / "entry.zip").namelist()) == 6
    assert said["submission"].count("spinal_cord") == 6 and "spinal_cord" in said["tune"]


def test_some_of_the_organs_may_be_learned_and_are_scored_against_contours_of_all(site):
    folder, _ = site
    trained = {"batch_size": 4, "steps": 1, "shuffle_buffer": 8, "backbone": "resnet18"}
    wanted = "spinal_cord,heart"
    run("trainer.main", data=folder / "dataset", workdir=folder / "two", organs=wanted, **trained)
    run("serving.export", workdir=folder / "two", output=folder / "model_two")
    classes = json.loads((folder / "model_two" / "1" / "assets" / "organs.json").read_text())
    assert [row["label"] for row in classes] == [0, 255, 2]
    run("serving.predict", model=folder / "model_two", input=folder / "patients",
        output=folder / "predictions_two")  # fmt: skip
    for labels in (folder / "patients", folder / "dataset"):
        run("serving.evaluate", predictions=folder / "predictions_two", labels=labels,
            output=folder / "evaluation_two")  # fmt: skip
        text = (folder / "evaluation_two" / "scores.csv").read_text()
        assert text.count(",heart,") == text.count(",spinal_cord,") == 6
        assert "aorta" not in text


@pytest.mark.parametrize(
    "module, flags, words",
    [
        ("trainer.main", {"data": "dataset", "organs": "heart,liver"}, "some of aorta, heart"),
        ("serving.evaluate", {"organs": "liver"}, "some of aorta,heart,trachea,esophagus,spinal"),
    ],
)  # fmt: skip
def test_an_organ_that_the_table_lacks_is_one_line(site, tmp_path, module, flags, words):
    folder, _ = site
    flags = {name: folder / value if name == "data" else value for name, value in flags.items()}
    if module == "trainer.main":
        flags["workdir"] = tmp_path / "run"
    else:
        flags |= {"predictions": folder / "predictions", "labels": folder / "patients"}
        flags["output"] = tmp_path / "out"
    done = run_entry(module, **flags)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(errors) == 1 and words in errors[0]


def test_predictions_and_contours_that_number_an_organ_differently_are_one_line(site, tmp_path):
    folder, _ = site
    (tmp_path / "dataset").mkdir()
    text = (folder / "dataset" / "dataset.json").read_text()
    (tmp_path / "dataset" / "dataset.json").write_text(
        text.replace('"label":40', '"label":41').replace('"label": 40', '"label": 41')
    )
    done = run_entry("serving.evaluate", predictions=folder / "predictions",
                     labels=tmp_path / "dataset", output=tmp_path / "out")  # fmt: skip
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "label of aorta: 41 in " in done.stderr and ", 40 in " in done.stderr


def test_a_dataset_may_have_contours_of_more_organs_than_the_predictions(tmp_path):
    """The older model of four organs, scored on a dataset of seven."""
    thorax = organ_table.read("configs/organs/thorax.csv")
    made = tiny_patient(1)
    labels = made.labels.copy(order="K")
    labels[CORD][made.labels[CORD] == 0] = thorax["lung_left"].label
    save(tmp_path / "p" / "P1.nii.gz", made.labels, made.affine)
    (tmp_path / "p" / "predictions.json").write_text(json.dumps({"organs": SEGTHOR.to_json()}))
    gt = save(tmp_path / "GT.nii.gz", labels, made.affine)
    names = (*SEGTHOR.names, "lung_left")
    placement = Placement((10, 96, 96), (2.5, 0.9, 0.98), (0.0, 0.0), (1.0, 1.0), 96)
    built = Built("P1", "", gt, "", "train", 0, 1, names, 50.0, placement, Audit())
    shard = Shard("a.tfrecord", "train", 0, 1, 1, "", ("P1",))
    Dataset(Recipe(), 1, (shard,), (built,), organs=thorax).save(str(tmp_path / "dataset"))
    organs = pairs.table_of(str(tmp_path / "p"), str(tmp_path / "dataset"))
    assert organs.names == thorax.names
    run("serving.evaluate", predictions=tmp_path / "p", labels=tmp_path / "dataset",
        output=tmp_path / "out", organs=",".join(SEGTHOR.names))  # fmt: skip
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert set(scores["organs"]) == set(SEGTHOR.names) and scores["mean"]["dice"] == 1
    other = Organs((Organ("liver", 2, (1, 2, 3)),))
    (tmp_path / "p" / "predictions.json").write_text(json.dumps({"organs": other.to_json()}))
    with pytest.raises(InputError, match="label 2 belongs to liver and to heart; expected pred"):
        pairs.table_of(str(tmp_path / "p"), str(tmp_path / "dataset"))
