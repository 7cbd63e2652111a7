"""Which cases are marked for review, with what reason, and the list of them."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from test_calibration import calibrated, made_rows  # noqa: F401  a fixture
from test_predict import affine_of, planted, run_parts, save_scan
from tiny_models import CODED_RECIPE, coded_scan, save_coded

from segthor import inputs, reference
from segthor.findings import Finding
from segthor.manifest import Audit, Built
from segthor.organs import SEGTHOR
from segthor.recipe import prepare
from serving.prediction.plan import Plan
from serving.prediction.worker import Worker
from serving.review import overview
from serving.review.evidence import OF_ORGAN
from serving.review.judge import Judge, average_dice
from tests import file_order

FINE = dict.fromkeys(OF_ORGAN, 0.0) | {
    "gaps": 0,
    "weak_slices": 0,
    "disagreeing_slices": 0,
    "disagreement": None,
    "slices": [],
}
SCAN = {"slice_mm": [3.0, 0.2]}


def spreads(**more):
    one = reference.Spread(3.0, 0.2, 2.8, 3.2)
    return reference.Reference(9, (0.0,) * 16, {"slice_mm": one}, {})


def judge(fit=None, recall=0.95, names=("heart",)):
    return Judge(dict.fromkeys(names, fit), spreads(), recall)


def test_a_case_like_the_training_data_is_not_marked():
    found = judge().judge(SCAN, {"heart": FINE}, ())
    assert (found.review, found.reason, found.calibrated) == (False, "", False)
    assert found.organs["heart"].expected_dice is None


def test_an_uncalibrated_model_goes_by_the_audit():
    odd = Finding("organ_volume", "reject", "heart: 5 cm3; plausible are 300 to 1500")
    found = judge().judge(SCAN, {"heart": FINE}, [odd])
    assert found.review and found.reason == odd.message
    slight = dataclasses.replace(odd, severity="warn")
    assert not judge().judge(SCAN, {"heart": FINE}, [slight]).review


def test_a_scan_unlike_the_training_data_is_marked_and_the_reason_names_it():
    found = judge().judge({"slice_mm": [10.0, 35.0]}, {"heart": FINE}, ())
    assert found.unlike_training and found.review
    assert found.reason == ("unlike the training data: slices of 10 mm, training 2.8 to 3.2 mm")


def test_what_the_calibration_saw_is_not_unlike(calibrated):  # noqa: F811
    wide = dataclasses.replace(calibrated, seen={"slice_mm": (-2.0, 40.0)})
    assert not judge(wide).judge({"slice_mm": [10.0, 35.0]}, {"heart": FINE}, ()).unlike_training
    assert judge(wide).judge({"slice_mm": [20.0, 80.0]}, {"heart": FINE}, ()).unlike_training
    assert judge(wide).judge({"slice_mm": [1.0, -10.0]}, {"heart": FINE}, ()).unlike_training


def test_an_organ_that_is_not_found_is_marked():
    found = judge().judge(SCAN, {"heart": {}}, ())
    assert found.review and found.reason == "heart: not found"


def test_expectation_bound_and_reason_follow_the_evidence(calibrated):  # noqa: F811
    bad = FINE | {"uncertainty": 0.4, "disagreeing_slices": 4, "slices": [3, 4, 5, 6]}
    found = judge(calibrated).judge(SCAN, {"heart": bad}, ())
    row = found.organs["heart"]
    assert row.lower_dice <= row.expected_dice < 0.8
    assert row.slices == (3, 4, 5, 6)
    assert found.reason == (
        f"heart: models or flips disagree over 4 slices; expected {row.expected_dice:.2f}"
    )
    good = judge(calibrated).judge(SCAN, {"heart": FINE}, ())
    assert good.organs["heart"].expected_dice > 0.85 and not good.review


def test_models_that_disagree_bound_the_expectation(calibrated):  # noqa: F811
    torn = FINE | {"disagreement": 0.5}
    row = judge(calibrated).judge(SCAN, {"heart": torn}, ()).organs["heart"]
    assert row.expected_dice == 0.5 and row.lower_dice <= 0.5


@pytest.mark.parametrize("apart, marked", [(None, False), (0.19, False), (0.2, True), (0.45, True)])
def test_models_or_flips_that_disagree_mark_the_case_calibrated_or_not(
    calibrated,  # noqa: F811
    apart,
    marked,
):
    row = FINE | {"disagreement": apart}
    for fit in (None, dataclasses.replace(calibrated, organs={}), calibrated):
        found = judge(fit, recall=0.01).judge(SCAN, {"heart": row}, ())
        assert found.organs["heart"].review == found.review == marked
        said = "heart: models or flips have a Dice of"
        assert found.reason.startswith(f"{said} {1 - (apart or 0):.2f}" if marked else "")


@pytest.mark.parametrize(("shared_px", "own_px"), [(4, 4), (6, 2), (8, 8), (5, 0)])
def test_the_average_is_expected_to_be_as_good_as_averaged_outlines_are(shared_px, own_px):
    """Outlines about a disc of 120 pixels, with errors that five models share and their own."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:400, :400] - 199.5
    radius, angle = np.hypot(y, x), ((np.arctan2(y, x) / (2 * np.pi) + 0.5) * 60).astype(int) % 60

    def dice(one, other):
        return 2 * np.count_nonzero(one & other) / (one.sum() + other.sum())

    true, found = radius <= 120, []
    for _ in range(4):
        errors = rng.normal(0, shared_px, 60) + rng.normal(0, own_px, (5, 60))
        outlines = [radius <= 120 + error[angle] for error in errors]
        chances = [1 / (1 + np.exp((radius - 120 - error[angle]) / 6)) for error in errors]
        average = np.mean(chances, 0) > 0.5
        each, apart = (np.mean([dice(one, to) for one in outlines]) for to in (true, average))
        found.append((average_dice(each, 1 - apart), dice(average, true), each))
    expected, reached, each = np.mean(found, 0)
    assert expected == pytest.approx(reached, abs=0.001)
    assert reached >= each + (0.005 if own_px >= 4 else -1e-9)


