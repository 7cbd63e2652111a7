"""DICOM in, DICOM out: predictions come back as structure sets and SEG of the scanner's series."""

import csv
import json
import shutil
from pathlib import Path

import dicom_phantoms as phantoms
import numpy as np
import pydicom
import pytest
from programs import run_entry
from structure_cases import by_plastimatch, needs_dciodvfy, needs_plastimatch, validated
from test_predict import affine_of, planted
from tiny_models import coded_scan, save_coded

from segthor import scans
from segthor.dicom import places, trees
from segthor.organs import SEGTHOR
from segthor.volume import Grid
from tests import file_order

POSES = {"hfs": ("HFS", 0.0), "ffp": ("FFP", 0.0), "hfdr": ("HFDR", 0.0), "tilted": ("HFS", 12.0)}
LABELS = planted()


def save_series(folder, name, pose="HFS", tilt=0.0):
    """Writes the planted label map as a series whose grey levels tell it; returns it as posed."""
    hu, affine = phantoms.posed(coded_scan(LABELS), affine_of(), pose, tilt)
    names = dict.fromkeys(("patient", "study", "series", "frame"), name)
    phantoms.write_series(folder / name, hu, affine, patient_position=pose, **names)
    return phantoms.posed(LABELS, affine_of(), pose, tilt)[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_coded(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def done(model, tmp_path_factory):
    """(folder of series, predictions, label maps as posed, what the entry said)."""
    folder = tmp_path_factory.mktemp("dicom")
    truth = {name: save_series(folder / "in", name, *pose) for name, pose in POSES.items()}
    said = predict(model, folder / "in", folder / "out")
    assert said.returncode == 0, said.stdout + said.stderr
    return folder / "in", folder / "out", truth, said.stdout + said.stderr


def predict(model, scans_at, output, formats="nifti,rtstruct,seg", **flags):
    return run_entry(
        "serving.predict", model=model, input=scans_at, output=output, formats=formats, **flags
    )


def objects(output):
    return {path.name: path.read_bytes() for path in sorted((output / "dicom").iterdir())}


@pytest.mark.parametrize("name", POSES)
def test_label_map_and_structure_set_are_the_planted_organs(done, name):
    given, output, truth, _ = done
    found = file_order.read(str(output / f"{name}.nii.gz"))
    stack = places.stack(str(given / name))
    np.testing.assert_array_equal(found.array, truth[name])
    np.testing.assert_array_equal(found.grid.affine, stack.grid.affine)
    drawn = str(output / "dicom" / f"{name}_rtstruct.dcm")
    refilled = scans.read_labels(drawn, ct=str(given / name), organs=SEGTHOR)
    np.testing.assert_array_equal(file_order.of(refilled).array, truth[name])
    assert refilled.contoured == SEGTHOR.names and not refilled.findings


@pytest.mark.parametrize("name", POSES)
def test_segments_hold_the_organs_slice_by_slice(done, name):
    given, output, truth, _ = done
    made = pydicom.dcmread(output / "dicom" / f"{name}_seg.dcm")
    stack, frames = places.stack(str(given / name)), made.pixel_array
    found = np.zeros_like(truth[name])
    for frame, item in zip(frames, made.PerFrameFunctionalGroupsSequence, strict=True):
        position = item.PlanePositionSequence[0].ImagePositionPatient
        k = np.linalg.norm(stack.positions_mm - np.array(position, float), axis=1).argmin()
        segment = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[..., k][frame.T > 0] = segment
    np.testing.assert_array_equal(found, truth[name])


@needs_plastimatch
@pytest.mark.parametrize("name", ["hfs", "ffp", "hfdr"])
def test_another_program_finds_the_organs_in_place(done, tmp_path, name):
    given, output, truth, _ = done
    drawn = output / "dicom" / f"{name}_rtstruct.dcm"
    masks = by_plastimatch(drawn, given / name, tmp_path / "masks", "--xor-contours")
    for organ, roi in zip(SEGTHOR, ("Esophagus", "Heart", "Trachea", "A_Aorta"), strict=True):
        assert np.count_nonzero(masks[roi] != (truth[name] == organ.label)) <= 5


@needs_dciodvfy
def test_a_validator_finds_no_error(done):
    _, output, _, _ = done
    for path in (output / "dicom").iterdir():
        assert not [line for line in validated(path) if line.startswith("Error")], path.name


def test_nothing_of_the_patient_is_said(done):
    assert "copy" not in done[3] and "PatientName" not in done[3]


def test_a_finished_case_stays_and_another_format_is_made(model, done, tmp_path):
    given, output, _, _ = done
    shutil.copytree(output, tmp_path / "out")
    before = objects(tmp_path / "out")
    said = predict(model, given, tmp_path / "out")
    assert "4 of them done before" in said.stdout and objects(tmp_path / "out") == before
    said = predict(model, given, tmp_path / "out", formats="rtstruct,labelmap")
    assert "0 of them done before" in said.stdout and said.returncode == 0
    after = objects(tmp_path / "out")
    assert {name.rpartition("_")[2] for name in after} == {"rtstruct.dcm", "labelmap.dcm"}
    same = [name for name in after if name in before]
    assert same and all(after[name] == before[name] for name in same)


def test_a_folder_of_predictions_among_the_series_is_passed_over(model, done, tmp_path):
    given, output, _, _ = done
    shutil.copytree(given / "hfs", tmp_path / "tree" / "hfs")
    shutil.copytree(output, tmp_path / "tree" / "predictions")
    (one,) = trees.patients(str(tmp_path / "tree"), SEGTHOR.names)
    assert (one.name, one.labels) == ("hfs", "")


def test_a_scan_without_dicom_images_cannot_have_a_structure_set(model, tmp_path):
    grid = Grid(LABELS.shape, affine_of())
    file_order.write(str(tmp_path / "in" / "P1.nii.gz"), coded_scan(LABELS), grid)
    said = predict(model, tmp_path / "in", tmp_path / "out", formats="rtstruct")
    assert said.returncode == 1
    assert "P1.nii.gz: --formats=rtstruct needs DICOM images to refer to" in said.stdout
    said = predict(model, tmp_path / "in", tmp_path / "out2", formats="dicom")
    assert said.returncode == 2 and "found dicom" in said.stderr


def test_an_empty_label_map_has_no_structure_set(model, tmp_path):
    hu, affine = phantoms.posed(coded_scan(np.zeros_like(LABELS)), affine_of())
    phantoms.write_series(tmp_path / "in" / "P1", hu, affine)
    for expected in ("0 of them done before", "1 of them done before"):
        said = predict(model, tmp_path / "in", tmp_path / "out")
        assert said.returncode == 0 and expected in said.stdout, said.stdout + said.stderr
    assert [path.name for path in (tmp_path / "out" / "dicom").iterdir()] == ["P1_seg.dcm"]
    facts = json.loads((tmp_path / "out" / "cases" / "P1.json").read_text())
    assert facts["objects"] == {"rtstruct": False, "seg": True}


def test_label_maps_that_lie_there_are_converted(done, tmp_path):
    given, output, truth, _ = done
    (tmp_path / "corrected").mkdir()
    for name in ("hfs", "stranger"):
        shutil.copy(output / "hfs.nii.gz", tmp_path / "corrected" / f"{name}.nii.gz")
    flags = {"predictions": tmp_path / "corrected", "scans": given, "output": tmp_path / "out"}
    said = run_entry("serving.convert", formats="rtstruct,seg", **flags)
    assert said.returncode == 1 and "MISSING: stranger" in said.stdout, said.stdout + said.stderr
    made = Path(tmp_path / "out" / "hfs_rtstruct.dcm")
    found = scans.read_labels(str(made), ct=str(given / "hfs"), organs=SEGTHOR)
    np.testing.assert_array_equal(file_order.of(found).array, truth["hfs"])
    again = run_entry("serving.convert", formats="rtstruct,seg", **flags)
    assert "hfs  is there already" in again.stdout
    before = made.read_bytes()
    run_entry("serving.convert", formats="rtstruct", overwrite=True, **flags)
    assert made.read_bytes() == before
    refused = run_entry("serving.convert", **flags | {"output": tmp_path / "corrected"})
    assert refused.returncode == 2 and "is read there" in refused.stderr


@pytest.fixture(scope="module")
def drawn(done, tmp_path_factory):
    """Label maps beside the predictions, and scores of the predicted label maps against them."""
    folder = tmp_path_factory.mktemp("drawn")
    for name in POSES:
        stored = file_order.read(str(done[1] / f"{name}.nii.gz"))
        file_order.write(str(folder / f"{name}.nii.gz"), np.roll(stored.array, 1, 0), stored.grid)
    assert evaluate(done[1], folder, folder / "scores").returncode == 0
    return folder


def evaluate(predictions, labels, output, **flags):
    return run_entry(
        "serving.evaluate", predictions=predictions, labels=labels, output=output, **flags
    )


def copied(done, folder, *names):
    """The structure sets of some patients, under names that say nothing."""
    folder.mkdir()
    for number, name in enumerate(names):
        shutil.copy(done[1] / f"dicom/{name}_rtstruct.dcm", folder / f"RS.{number}")
    return folder


def test_structure_sets_have_the_scores_of_their_label_maps(done, drawn, tmp_path):
    folder = copied(done, tmp_path / "sets", *POSES)
    said = evaluate(folder, drawn, tmp_path / "scores", scans=done[0])
    assert said.returncode == 0, said.stdout + said.stderr
    expected = (drawn / "scores/scores.csv").read_bytes()
    assert (tmp_path / "scores/scores.csv").read_bytes() == expected
    assert (tmp_path / "scores/overlay.png").exists()
    report = run_entry(
        "serving.report",
        **{"predictions": folder, "labels": drawn, "scans": done[0], "output": tmp_path / "page"},
        gif="false",
    )
    assert report.returncode == 0, report.stdout + report.stderr


def test_two_sets_of_one_scan_are_told_apart_by_a_csv(done, drawn, tmp_path):
    folder = copied(done, tmp_path / "sets", "hfs", "ffp")
    other = pydicom.dcmread(folder / "RS.0")
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    other.save_as(folder / "RS.9")
    said = evaluate(folder, drawn, tmp_path / "scores", scans=done[0])
    assert said.returncode == 1
    assert "MISSING: hfs: expected one structure set, found" in said.stdout
    assert "MISSING: tilted: no label map" in said.stdout
    table = tmp_path / "predictions.csv"
    table.write_text(f"patient,ct,labels\nhfs,{done[0] / 'hfs'},sets/RS.9\n")
    evaluate(table, drawn, tmp_path / "chosen")
    with open(tmp_path / "chosen/scores.csv") as stream:
        found = list(csv.DictReader(stream))
    with open(drawn / "scores/scores.csv") as stream:
        expected = [row for row in csv.DictReader(stream) if row["patient"] == "hfs"]
    assert found == expected


def test_an_organ_that_a_set_lacks_is_scored_as_not_found_and_said(done, drawn, tmp_path):
    folder = copied(done, tmp_path / "sets", "hfs")
    dataset = pydicom.dcmread(folder / "RS.0")
    for roi in dataset.StructureSetROISequence:
        if roi.ROIName == "Heart":
            roi.ROIName = "Cor"
    dataset.save_as(folder / "RS.0")
    said = evaluate(folder, drawn, tmp_path / "scores", scans=done[0])
    assert "warning: no contours of heart: scored as not found" in said.stdout
    scores = json.loads((tmp_path / "scores/scores.json").read_text())
    assert '"dice": 0.0' in json.dumps(scores)
    (tmp_path / "names.csv").write_text("organ,name\nheart,Cor\n")
    named = {"scans": done[0], "roi_names": tmp_path / "names.csv"}
    said = evaluate(folder, drawn, tmp_path / "named", **named)
    assert "not found" not in said.stdout
    found = (tmp_path / "named/scores.csv").read_text().splitlines()
    assert set(found) < set((drawn / "scores/scores.csv").read_text().splitlines())


def test_a_table_of_organs_is_for_where_none_is_noted(done, drawn, tmp_path):
    table = Path("configs/organs/thorax.csv").resolve()
    said = evaluate(done[1], drawn, tmp_path / "scores", organ_table=table)
    assert said.returncode == 2 and "--organ_table: " in said.stderr
    folder = copied(done, tmp_path / "sets", *POSES)
    said = evaluate(folder, drawn, tmp_path / "scores", scans=done[0], organ_table=table)
    assert said.returncode == 0 and "spinal_cord" in (tmp_path / "scores/scores.csv").read_text()
