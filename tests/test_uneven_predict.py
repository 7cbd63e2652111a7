"""Scans with uneven planes and with gaps through the programs: build, predict, evaluate, report."""

import csv
import json
import shutil
from pathlib import Path

import dicom_phantoms as phantoms
import file_order
import numpy as np
import pydicom
import pytest
from cases import TINY_RECIPE, tiny_patient
from programs import run_entry
from structure_cases import needs_dciodvfy, validated, write_patient
from test_predict import affine_of, planted
from test_uneven import brute_force
from tiny_models import coded_scan, save_coded

import serving
from segthor import records, scans
from segthor.dicom import places
from segthor.errors import InputError
from segthor.manifest import Dataset
from segthor.organs import SEGTHOR

LABELS = planted()
DEPTH = LABELS.shape[2]
IN_HEART = int(np.flatnonzero((LABELS == 2).any((0, 1)))[1])  # with the heart below and above
LACKING = {
    "even": ("HFS", ()),
    "thirds": ("HFS", range(DEPTH // 2, DEPTH - 1, 3)),
    "feet": ("FFS", range(2, DEPTH - 1, 3)),
    "gap": ("HFS", (IN_HEART,)),
}


def save_series(folder, name):
    """A series whose grey levels tell the planted labels; returns these of its slices, as posed."""
    pose, lacking = LACKING[name]
    hu, affine = phantoms.posed(coded_scan(LABELS), affine_of(), pose)
    names = dict.fromkeys(("patient", "study", "series", "frame"), name)
    options = dict(patient_position=pose, missing=lacking)
    phantoms.write_series(folder / name, hu, affine, **options, **names)
    labels = phantoms.posed(LABELS, affine_of(), pose)[0]
    return np.delete(labels, list(lacking), axis=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_coded(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """(folder of series, labels of each, plane by plane)."""
    folder = tmp_path_factory.mktemp("series")
    return folder, {name: save_series(folder, name) for name in LACKING}


def predict(model, given, output, **flags):
    return run_entry("serving.predict", model=model, input=given[0], output=output, **flags)


@pytest.fixture(scope="module")
def done(model, given, tmp_path_factory):
    """(predictions in all formats, what was said)."""
    output = tmp_path_factory.mktemp("out") / "predictions"
    flags = dict(formats="nifti,rtstruct,seg", resample_z=True, allow_gaps=True)
    return output, predict(model, given, output, **flags)


def planes_of(given, name):
    return places.stack(str(given[0] / name)).grid.planes


def test_label_maps_and_structure_sets_hold_every_plane(done, given):
    output, said = done
    assert said.returncode == 0, said.stdout + said.stderr
    for name, labels in given[1].items():
        stack = places.stack(str(given[0] / name))
        like = str(given[0] / name), stack.grid
        expected = stack.grid.to_zyx(labels)
        found = scans.read_labels(str(output / f"{name}.nii.gz"), like, organs=SEGTHOR)
        np.testing.assert_array_equal(found.zyx, expected)
        path = str(output / f"dicom/{name}_rtstruct.dcm")
        drawn = scans.read_labels(path, like, organs=SEGTHOR, ct=like[0])
        np.testing.assert_array_equal(drawn.zyx, expected)
        segments = pydicom.dcmread(output / f"dicom/{name}_seg.dcm")
        heights = {round(float(place[2]), 3) for place in stack.positions_mm}
        for item in segments.PerFrameFunctionalGroupsSequence:
            place = item.PlanePositionSequence[0].ImagePositionPatient
            assert round(float(place[2]), 3) in heights
        whole = phantoms.posed(LABELS, affine_of(), LACKING[name][0])[0]
        stored = file_order.read(output / f"{name}.nii.gz")
        assert stored.array.shape == whole.shape  # the steps are whole multiples of the smallest
        kept = np.delete(np.arange(DEPTH), list(LACKING[name][1]))
        np.testing.assert_array_equal(stored.array[..., kept], labels)


def test_what_was_resampled_is_said_and_noted(done, given):
    output, said = done
    for name in LACKING:
        facts = json.loads((output / f"cases/{name}.json").read_text())
        notes = [line for line in said.stdout.splitlines() if line.startswith(f"note: {name}: ")]
        if name == "even":
            assert "uneven" not in facts and not notes
        else:
            (note,) = notes
            planes = len(given[1][name][0, 0])
            assert note.endswith(facts["uneven"])
            assert f"{planes} planes" in note and f"{DEPTH} slices of 2.5 mm" in note


def test_volumes_are_those_of_true_thickness(done, given):
    output, _ = done
    for name, labels in given[1].items():
        stack = places.stack(str(given[0] / name))
        z = stack.positions_mm[:, 2]
        steps = np.abs(np.diff(z))
        thickness = (np.r_[steps[0], steps] + np.r_[steps, steps[-1]]) / 2
        facts = json.loads((output / f"cases/{name}.json").read_text())
        for organ in SEGTHOR:
            expected = ((labels == organ.label).sum((0, 1)) * thickness).sum() * 1.1 / 1000
            assert facts["volumes_cm3"][organ.name] == pytest.approx(expected, abs=0.006)


@needs_dciodvfy
def test_a_validator_finds_no_error(done):
    for path in (done[0] / "dicom").iterdir():
        assert not validated(path), path.name


def test_a_gap_is_refused_with_its_place_and_predicted_if_allowed(done, model, given, tmp_path):
    said = predict(model, given, tmp_path / "out", formats="rtstruct")
    assert said.returncode == 1
    (failed,) = [line for line in said.stdout.splitlines() if line.startswith("failed: ")]
    k = IN_HEART
    for word in ("failed: gap (", "slices are missing: 1 between", "--allow_gaps",
                 f"gap-{k - 1:03d}.dcm", f"gap-{k:03d}.dcm"):  # fmt: skip
        assert word in failed
    assert not (tmp_path / "out/dicom/gap_rtstruct.dcm").exists()
    facts = json.loads((done[0] / "cases/gap.json").read_text())
    (finding,) = [one for one in facts["findings"] if one["code"] == "series_gap"]
    crossing = [
        organ.name
        for organ in SEGTHOR
        if (LABELS[..., [k - 1, k + 1]] == organ.label).any((0, 1)).all()
    ]
    assert "heart" in crossing and finding["message"].endswith(
        f"on both sides: {', '.join(crossing)}"
    )
    assert "look at it: " in done[1].stdout
    label = pydicom.dcmread(done[0] / "dicom/gap_rtstruct.dcm").StructureSetLabel
    assert "SUSPECT" in label


def test_without_resample_z_dicom_is_written_and_nifti_refused_in_one_line(model, given, tmp_path):
    flags = dict(formats="nifti,rtstruct", allow_gaps=True)
    for before in (0, 1):  # a second run tries the rest again
        said = predict(model, given, tmp_path / "out", **flags)
        assert said.returncode == 1 and f"{before} of them done before" in said.stdout
        failed = [line for line in said.stdout.splitlines() if line.startswith("failed: ")]
        assert [line.split()[1] for line in failed] == ["feet", "gap", "thirds"]
        assert all("--resample_z" in line for line in failed)
        assert [path.name for path in (tmp_path / "out").glob("*.nii.gz")] == ["even.nii.gz"]
        assert len(list((tmp_path / "out/dicom").iterdir())) == 4
        facts = json.loads((tmp_path / "out/cases/feet.json").read_text())
        assert facts["objects"] == {"rtstruct": True} and facts["volumes_cm3"]
    said = predict(model, given, tmp_path / "out", resample_z=True, **flags)
    assert said.returncode == 0 and "1 of them done before" in said.stdout
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 4
    said = predict(model, given, tmp_path / "out", **flags)
    assert said.returncode == 0 and "4 of them done before" in said.stdout


def test_dicom_alone_is_no_failure_and_is_scored_by_its_structure_sets(model, given, tmp_path):
    flags = dict(formats="rtstruct", allow_gaps=True)
    said = predict(model, given, tmp_path / "out", **flags)
    assert said.returncode == 0, said.stdout
    assert said.stdout.count("--resample_z") == 3
    said = predict(model, given, tmp_path / "out", **flags)
    assert said.returncode == 0 and "4 of them done before" in said.stdout
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    for name in given[1]:
        shutil.copy(tmp_path / f"out/dicom/{name}_rtstruct.dcm", drawn / f"{name}.dcm")
    flags = dict(predictions=tmp_path / "out", labels=drawn_table(drawn, given), scans=given[0])
    said = run_entry("serving.evaluate", output=tmp_path / "scores", **flags)
    assert said.returncode == 0, said.stdout + said.stderr
    scores = json.loads((tmp_path / "scores/scores.json").read_text())
    assert set(scores["patients"]) == set(given[1])
    assert scores["mean"]["dice"] == 1


def test_without_any_format_that_holds_the_planes_nothing_is_computed(model, given, tmp_path):
    said = predict(model, given, tmp_path / "none")
    assert said.returncode == 1 and said.stdout.count("failed: ") == 3
    assert not (tmp_path / "none/dicom").exists()


def test_the_segmenter_gives_the_planes_and_refuses_gaps(model, given, tmp_path):
    segmenter = serving.Segmenter(model)
    with pytest.raises(InputError, match="slices are missing: 1 between"):
        segmenter(given[0] / "gap")
    result = segmenter(given[0] / "feet")
    assert result.planes_mm == planes_of(given, "feet").offsets_mm
    np.testing.assert_array_equal(result.labels, given[1]["feet"])
    with pytest.raises(InputError, match="--resample_z"):
        result.write(tmp_path / "out")
    result.write(tmp_path / "out", ("nifti", "rtstruct"), resample_z=True)
    assert (tmp_path / "out/feet.nii.gz").exists()
    assert (tmp_path / "out/dicom/feet_rtstruct.dcm").exists()


def moved(given, folder):
    """Structure sets of label maps beside the planted ones, as contours; and these label maps."""
    made = {}
    for name, labels in given[1].items():
        made[name] = np.roll(labels, (2, 1), (0, 1))
    return made


def test_scores_are_those_of_the_true_planes(done, given, tmp_path):
    """Label maps moved in plane stand for contours; NIfTI and structure sets score alike."""
    output, _ = done
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    for name, labels in moved(given, drawn).items():
        grid = places.stack(str(given[0] / name)).grid
        zyx = grid.to_zyx(labels)
        even = grid.even() if grid.planes else grid
        on_even = zyx[grid.planes.to_even] if grid.planes else zyx
        file_order.write(drawn / f"{name}.nii.gz", even.to_file(on_even), even)
    flags = dict(labels=drawn, scans=given[0], references=False)
    sets = tmp_path / "sets"
    shutil.copytree(output / "dicom", sets, ignore=shutil.ignore_patterns("*_seg.dcm"))
    for predictions in (output, sets):
        scored = tmp_path / f"scores_{predictions.name}"
        said = run_entry("serving.evaluate", predictions=predictions, output=scored, **flags)
        assert said.returncode == 0, said.stdout + said.stderr
        with open(scored / "scores.csv") as stream:
            rows = {(row["patient"], row["organ"]): row for row in csv.DictReader(stream)}
        assert len(rows) == 16
        for name, labels in given[1].items():
            stack = places.stack(str(given[0] / name))
            z = np.sort(stack.positions_mm[:, 2])
            true = np.roll(labels, (2, 1), (0, 1))
            maps = [stack.grid.to_zyx(one) == 2 for one in (labels, true)]
            expected = brute_force(*maps, tuple(z - z[0]), (1.1, 1.0))
            found = list(rows[name, "heart"].values())[2:13]
            if name != "even":  # where the percentile is interpolated
                assert [float(one) for one in found] == pytest.approx(expected, abs=1e-5)
    assert (tmp_path / "scores_sets/scores.csv").read_bytes() == (
        tmp_path / "scores_predictions/scores.csv"
    ).read_bytes()


def test_report_and_convert_take_uneven_scans(done, given, tmp_path):
    output, _ = done
    flags = dict(predictions=output, scans=given[0])
    said = run_entry("serving.report", output=tmp_path / "report", gif=False, **flags)
    assert said.returncode == 0, said.stdout + said.stderr
    html = (tmp_path / "report/report.html").read_text()
    data = json.loads(html.partition('id="data">')[2].partition("</script>")[0])
    for entry in data["patients"]:
        assert ("thicknessMm" in entry) == (entry["name"] != "even")
    said = run_entry("serving.convert", output=tmp_path / "sets", **flags)
    assert said.returncode == 0, said.stdout + said.stderr
    for name, labels in given[1].items():
        ct = str(given[0] / name)
        stack = places.stack(ct)
        path = str(tmp_path / f"sets/{name}_rtstruct.dcm")
        found = scans.read_labels(path, ct=ct, organs=SEGTHOR)
        np.testing.assert_array_equal(found.zyx, stack.grid.to_zyx(labels))


def drawn_table(folder, given):
    rows = [f"{name},{given[0] / name},{folder / name}.dcm" for name in given[1]]
    (folder / "list.csv").write_text("\n".join(["patient,ct,labels", *rows]))
    return folder / "list.csv"


# ---------------------------------------------------------------- the data job


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A: even. B: every third slice lacks from the middle on. C: one slice lacks."""
    folder = tmp_path_factory.mktemp("tree")
    for number, (name, lacking) in enumerate({"A": (), "B": range(8, 15, 3), "C": (7,)}.items()):
        names = dict.fromkeys(("patient", "study", "series", "frame"), name)
        write_patient(folder / name, tiny_patient(40 + number), missing=lacking, **names)
    return folder


def build(source, output, *arguments, status):
    flags = {"input": source, "output": output, **TINY_RECIPE}
    said = run_entry("beam_jobs.build", **flags, **dict(arguments))
    assert said.returncode == status, said.stdout + said.stderr
    return Dataset.load(str(output)), said.stdout + said.stderr


def test_training_takes_the_true_neighbours_of_uneven_planes(tree, tmp_path):
    dataset, said = build(tree, tmp_path / "out", status=3)
    assert [one.patient for one in dataset.patients] == ["A", "B"]
    (gap,) = dataset.rejected
    assert gap.patient == "C" and "slices are missing: 1 between" in gap.reason
    assert "on both sides: " in gap.reason and gap.reason in said
    rows = {one.patient: one for one in dataset.patients}
    planes = places.stack(str(tree / "B/ct")).grid.planes
    assert rows["B"].placement.planes_mm == planes.offsets_mm
    assert rows["A"].placement.planes_mm is None
    assert (tmp_path / "out/dataset.json").read_text().count("planes_mm") == 1
    codes = [one.code for one in rows["B"].audit.findings]
    assert "series_uneven" in codes and "contour_without_slice" in codes
    slices = {}
    for path in Path(tmp_path / "out/shards").iterdir():
        slices |= {(one.patient, one.z): one for one in records.slices(str(path))}
    whole, _ = build_whole(tree, tmp_path)
    kept = np.delete(np.arange(16), [8, 11, 14])
    for z, k in enumerate(kept):
        mine, full = slices["B", z], whole["B", k]
        assert mine.box_px == full.box_px
        np.testing.assert_array_equal(mine.labels, full.labels)
        middle = mine.image.shape[-1] // 2
        np.testing.assert_array_equal(mine.image[..., middle], full.image[..., middle])
        for step in (-1, 1):
            if 0 <= z + step < len(kept):
                beside = whole["B", kept[z + step]].image[..., middle]
                np.testing.assert_array_equal(mine.image[..., middle + step], beside)
    assert run_entry("beam_jobs.verify", data=tmp_path / "out").returncode == 0


def build_whole(tree, tmp_path):
    """The records of B with all its slices, and of A."""
    source = tmp_path / "whole"
    shutil.copytree(tree / "A", source / "A")
    names = dict.fromkeys(("patient", "study", "series", "frame"), "B")
    write_patient(source / "B", tiny_patient(41), **names)
    dataset, _ = build(source, tmp_path / "out_whole", status=0)
    slices = {}
    for path in Path(tmp_path / "out_whole/shards").iterdir():
        slices |= {(one.patient, one.z): one for one in records.slices(str(path))}
    return slices, dataset


@pytest.mark.thorough
def test_a_gap_is_built_where_its_severity_allows(tree, tmp_path):
    arguments = [("severity", "series_gap=warn")]
    dataset, _ = build(tree, tmp_path / "out", *arguments, status=0)
    assert [one.patient for one in dataset.patients] == ["A", "B", "C"]
    (row,) = [one for one in dataset.patients if one.patient == "C"]
    measured = row.audit.organs["heart"].volume_cm3
    labels = np.delete(tiny_patient(42).label_map.zyx, 7, axis=0)
    stack = places.stack(str(tree / "C/ct"))
    thickness = stack.grid.planes.thickness_mm
    area = np.prod(stack.pixel_spacing_mm)
    expected = ((labels == 2).sum((1, 2)) * thickness).sum() * area / 1000
    assert measured == pytest.approx(expected, rel=0.01)
