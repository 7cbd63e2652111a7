"""Evaluation: the right pairs, the right numbers, and a line for what does not fit."""

import csv
import json

import nibabel
import numpy as np
import pytest
from PIL import Image
from programs import run_entry
from tiny_models import at_work_in, killed_while_writing

from segthor import files, organs
from segthor.errors import InputError
from segthor.organs import SEGTHOR
from segthor.patients import Patient
from serving.prediction import facts
from serving.scoring import comparison, evaluation, pairs, picture
from tests import file_order

SHAPE = (40, 36, 12)
SPACING_MM = (1.0, 1.5, 3.0)
AFFINE = np.diag([-1.0, -1.5, 3.0, 1.0])
BOXES = {1: (4, 4, 2), 2: (12, 10, 3), 3: (26, 6, 1), 4: (26, 20, 4)}  # corners of 6x5x4 voxels


def boxes(values=(1, 2, 3, 4), shift=(0, 0, 0)) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    for value in values:
        low = np.add(BOXES[value], shift)
        labels[tuple(slice(a, a + n) for a, n in zip(low, (6, 5, 4), strict=True))] = value
    return labels


def save(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def evaluate(tmp_path, **flags):
    usual = {"predictions": "predictions", "labels": "labels", "output": "out"}
    known = {name: tmp_path / value for name, value in (usual | flags).items() if name != "organs"}
    return run_entry("serving.evaluate", **(flags | known))


def scores(tmp_path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((tmp_path / "out" / "scores.json").read_text(), parse_constant=refuse)


def test_hand_worked_scores_reach_every_output(tmp_path):
    # One voxel of 1 mm to the side: 5 of 6 columns overlap; every distance is 1 mm or 0.
    save(tmp_path / "labels/train/Patient_01/GT.nii.gz", boxes())
    save(tmp_path / "labels/train/Patient_01/Patient_01.nii.gz", boxes().astype(np.int16))
    save(tmp_path / "predictions/Patient_01.nii.gz", boxes(shift=(1, 0, 0)))
    save(tmp_path / "labels/train/Patient_02/GT.nii", boxes())
    save(tmp_path / "predictions/Patient_02.nii.gz", boxes())
    save(tmp_path / "predictions/Patient_41.nii.gz", boxes())
    done = evaluate(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 patients to score; 1 predictions have no contours, 0 contours" in done.stdout
    found = scores(tmp_path)
    for organ in organs.SEGTHOR.names:
        one, two = (found["patients"][f"Patient_0{n}"][organ] for n in (1, 2))
        assert one["dice"] == pytest.approx(5 / 6) and two["dice"] == 1
        assert one["hausdorff_mm"] == pytest.approx(1) and two["hausdorff_mm"] == 0
        assert one["predicted_cm3"] == pytest.approx(6 * 5 * 4 * 4.5 / 1000)
        assert one["difference_cm3"] == 0
        summary = found["organs"][organ]["dice"]
        assert summary["mean"] == pytest.approx(11 / 12) and summary["count"] == 2
        assert summary["low"] == pytest.approx(5 / 6) and summary["high"] == 1
    assert found["mean"]["dice"] == pytest.approx(11 / 12)
    with open(tmp_path / "out" / "scores.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["patient"], row["organ"]) for row in rows] == [
        (patient, organ)
        for patient in ("Patient_01", "Patient_02")
        for organ in organs.SEGTHOR.names
    ]
    assert float(rows[0]["dice"]) == found["patients"]["Patient_01"]["esophagus"]["dice"]
    assert "0.917" in done.stdout and "SEGTHOR'S OWN patients" in done.stdout


def test_a_missed_organ_counts_zero_dice_and_no_distance(tmp_path):
    save(tmp_path / "labels/A.nii.gz", boxes())
    save(tmp_path / "predictions/A.nii.gz", boxes((1, 2, 4)))
    done = evaluate(tmp_path)
    found = scores(tmp_path)
    trachea = found["patients"]["A"]["trachea"]
    assert trachea["dice"] == 0 and trachea["hausdorff_mm"] is None
    assert found["organs"]["trachea"]["hausdorff_mm"]["left_out"] == 1
    assert found["mean"]["dice"] == 0.75
    assert "Left out of mean distances: 1 organs" in done.stdout


def test_only_contoured_predicted_and_wanted_organs_are_scored(tmp_path):
    save(tmp_path / "gt.nii.gz", boxes((1, 2)))
    save(tmp_path / "predictions/A.nii.gz", boxes())
    (tmp_path / "list.csv").write_text("patient,labels,organs\nA,gt.nii.gz,esophagus;heart\n")
    assert evaluate(tmp_path, labels="list.csv").returncode == 0
    assert list(scores(tmp_path)["patients"]["A"]) == ["esophagus", "heart"]
    assert evaluate(tmp_path, labels="list.csv", organs="heart,aorta").returncode == 0
    assert list(scores(tmp_path)["patients"]["A"]) == ["heart"]
    save(tmp_path / "predictions/probabilities/A_heart.nii.gz", boxes())
    (tmp_path / "predictions" / "cases").mkdir()
    (tmp_path / "predictions" / "cases" / "A.json").write_text('{"organs": ["esophagus"]}')
    assert evaluate(tmp_path, labels="list.csv").returncode == 0
    assert list(scores(tmp_path)["patients"]["A"]) == ["esophagus"]


def test_what_does_not_fit_is_one_line_and_the_others_are_scored(tmp_path):
    shifted = AFFINE.copy()
    shifted[0, 3] = 2.5
    for name, array, affine in (
        ("good", boxes(), AFFINE),
        ("shape", boxes()[:-1], AFFINE),
        ("moved", boxes(), shifted),
        ("fraction", boxes() * np.float32(0.5), AFFINE),
        ("stranger", boxes() * np.uint8(3), AFFINE),
    ):
        save(tmp_path / f"labels/{name}.nii.gz", array, affine)
        save(tmp_path / f"predictions/{name}.nii.gz", boxes())
    done = evaluate(tmp_path)
    assert done.returncode == 1
    assert list(scores(tmp_path)["patients"]) == ["good"]
    lines = {line.split()[1]: line for line in done.stdout.splitlines() if "FAILED" in line}
    assert set(lines) == {"shape", "moved", "fraction", "stranger"}
    for name, word in (("shape", "39x36x12"), ("moved", "2.5 mm"), ("fraction", "whole")):
        assert word in lines[name] and f"{name}.nii.gz" in lines[name]
    assert "[6, 9, 12]" in lines["stranger"]
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"labels": "nowhere"}, "expected a folder or a .csv, found nothing"),
        ({"labels": "others"}, "no patient has both"),
        ({"organs": "heart,liver"}, "found liver"),
        ({"compare": "labels"}, "scores.json"),
    ],
)
def test_bad_input_is_one_line(tmp_path, flags, words):
    save(tmp_path / "labels/A.nii.gz", boxes())
    save(tmp_path / "others/B.nii.gz", boxes())
    save(tmp_path / "predictions/A.nii.gz", boxes())
    done = evaluate(tmp_path, **flags)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and words in line
    assert not (tmp_path / "out").exists()


