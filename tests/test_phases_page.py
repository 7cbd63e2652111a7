"""Phases of a 4D CT in the report: one entry of the list, and a slider in a real browser."""

import numpy as np
import pytest
from test_viewer import AFFINE, ALL, HEART, Page, browser, ct, truth_map  # noqa: F401

from segthor.boxes import around
from segthor.organs import SEGTHOR
from serving.scoring import page, viewer
from tests import file_order

SHIFTS = (0, 3, 6)  # of the organs towards the patient's left, phase by phase, in voxels
FAILED = 3


@pytest.fixture
def shown(browser, tmp_path):  # noqa: F811
    """Three phases, a fourth that failed, and another patient; opened in the browser."""
    scans = [np.roll(truth_map(), shift, 0) for shift in SHIFTS]
    maps = [file_order.label_map(labels, AFFINE) for labels in scans]
    box = around(viewer.box_about(one.zyx, None, one.grid.spacing_mm) for one in maps)
    phases = [
        viewer.patient(f"P_{k}", file_order.volume(ct(labels), AFFINE), one, None, {}, ALL, box)
        for k, (labels, one) in enumerate(zip(scans, maps, strict=True))
    ]
    phases.append(viewer.failed(f"P_{FAILED}", "truncated"))
    words = ["0 %", "30 %", "60 %", "90 %"]
    other = viewer.patient("Q", file_order.volume(ct(scans[0]), AFFINE), maps[0], None, {}, ALL)
    entries = sorted([other, viewer.phases("P", phases, words)], key=viewer.rank)
    page.write(str(tmp_path / "report.html"), entries, "phases", organs=SEGTHOR)
    return Page(browser, tmp_path / "report.html")


def slide(shown, phase):
    shown.script(
        "const slider = document.getElementById('phaseslider'); slider.value = arguments[0];"
        "slider.dispatchEvent(new Event('input'))",
        phase,
    )


def test_phases_share_one_entry_which_opens_at_the_worst(shown):
    assert shown.names() == ["P", "Q"]
    shown.wait_for(f"P_{FAILED}:failed")
    assert shown.script("return document.querySelector('#patients small').textContent").startswith(
        "4 phases"
    )
    assert shown.browser.find_element("id", "phase").text == "90 %"


def test_the_slider_shows_each_phase_where_the_crosshair_is(shown):
    shown.wait_for(f"P_{FAILED}:failed")
    slide(shown, 0)
    shown.wait_until("whole", "true")
    z = 8 - shown.script("return current().first")
    shown.script("state.at[2] = arguments[0]; return draw()", z)
    shown.wait_for(f"P_0:{z}")
    at, first = shown.script("return state.at"), None
    for phase, shift in enumerate(SHIFTS):
        slide(shown, phase)
        shown.wait_for(f"P_{phase}:{z}")
        assert shown.script("return state.at") == at
        assert shown.browser.find_element("id", "phase").text == ["0 %", "30 %", "60 %"][phase]
        assert f"phase {phase * 30} %" in shown.browser.find_element("id", "caption").text
        left, _, right, _ = shown.box("heart")
        first = left if first is None else first
        assert left - first == pytest.approx(shift, abs=0.5)
        assert right - left == pytest.approx(HEART[0].stop - HEART[0].start, abs=0.6)
    shown.press(",")
    shown.wait_for(f"P_1:{z}")
    shown.press(".")
    shown.wait_for(f"P_2:{z}")
    shown.press(".")
    shown.wait_for(f"P_{FAILED}:failed")
    assert "truncated" in shown.browser.find_element("id", "failure").text
    assert not [line for line in shown.browser.get_log("browser") if line["level"] == "SEVERE"]


def test_other_patients_have_no_phase_slider_and_an_address_leads_to_its_phase(shown):
    shown.wait_for(f"P_{FAILED}:failed")
    assert shown.browser.find_element("id", "phaseslider").is_displayed()
    shown.click("[data-patient=Q]")
    shown.wait_until("patient", "Q")
    assert not shown.browser.find_element("id", "phaseslider").is_displayed()
    path = shown.script("return location.href").partition("#")[0].removeprefix("file://")
    again = Page(shown.browser, f"{path}#P_1/9")
    again.wait_for(f"P_1:{8 - again.script('return current().first')}")
    assert again.browser.find_element("id", "phase").text == "30 %"
