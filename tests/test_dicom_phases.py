"""A 4D CT through prediction, evaluation and conversion: each phase is a case of its own."""

import json
import shutil

import dicom_phantoms as phantoms
import file_order
import numpy as np
import pydicom
import pytest
from programs import run_entry
from structure_cases import validated
from test_predict import affine_of, planted
from tiny_models import coded_scan, save_coded

from segthor import inputs
from segthor.dicom.index import series_name

PHASES = 10
BROKEN = 4


def write_phases(folder, change=lambda phase, dataset: None):
    """Ten series of one folder whose grey levels tell each phase's own labels."""
    truth = {}
    for phase in range(PHASES):
        labels = planted(seed=phase)
        hu, affine = phantoms.posed(coded_scan(labels), affine_of())
        names = dict.fromkeys(("patient", "study", "frame"), "P") | {"series": str(phase)}
        phantoms.write_series(
            folder, hu, affine, change=lambda d, k, phase=phase: change(phase, d), **names
        )
        name = f"P_{series_name(phantoms.uid('series', str(phase)))}"
        truth[name] = phantoms.posed(labels, affine_of())[0]
    return truth


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_coded(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def done(model, tmp_path_factory):
    """(scans, predictions, label maps as they must be, what the program said)."""
    folder = tmp_path_factory.mktemp("phases")
    truth = write_phases(folder / "in/P")
    broken = folder / f"in/P/{BROKEN}-005.dcm"
    broken.write_bytes(broken.read_bytes()[:-40])  # its pixels end too soon
    flags = dict(model=model, input=folder / "in", output=folder / "out", formats="nifti,rtstruct")
    said = run_entry("serving.predict", **flags)
    return folder / "in", folder / "out", truth, said


def test_each_phase_is_predicted_and_the_broken_one_fails_alone(done):
    _, output, truth, said = done
    broken = f"P_{series_name(phantoms.uid('series', str(BROKEN)))}"
    assert said.returncode == 1 and said.stdout.count("failed: ") == 1
    assert f"failed: {broken}" in said.stdout and f"{BROKEN}-005.dcm: truncated" in said.stdout
    assert {path.name for path in output.glob("*.nii.gz")} == {
        f"{name}.nii.gz" for name in truth if name != broken
    }
    for name, labels in truth.items():
        if name != broken:
            found = file_order.read(output / f"{name}.nii.gz")
            np.testing.assert_array_equal(found.array, labels)


def test_each_structure_set_refers_to_its_own_phase(done):
    _, output, truth, _ = done
    found = {}
    for path in sorted((output / "dicom").glob("*.dcm")):
        frame = pydicom.dcmread(path).ReferencedFrameOfReferenceSequence[0]
        (series,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
        found[path.name.removesuffix("_rtstruct.dcm")] = series_name(series.SeriesInstanceUID)
        assert not shutil.which("dciodvfy") or not validated(path)
    assert len(found) == PHASES - 1
    assert all(name == f"P_{series}" for name, series in found.items())


def test_a_second_run_leaves_the_finished_phases(model, done):
    given, output, _, _ = done
    flags = dict(model=model, input=given, output=output, formats="nifti,rtstruct")
    said = run_entry("serving.predict", **flags)
    assert "10 scans" in said.stdout and "9 of them done before" in said.stdout


def test_the_drawn_phase_is_evaluated_under_the_name_of_its_prediction(done, tmp_path):
    given, output, truth, _ = done
    name = f"P_{series_name(phantoms.uid('series', '3'))}"
    drawn = output / "dicom" / f"{name}_rtstruct.dcm"
    dataset = pydicom.dcmread(drawn)
    dataset.ApprovalStatus = "APPROVED"
    tree = tmp_path / "tree"
    write_phases(tree / "P")
    dataset.save_as(tree / "P" / "rs.dcm")
    flags = dict(predictions=output, labels=tree, scans=tree, output=tmp_path / "out")
    said = run_entry("serving.evaluate", **flags)
    assert "1 patients to score" in said.stdout, said.stdout + said.stderr
    scores = json.loads((tmp_path / "out/scores.json").read_text())["patients"]
    assert list(scores) == [name]
    assert all(row["dice"] == 1 for row in scores[name].values())
    flags = dict(predictions=output, labels=tree, scans=given, output=tmp_path / "report")
    said = run_entry("serving.report", gif="false", **flags)
    assert said.returncode == 1 and "10 patients, 1 of them failed" in said.stdout, said.stdout
    html = (tmp_path / "report/report.html").read_text()
    data = json.loads(html.partition('id="data">')[2].partition("</script>")[0])
    (entry,) = data["patients"]
    assert entry["name"] == "P" and {one["name"] for one in entry["phases"]} == set(truth)
    assert [one["phase"] for one in entry["phases"]] == [f"{k} of 10" for k in range(1, 11)]
    assert "failed" in entry["phases"][entry["worst"]]
    shapes = {
        (one["first"], one["width"], one["height"]) for one in entry["phases"] if "first" in one
    }
    assert len(shapes) == 1
    flags = dict(predictions=output, scans=given, output=tmp_path / "sets")
    said = run_entry("serving.convert", **flags)
    assert len(list((tmp_path / "sets").glob("*.dcm"))) == PHASES - 1


@pytest.mark.parametrize(
    "words, phases",
    [
        (["0 %", "30%", "60 %"], ["0 %", "30 %", "60 %"]),
        (["", "", ""], ["1 of 3", "2 of 3", "3 of 3"]),
        (["", ""], []),  # as two reconstructions may be
        (["30 %", "30 %"], []),
        (["30 %", ""], []),
    ],
)
def test_which_series_are_phases_of_one_ct(tmp_path, words, phases):
    hu, affine = phantoms.posed(coded_scan(planted()), affine_of())
    names = dict.fromkeys(("patient", "study", "frame"), "P")
    for number, text in enumerate(words):

        def describe(dataset, k, text=text, number=number):
            dataset.SeriesDescription, dataset.AcquisitionTime = text, f"1000{number:02d}"

        phantoms.write_series(tmp_path / "P", hu, affine, change=describe, series=number, **names)
    # Another series of the patient, on a grid of its own.
    phantoms.write_series(tmp_path / "P", hu[:-2], affine, series="other", **names)
    found = inputs.find(str(tmp_path), organs=None)
    assert len(found) == len(words) + 1
    ordered = sorted((one.phase, one.series) for one in found if one.phases)
    assert [phase for phase, _ in ordered] == phases
    if phases:
        expected = [series_name(phantoms.uid("series", number)) for number in range(len(words))]
        assert [name for _, name in ordered] == expected
        assert {one.phases for one in found if one.phase} == {expected[0]}


def test_one_image_uid_for_all_is_predicted_but_refused_as_dicom(model, tmp_path):
    hu, affine = phantoms.posed(coded_scan(planted()), affine_of())

    def change(dataset, k):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"

    phantoms.write_series(tmp_path / "in/P", hu, affine, change=change)
    flags = dict(model=model, input=tmp_path / "in")
    said = run_entry("serving.predict", output=tmp_path / "plain", **flags)
    assert said.returncode == 0 and (tmp_path / "plain/P.nii.gz").exists()
    said = run_entry("serving.predict", output=tmp_path / "sets", formats="rtstruct", **flags)
    assert said.returncode == 1 and "share a SOPInstanceUID" in said.stdout
    assert not list((tmp_path / "sets").rglob("*.dcm"))