def test_scores_do_not_depend_on_the_files_axis_order(tmp_path):
    truth, predicted = boxes(), boxes(shift=(1, 1, 0))
    turned = np.diag([-1.0, -1.5, 3.0, 1.0])[[0, 1, 2, 3]][:, [2, 0, 1, 3]]
    for name, axes, affine in (("A", (0, 1, 2), AFFINE), ("B", (2, 0, 1), turned)):
        save(tmp_path / f"t/{name}.nii.gz", truth.transpose(axes), affine)
        save(tmp_path / f"p/{name}.nii.gz", predicted.transpose(axes), affine)
    rows = []
    for name in "AB":
        contours = Patient(name, "", str(tmp_path / f"t/{name}.nii.gz"), organs=SEGTHOR.names)
        predicted = Patient(name, "", str(tmp_path / f"p/{name}.nii.gz"), organs=SEGTHOR.names)
        found, true = pairs.read(contours, predicted, organs=SEGTHOR)
        rows.append(evaluation.score(found, true, SEGTHOR.names))
    for organ in organs.SEGTHOR.names:
        for score, value in rows[0][organ].as_dict().items():
            assert rows[1][organ].as_dict()[score] == pytest.approx(value), score


def run_of(**dice):
    """Patient -> the scores of one run, with this Dice of the heart."""
    return {
        name: {"heart": {"dice": value, "average_hausdorff_mm": 1 - value}}
        for name, value in dice.items()
    }