def test_more_recall_marks_more(calibrated):  # noqa: F811
    rows = made_rows(patients=60, seed=5)
    marked = []
    for recall in (0.3, 0.8, 1.0):
        one = judge(calibrated, recall)
        cases = [one.judge({}, {"heart": FINE | row["evidence"]}, ()) for row in rows]
        marked.append({n for n, case in enumerate(cases) if case.review})
    assert marked[0] < marked[1] < marked[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that knows what its training patients measure: scans alike, organs anywhere."""
    rows = []
    for number in range(6):
        labels = planted(seed=number)
        affine = affine_of()
        prepared = prepare(file_order.volume(coded_scan(labels), affine), CODED_RECIPE)
        shares = reference.grey_shares(prepared.images)
        place = prepared.placement
        rows.append(
            Built(f"P{number}", "", "", "", "train", 0, 30, (), 40.0, place, Audit(), shares)
        )
    training = {"reference": dataclasses.asdict(reference.compute_reference(rows))}
    folder = tmp_path_factory.mktemp("model")
    save_coded(folder, training=training)
    return str(folder)


def test_cases_are_listed_worst_first(model, tmp_path):
    """One like the training's, one of thick slices, one without organs, one that is no scan."""
    scans = tmp_path / "scans"
    save_scan(scans / "A.nii.gz", coded_scan(planted(seed=50)), affine_of())
    thick = affine_of(spacing_mm=(1.0, 1.1, 7.5))
    save_scan(scans / "B.nii.gz", coded_scan(planted(seed=51)), thick)
    save_scan(scans / "C.nii.gz", coded_scan(np.zeros_like(planted())), affine_of())
    (scans / "D.nii.gz").write_bytes(b"no scan")
    worker = Worker(Plan(str(tmp_path / "out"), (model,)))
    worker.results.claim(overwrite=False)
    found = inputs.find(str(scans), organs=SEGTHOR)
    for case in found[:3]:
        run_parts(worker, case)
    worker.results.write_failure(found[3], "no NIfTI")
    rows = overview.write(worker.results, found, worker.models.organs)
    assert [row["patient"] for row in rows][:2] == ["D", "B"]
    by_name = {row["patient"]: row for row in rows}
    assert "no NIfTI" in by_name["D"]["reason"]
    assert by_name["B"]["reason"].startswith("unlike the training data: ")
    assert "slices of 7.5 mm, training 2.5 to 2.5 mm" in by_name["B"]["reason"]
    assert "not found" in by_name["C"]["reason"]
    assert "unlike" not in by_name["A"]["reason"]
    with open(tmp_path / "out" / "predictions.csv", newline="") as stream:
        stored = list(csv.DictReader(stream))
    assert [row["patient"] for row in stored] == [row["patient"] for row in rows]
    facts = json.loads((tmp_path / "out" / "cases" / "B.json").read_text())
    assert facts["review"]["calibrated"] is False
    assert facts["evidence"]["scan"]["slice_mm"][0] == 7.5


def test_a_calibration_that_came_later_judges_finished_cases(
    model,
    calibrated,  # noqa: F811
    tmp_path,
):
    import shutil

    copy = str(tmp_path / "model")
    shutil.copytree(model, copy)
    save_scan(tmp_path / "scans" / "A.nii.gz", coded_scan(planted(seed=50)), affine_of())
    (case,) = inputs.find(str(tmp_path / "scans"), organs=SEGTHOR)
    worker = Worker(Plan(str(tmp_path / "out"), (copy,)))
    worker.results.claim(overwrite=False)
    run_parts(worker, case)
    before = worker.results.facts(case)
    every = {name: calibrated.organs["heart"] for name in worker.models.organs}
    dataclasses.replace(calibrated, organs=every).save(f"{copy}/1")
    later = Worker(Plan(str(tmp_path / "out"), (copy,)))
    assert later.results.is_finished(case)
    later.review_again(case)
    after = later.results.facts(case)
    assert after.review.calibrated and not before.review.calibrated
    assert all(row.expected_dice is not None for row in after.review.organs.values())
    assert dataclasses.replace(after, review=before.review) == before
    assert later.results.is_finished(case)
