"""The report's page of a scan with uneven planes: every plane as thick as it is."""

import numpy as np
import pytest
from test_viewer import ALL, Page, browser  # noqa: F401

from segthor.organs import SEGTHOR
from segthor.planes import Planes
from segthor.volume import Grid, LabelMap, Volume
from serving.scoring import page, viewer

STEPS_MM = [2, 2, 2, 6, 6, 6, 2, 2, 6]
HEART = (slice(2, 6), slice(12, 20), slice(14, 26))  # z, y, x


@pytest.fixture
def shown(browser, tmp_path):  # noqa: F811
    planes = Planes.from_positions(np.r_[0, np.cumsum(STEPS_MM)])
    labels = np.zeros((len(STEPS_MM) + 1, 32, 40), np.uint8)
    labels[HEART] = 2
    labels[0, 0, 0] = labels[-1, -1, -1] = 1  # so that the picture is the whole scan
    affine = np.diag([-1.0, -1.0, planes.offsets_mm[-1] / len(STEPS_MM), 1.0])
    grid = Grid(labels.shape[::-1], affine, planes=planes)
    hu = np.where(labels == 2, 3000, -1000).astype(np.int16)
    entry = viewer.patient("A", Volume(hu, grid), LabelMap(labels, grid, SEGTHOR), None, {}, ALL)
    page.write(str(tmp_path / "report.html"), [entry], "uneven", organs=SEGTHOR)
    opened = Page(browser, tmp_path / "report.html")
    opened.wait_until("whole", "true")
    return opened, planes


def test_an_organ_is_as_high_as_its_planes_are_thick_and_a_click_finds_its_plane(shown):
    opened, planes = shown
    opened.mouse("mousedown", "axial", 20.5, 15.5, buttons=1)
    z = opened.script("return state.at[2]")
    opened.wait_until("at", f"20,15,{z}")
    rows = planes.thickness_mm[::-1] / planes.thickness_mm.mean()  # the head is up
    edges = np.r_[0, np.cumsum(rows)]
    count = len(rows)
    top, bottom = edges[count - HEART[0].stop], edges[count - HEART[0].start]
    for plane, across in (("coronal", HEART[2]), ("sagittal", HEART[1])):
        found = opened.box("heart", plane=plane)
        assert found == pytest.approx([across.start, top, across.stop, bottom], abs=0.5)
        beside = across.start + 2  # the crosshair
        assert opened.grey_at(beside, (top + bottom) / 2, plane=plane) > 250
        for row in (
            count - HEART[0].stop - 1,
            count - HEART[0].start,
        ):  # above, below; rows are smoothed
            assert opened.grey_at(beside, edges[row : row + 2].mean(), plane=plane) < 40
        where = opened.script("return geometry[arguments[0]]", plane)
        assert where["sy"] / where["sx"] == pytest.approx(planes.thickness_mm.mean())
    for z in range(count):
        height = (edges[count - 1 - z] + edges[count - z]) / 2
        opened.mouse("mousedown", "coronal", 20.5, height, buttons=1)
        opened.wait_until("at", f"20,15,{z}")
    assert not [line for line in opened.browser.get_log("browser") if line["level"] == "SEVERE"]


def test_an_even_scan_has_no_thickness_of_its_own():
    labels = np.zeros((9, 32, 40), np.uint8)
    labels[2:6, 12:20, 14:26] = 2
    grid = Grid(labels.shape[::-1], np.diag([-1.0, -1.0, 3.0, 1.0]))
    hu = np.where(labels == 2, 40, -1000).astype(np.int16)
    entry = viewer.patient("A", Volume(hu, grid), LabelMap(labels, grid, SEGTHOR), None, {}, ALL)
    assert "thicknessMm" not in entry and entry["sliceMm"] == 3.0