def test_comparison_is_paired_by_patient():
    ours = run_of(a=0.9, b=0.8, c=0.7, d=0.95, e=0.85, f=0.75, g=0.65, z=0.1)
    theirs = run_of(g=0.6, f=0.7, e=0.8, d=0.9, c=0.65, b=0.75, a=0.85, y=0.99)
    dice, distance, *_ = comparison.compare(ours, theirs, organs=SEGTHOR)
    assert (dice["organ"], dice["score"], dice["count"]) == ("heart", "dice", 7)
    assert dice["mean"] == pytest.approx(0.8) and dice["other_mean"] == pytest.approx(0.75)
    assert dice["mean_difference"] == pytest.approx(0.05)
    assert dice["p_value"] == pytest.approx(2 / 2**7)  # all seven signs alike, both tails
    assert distance["mean_difference"] == pytest.approx(-0.05)


def test_comparison_leaves_out_what_one_run_does_not_know():
    ours, theirs = run_of(a=0.9, b=0.8), run_of(a=0.5, b=0.8)
    theirs["b"]["heart"]["average_hausdorff_mm"] = None
    distance = comparison.compare(ours, theirs, organs=SEGTHOR)[1]
    assert (distance["count"], distance["left_out"]) == (1, 1)
    assert distance["mean"] == pytest.approx(0.1) and distance["other_mean"] == pytest.approx(0.5)
    with pytest.raises(InputError, match="no patient in common"):
        comparison.compare(ours, run_of(c=1.0), organs=SEGTHOR)


def test_compare_tells_two_evaluations_apart(tmp_path):
    for number in range(3):
        save(tmp_path / f"labels/P{number}.nii.gz", boxes())
        save(tmp_path / f"predictions/P{number}.nii.gz", boxes())
        save(tmp_path / f"worse/P{number}.nii.gz", boxes(shift=(1, 0, 0)))
    assert evaluate(tmp_path, predictions="worse", output="first").returncode == 0
    done = evaluate(tmp_path, compare="first")
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text())
    (heart,) = (row for row in rows if (row["organ"], row["score"]) == ("heart", "dice"))
    assert heart["mean_difference"] == pytest.approx(1 / 6) and heart["count"] == 3
    assert "heart, dice" in done.stdout and "Wilcoxon" in done.stdout


def test_slice_dice_is_the_mean_over_the_organs_in_the_slice():
    truth, predicted = np.zeros((2, 4, 6, 6), np.uint8)
    truth[1, :2], predicted[1, 1:3] = 1, 1  # half of each overlaps
    truth[1, 5], predicted[1, 5] = 2, 2
    truth[2, 0], predicted[3, 0] = 2, 2
    found = picture.slice_dice(truth, predicted, (1, 2, 3))
    assert np.isnan(found[0])
    assert found[1:].tolist() == [0.75, 0, 0]


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_the_picture_shows_the_worst_slice_with_its_contours_in_the_organs_colours(axes):
    truth, predicted = boxes((2,)), boxes((2,))
    predicted[12:18, 10:15, 5] = 0
    predicted[30:34, 25:30, 5] = 2  # the slice at z = 5 misses it altogether
    affine = AFFINE[:, [*axes, 3]]
    hu, *maps = (array.transpose(axes) for array in (np.zeros(SHAPE, np.int16), truth, predicted))
    ct = file_order.volume(hu, affine)
    maps = [file_order.label_map(array, affine) for array in maps]
    (worst, caption), (typical, _) = picture.tiles("A", ct, *maps, ("heart",))
    assert caption == "A, worst slice 6 of 12, Dice 0.00"
    rgb = np.array(organs.SEGTHOR["heart"].rgb)
    scale = worst.shape[0] // 36 or 1
    rows, columns = np.nonzero((worst == rgb).all(-1))
    # Patient left is to the right: index 30 along a right-to-left axis of the file.
    assert rows.min() // scale == pytest.approx(25, abs=1)
    assert columns.min() // scale == pytest.approx(30, abs=1)
    assert not (typical == rgb).all(-1)[: 9 * scale].any()


