"""The report's page shows what the prediction job expects: order, reasons, slices, overview."""

import dataclasses
import json

import nibabel
import pytest
from programs import run_entry
from test_viewer import AFFINE, Page, browser, ct, truth_map  # noqa: F401  a fixture

from segthor import organs
from segthor.errors import InputError
from serving.prediction import facts


def review(expected, marked=False, unlike=False, reason="", slices=()):
    surface = {"expected_surface_dice": 0.9, "lower_surface_dice": 0.8}
    row = {"expected_dice": expected, "lower_dice": expected - 0.1, **surface, "review": marked,
           "reason": reason, "slices": list(slices)}  # fmt: skip
    fine = {"expected_dice": 0.97, "lower_dice": 0.9, **surface, "review": False, "reason": "",
            "slices": []}  # fmt: skip
    reasons = ["unlike the training data: slices of 4 mm"] * unlike + [f"aorta: {reason}"] * marked
    return {"calibrated": True, "recall": 0.95, "review": marked or unlike,
            "reason": "; ".join(reasons), "unlike_training": unlike, "expected_dice": expected,
            "organs": {"heart": fine, "aorta": row}}  # fmt: skip


REVIEWS = {
    "A": review(0.93),
    "B": review(0.61, True, reason="models or flips disagree over 4 slices; expected 0.61",
                slices=[7, 9]),
    "C": review(0.90, unlike=True),
    "D": review(0.74, True, reason="unsure over 1 slice; expected 0.74"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reviewed")
    labels = truth_map()
    for sub in ("scans", "predictions/cases", "labels"):
        (folder / sub).mkdir(parents=True)
    for name, one in REVIEWS.items():
        for sub, array in (("scans", ct(labels)), ("predictions", labels), ("labels", labels)):
            nibabel.save(nibabel.Nifti1Image(array, AFFINE), folder / sub / f"{name}.nii.gz")
        known = {"organs": ["heart", "aorta"], "review": one}
        (folder / "predictions" / "cases" / f"{name}.json").write_text(json.dumps(known))
    given = {"predictions": folder / "predictions", "scans": folder / "scans", "gif": False}
    for output, more in (("plain", {}), ("scored", {"labels": folder / "labels"})):
        done = run_entry("serving.report", **given, **more, output=folder / output)
        assert done.returncode == 0, done.stderr
    return folder


def test_the_list_is_sorted_and_says_why_and_a_click_opens_the_slice(browser, folder):  # noqa: F811
    page = Page(browser, folder / "plain" / "report.html")
    shown = browser.find_elements("css selector", "#patients button")
    assert [one.get_attribute("data-patient") for one in shown] == ["C", "B", "D", "A"]
    marks = [one.text.splitlines()[-1] for one in shown]
    assert "unlike training" in marks[0] and marks[1].endswith("review")
    assert "review" not in marks[3]
    overview = browser.find_element("id", "overview").text
    assert overview == "3 of 4 to review, 1 unlike the training data"
    page.click("[data-patient=B]")
    text = browser.find_element("tag name", "aside").text
    assert "aorta: models or flips disagree over 4 slices; expected 0.61" in text
    assert "0.61" in browser.find_element("id", "numbers").text
    page.click("[data-slice='9']")
    page.wait_for(f"B:{9 - 1 - _first(page)}")
    assert "slice 9 of 20" in browser.find_element("id", "caption").text
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


def _first(page):
    return page.browser.execute_script("return current().first")


def test_with_contours_the_truth_stands_beside_the_expectation(browser, folder):  # noqa: F811
    page = Page(browser, folder / "scored" / "report.html")
    page.click("[data-patient=B]")
    rows = browser.find_element("id", "numbers").text.splitlines()
    header = rows.index("Dice at least true")
    assert rows[header + 2] == "aorta 0.61 0.51 1.00"


@pytest.mark.parametrize(
    "damage",
    [
        lambda one: one.update(organs=[]),
        lambda one: one.update(reason=None),
        lambda one: one["organs"]["aorta"].update(slices=["<b>"]),
        lambda one: one["organs"]["aorta"].update(expected_dice="high"),
        lambda one: one["organs"].update(brain={}),
    ],
)
def test_a_review_that_serving_predict_did_not_write_is_refused(tmp_path, damage):
    one = json.loads(json.dumps(REVIEWS["B"]))
    (tmp_path / "cases").mkdir()
    path = tmp_path / "cases" / "B.json"
    path.write_text(json.dumps({"organs": ["heart", "aorta"], "review": one}))
    known = facts.read_of_table(str(tmp_path), "B", organs.SEGTHOR).review
    assert json.loads(json.dumps(dataclasses.asdict(known))) == REVIEWS["B"]
    damage(one)
    path.write_text(json.dumps({"organs": ["heart", "aorta"], "review": one}))
    with pytest.raises(InputError, match="the facts of B"):
        facts.read_of_table(str(tmp_path), "B", organs.SEGTHOR)