def test_the_typical_slice_is_the_middling_one_of_those_that_hold_most_organs():
    truth = boxes()  # slices 3 to 5 hold three organs, 4 all four
    truth[BOXES[3][0], BOXES[3][1], 5] = 3  # and now 5, too
    predicted = truth.copy()
    predicted[12:15, 10:15, 5] = 0  # half of the heart is missed there
    hu = np.zeros(SHAPE, np.int16)
    ct = file_order.volume(hu, AFFINE)
    maps = file_order.label_map(truth, AFFINE), file_order.label_map(predicted, AFFINE)
    _, (_, caption) = picture.tiles("A", ct, *maps, organs.SEGTHOR.names)
    assert caption.startswith("A, typical slice 5 of 12")


def test_the_picture_is_written_beside_the_scores(tmp_path):
    save(tmp_path / "labels/A.nii.gz", boxes())
    save(tmp_path / "predictions/A.nii.gz", boxes(shift=(1, 0, 0)))
    save(tmp_path / "scans/A.nii.gz", (boxes() * 50).astype(np.int16))
    done = evaluate(tmp_path, scans="scans")
    assert "overlay.png" in done.stdout
    with Image.open(tmp_path / "out" / "overlay.png") as picture:
        assert min(picture.size) > 200


def good_folders(tmp_path, names="AB"):
    for name in names:
        save(tmp_path / f"labels/{name}.nii.gz", boxes())
        save(tmp_path / f"predictions/{name}.nii.gz", boxes())


def test_contours_without_a_prediction_are_named_with_the_reason_and_end_in_status_1(tmp_path):
    good_folders(tmp_path)
    save(tmp_path / "labels/C.nii.gz", boxes())
    save(tmp_path / "labels/D.nii.gz", boxes())
    save(tmp_path / "labels/E.nii.gz", boxes())
    (tmp_path / "predictions/cases").mkdir()
    (tmp_path / "predictions/cases/D.json").write_text('{"failed": "truncated; copy it again"}')
    (tmp_path / "predictions/cases/E.json").write_text("[1, 2]")
    done = evaluate(tmp_path)
    assert done.returncode == 1, done.stderr
    assert "2 patients to score; 0 predictions have no contours, 3 contours" in done.stdout
    assert "MISSING: C: no label map" in done.stdout
    assert "0 patients failed, 3 have no prediction" in done.stdout
    found = scores(tmp_path)
    assert list(found["patients"]) == ["A", "B"] and found["failed"] == {}
    assert found["missing"]["C"] == "no label map"
    assert found["missing"]["D"] == "failed in prediction: truncated; copy it again"
    assert "facts of E" in found["missing"]["E"]


def test_who_cannot_be_scored_stands_in_the_scores_with_the_reason(tmp_path):
    good_folders(tmp_path)
    save(tmp_path / "predictions/B.nii.gz", boxes()[:-1])
    assert evaluate(tmp_path).returncode == 1
    found = scores(tmp_path)
    assert found["missing"] == {} and list(found["failed"]) == ["B"]
    assert "39x36x12" in found["failed"]["B"]


def test_predictions_without_contours_are_named_and_are_no_fault(tmp_path):
    good_folders(tmp_path)
    save(tmp_path / "predictions/Z.nii.gz", boxes())
    done = evaluate(tmp_path)
    assert done.returncode == 0
    assert "Without contours: Z" in done.stdout
    assert scores(tmp_path)["missing"] == {}


def test_a_split_scores_its_own_patients_and_misses_no_others(tmp_path):
    good_folders(tmp_path, "A")
    save(tmp_path / "labels/B.nii.gz", boxes())
    lines = ("patient,labels,split", "A,labels/A.nii.gz,validation", "B,labels/B.nii.gz,train")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    assert evaluate(tmp_path, labels="list.csv").returncode == 1
    names = {"predictions": "predictions", "labels": "list.csv", "output": "out"}
    flags = {name: tmp_path / value for name, value in names.items()}
    done = run_entry("serving.evaluate", split="validation", **flags)
    assert done.returncode == 0, done.stderr
    assert list(scores(tmp_path)["patients"]) == ["A"] and scores(tmp_path)["missing"] == {}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"output": "file"}, "expected a folder, found a file"),
        ({"output": "predictions"}, "--predictions is read there"),
        ({"output": "labels"}, "--labels is read there"),
        ({"output": "linked"}, "--labels is read there"),
        ({"output": "scans", "scans": "scans"}, "--scans is read there"),
        ({"output": "other", "compare": "other"}, "--compare is read there"),
        ({"output": "other", "compare": "other/scores.json"}, "--compare is read there"),
        ({"output": "other", "labels": "other/scores.csv"}, "--labels is read there"),
    ],
)
def test_the_output_is_never_where_an_input_lies(tmp_path, flags, words):
    good_folders(tmp_path)
    save(tmp_path / "scans/A.nii.gz", boxes().astype(np.int16))
    (tmp_path / "file").write_text("the user's")
    (tmp_path / "linked").symlink_to("labels")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/scores.json").write_text('{"patients": {"A": {"heart": {"dice": 1.0}}}}')
    (tmp_path / "other/scores.csv").write_text(f"patient,labels\nA,{tmp_path}/labels/A.nii.gz\n")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    done = evaluate(tmp_path, **flags)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --output=") and words in line
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_the_next_run_clears_what_a_killed_one_left_and_nothing_else(tmp_path):
    good_folders(tmp_path)
    for name in ("scores.json", "scores.csv", "overlay.png", "comparison.json", "notes.txt"):
        killed_while_writing(tmp_path / "out" / name)
    assert len(list((tmp_path / "out").iterdir())) == 5
    assert evaluate(tmp_path).returncode == 0
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left[1:] == ["scores.csv", "scores.json"]
    assert left[0].startswith(files.TEMPORARY_PREFIX) and left[0].endswith("-notes.txt")


def test_a_folder_where_another_process_writes_is_left_alone(tmp_path):
    good_folders(tmp_path)
    killed_while_writing(tmp_path / "out" / "scores.json")
    before = list((tmp_path / "out").iterdir())
    with at_work_in(tmp_path / "out"):
        done = evaluate(tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "another process is writing there" in line
    assert list((tmp_path / "out").iterdir()) == before


def test_values_of_a_float64_round_trip_are_scored_with_a_warning(tmp_path):
    good_folders(tmp_path)
    save(tmp_path / "labels/A.nii.gz", boxes() * 1.0000001)
    done = evaluate(tmp_path)
    assert done.returncode == 0
    assert all(row["dice"] == 1 for row in scores(tmp_path)["patients"]["A"].values())
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("warning: "))
    assert "labels/A.nii.gz" in line and "4e-07 off" in line


def test_contours_without_a_voxel_are_scored_with_a_warning(tmp_path):
    good_folders(tmp_path)
    save(tmp_path / "labels/A.nii.gz", boxes(()))
    done = evaluate(tmp_path)
    assert scores(tmp_path)["patients"]["A"]["heart"]["dice"] == 0
    assert f"warning: {tmp_path}/labels/A.nii.gz: no voxel is labelled" in done.stdout


def test_no_name_becomes_a_formula_in_the_table(tmp_path):
    good_folders(tmp_path)
    (tmp_path / "predictions/A.nii.gz").rename(tmp_path / "predictions/=1+1.nii.gz")
    (tmp_path / "list.csv").write_text("patient,labels\n=1+1,labels/A.nii.gz\n")
    assert evaluate(tmp_path, labels="list.csv").returncode == 0
    with open(tmp_path / "out" / "scores.csv") as stream:
        assert {row["patient"] for row in csv.DictReader(stream)} == {"'=1+1"}


def test_a_broken_ct_spoils_its_own_picture_alone(tmp_path):
    good_folders(tmp_path, "ABC")
    save(tmp_path / "scans/A.nii.gz", (boxes() * 50).astype(np.int16))
    save(tmp_path / "scans/B.nii.gz", (boxes()[:-1] * 50).astype(np.int16))
    (tmp_path / "scans/C.nii.gz").write_bytes(b"broken")
    done = evaluate(tmp_path, scans="scans")
    assert done.returncode == 1, done.stderr
    lines = {x.split()[3]: x for x in done.stdout.splitlines() if x.startswith("No picture of")}
    assert set(lines) == {"B:", "C:"}
    assert "39x36x12" in lines["B:"] and "C.nii.gz" in lines["C:"]
    assert (tmp_path / "out" / "overlay.png").exists()
    assert list(scores(tmp_path)["patients"]) == ["A", "B", "C"]


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", '{"patients": []}', '{"patients": {"A": [1]}}',
     '{"patients": {"A": {"heart": 1}}}', '{"patients": {"A": {"heart": {"dice": "high"}}}}'],
)  # fmt: skip
def test_another_runs_scores_that_make_no_sense_are_one_line(tmp_path, text):
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(InputError, match=r"scores.json: expected scores.json from"):
        comparison.load(str(tmp_path))


def test_patients_of_one_run_alone_are_named_in_a_comparison(tmp_path):
    good_folders(tmp_path)
    assert evaluate(tmp_path, output="first").returncode == 0
    (tmp_path / "labels/B.nii.gz").unlink()
    save(tmp_path / "labels/C.nii.gz", boxes())
    save(tmp_path / "predictions/C.nii.gz", boxes())
    done = evaluate(tmp_path, compare="first")
    assert "scored by this run alone: C" in done.stdout
    assert "scored by the other run alone: B" in done.stdout


@pytest.mark.parametrize(
    "noted",
    ["[]", '{"organs": "heart"}', '{"organs": ["liver"]}', '{"organs": [["heart"]]}',
     '{"failed": 3}', '{"level_hu": "50"}', '{"level_hu": NaN}', '{"postprocess": {"heart": 1}}',
     '{"postprocess": {"heart": {"removed_cm3": "1", "filled_cm3": 0}}}',
     "[" * 100_000, '{"findings":' + "[" * 3000, '{"findings": [["code", "reject", "text"]]}',
     '{"review": []}', '{"review": {"organs": ["heart"]}}', '{"evidence": {"scan": [1]}}',
     '{"evidence": {"scan": {"z": [1]}, "organs": {}}}', '{"objects": ["seg"]}'],
)  # fmt: skip
def test_facts_that_are_not_ours_are_one_line(tmp_path, noted):
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases/A.json").write_text(noted)
    with pytest.raises(InputError, match="facts of A|A.json: expected JSON") as raised:
        facts.read_of_table(str(tmp_path), "A", organs.SEGTHOR)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 1000


def test_contours_of_a_patient_whose_name_cannot_be_used_are_missing_and_say_why(tmp_path):
    for name in ("A.nii.gz", "p/A.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(tmp_path / name, np.zeros(SHAPE, np.uint8), np.eye(4))
    (tmp_path / "t.csv").write_text("patient,labels\nA,A.nii.gz\n../up,A.nii.gz\n")
    found = pairs.match(str(tmp_path / "t.csv"), str(tmp_path / "p"), organs=SEGTHOR)
    assert [one.name for one, _ in found.pairs] == ["A"]
    (reason,) = found.missing.values()
    assert "'../up'" in reason and "rename it" in reason
