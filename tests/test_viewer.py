"""The report: its data, its sorting, and the page itself in a real browser."""

import base64
import dataclasses
import json
import re
import shutil
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from programs import run_entry
from tiny_models import at_work_in, killed_while_writing

from segthor import drawing, organ_table, organs
from segthor.organs import SEGTHOR
from serving.prediction.facts import Facts
from serving.scoring import animation, page, viewer
from tests import file_order

ALL = Facts(organs=organs.SEGTHOR.names)
SHAPE = (60, 56, 20)
SPACING_MM = (2.0, 2.0, 4.0)
AFFINE = np.diag([-2.0, -2.0, 4.0, 1.0])
HEART = (slice(20, 40), slice(18, 36), slice(5, 15))
AORTA = (slice(44, 50), slice(40, 46), slice(3, 17))


def truth_map() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[HEART], labels[AORTA] = 2, 4
    return labels


def ct(labels) -> np.ndarray:
    hu = np.full(SHAPE, -1000, np.int16)
    hu[4:-4, 4:-4] = 20
    hu[labels == 2], hu[labels == 4] = 60, 160
    return hu


def unpack(packed: str) -> np.ndarray:
    """The page's decoder of label maps, written again."""
    content, labels, at = base64.b64decode(packed), [], 0
    while at < len(content):
        label, length, shift = content[at], 0, 0
        at += 1
        while True:
            byte = content[at]
            at += 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        labels += [label] * length
    return np.array(labels, np.uint8)


def test_label_maps_survive_packing():
    rng = np.random.default_rng(0)
    for plane in (
        rng.integers(0, 5, (37, 41)),
        np.zeros((300, 300), int),
        np.repeat(rng.integers(0, 5, 40), 1000).reshape(200, 200),
    ):
        plane = plane.astype(np.uint8)
        np.testing.assert_array_equal(unpack(viewer._runs(plane)), plane.ravel())


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0)])
def test_an_entry_shows_the_patient_in_canonical_order_with_true_sizes(axes):
    labels = truth_map()
    affine = AFFINE[:, [*axes, 3]]
    scan = file_order.volume(ct(labels).transpose(axes), affine)
    found = file_order.label_map(labels.transpose(axes), affine)
    entry = viewer.patient("A", scan, found, None, {}, ALL)
    assert entry["depth"] == 20 and entry["pixelMm"] == [2.0, 2.0] and entry["sliceMm"] == 4.0
    assert entry["first"] == 1  # the aorta starts at 3, 10 mm below it are two slices
    plane = unpack(entry["predicted"][10 - entry["first"]])
    plane = plane.reshape(entry["height"], entry["width"])
    rows, columns = np.nonzero(plane == 2)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (18, 20)
    aorta_rows, aorta_columns = np.nonzero(plane == 4)
    assert aorta_rows.min() > rows.max() and aorta_columns.min() > columns.max()
    assert entry["truth"] is None and entry["sliceDice"] is None
    voxels = np.count_nonzero(labels == 4) * 16 / 1000
    assert entry["organs"]["aorta"]["volumeCm3"] == pytest.approx(voxels, abs=0.01)


def test_implausible_volumes_are_flagged_without_contours():
    labels = truth_map()
    scan, found = file_order.volume(ct(labels), AFFINE), file_order.label_map(labels, AFFINE)
    entry = viewer.patient("A", scan, found, None, {}, Facts(organs=("heart", "aorta")))
    assert set(entry["organs"]) == {"heart", "aorta"}
    assert not entry["organs"]["heart"]["plausible"]  # 58 cm3
    assert any("heart" in finding["message"] for finding in entry["findings"])


def test_grey_levels_keep_soft_tissue_to_a_few_hu():
    hu = np.arange(-1100, 2100)
    known_hu, levels = zip(*viewer.LEVELS, strict=True)
    grey = np.rint(np.interp(hu, known_hu, levels))
    back = np.interp(grey, levels, known_hu)
    soft = (hu > -195) & (hu < 295)
    assert np.abs(back - hu)[soft].max() < 2
    assert (np.diff(grey) >= 0).all()


def test_the_worst_organ_decides_the_order():
    def entry(name, dice, severities=()):
        return {
            "name": name,
            "organs": {f"organ {i}": {"dice": value} for i, value in enumerate(dice)},
            "findings": [{"severity": severity} for severity in severities],
        }

    entries = [
        entry("fine", [0.9, 0.9]),
        entry("one bad organ", [0.99, 0.2]),
        entry("middling", [0.6, 0.6]),
        viewer.failed("lost", "truncated"),
        entry("unscored", []),
        entry("unscored, odd", [], ["reject", "warn"]),
    ]
    order = [e["name"] for e in sorted(entries, key=viewer.rank)]
    assert order == ["lost", "one bad organ", "middling", "fine", "unscored, odd", "unscored"]


PATIENTS = {"Patient_41": 0, "Patient_42": 5, "Patient_43": 1}  # shift of the prediction along x


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three patients, one whose scan is broken, and their report with and without contours."""
    folder = tmp_path_factory.mktemp("report")
    labels = truth_map()
    for sub in ("scans", "predictions/cases", "labels"):
        (folder / sub).mkdir(parents=True)
    for name, shift in PATIENTS.items():
        for sub, array in (
            ("scans", ct(labels)),
            ("predictions", np.roll(labels, shift, 0)),
            ("labels", labels),
        ):
            nibabel.save(nibabel.Nifti1Image(array, AFFINE), folder / sub / f"{name}.nii.gz")
        (folder / "predictions" / "cases" / f"{name}.json").write_text(
            '{"organs": ["heart", "aorta"], "level_hu": 57.0, "width_hu": 500.0, '
            '"postprocess": {"heart": {"removed_cm3": 1.5, "filled_cm3": 0.25}}}'
        )
    (folder / "scans" / "Patient_44.nii.gz").write_bytes(b"broken")
    (folder / "predictions" / "cases" / "Patient_44.json").write_text(
        '{"failed": "no NIfTI <b>file</b></script>"}'
    )
    flags = {"predictions": folder / "predictions", "scans": folder / "scans"}
    done = run_entry("serving.report", **flags, labels=folder / "labels", output=folder / "out")
    assert done.returncode == 1, done.stderr  # one failed
    done = run_entry("serving.report", **flags, output=folder / "plain", gif=False)
    assert (folder / "plain" / "report.html").exists(), done.stderr
    return folder


def test_the_page_holds_everything_itself(folder):
    html = (folder / "out" / "report.html").read_text()
    assert not re.search(
        r"(?:src|href|url)\s*[=(]\s*[\"']?(?!data:)[\w./]+", html.split("<body>")[0]
    )
    assert "http" not in html.replace("http-equiv", "")
    assert "default-src 'none'" in html


def test_the_gif_runs_through_the_slices_in_the_organs_colours(folder):
    with Image.open(folder / "out" / "gif" / "Patient_41.gif") as gif:
        durations = []
        for frame in range(gif.n_frames):
            gif.seek(frame)
            durations.append(gif.info["duration"])
        # Slices 3 to 16 and 10 mm on either side; slices that look alike share a frame.
        assert sum(durations) == 18 * animation.FRAME_MS
        gif.seek(durations.index(max(durations)))
        colours = {colour for _, colour in gif.convert("RGB").getcolors(1 << 16)}
    assert {organs.SEGTHOR[name].rgb for name in ("heart", "aorta")} <= colours
    assert not (folder / "plain" / "gif").exists()


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium from the system (Debian: chromium, chromium-driver)."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium and chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage",
                     "window-size=1400,900"):  # fmt: skip
        options.add_argument("--" + argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


class Page:
    """What the tests do with the page."""

    def __init__(self, browser, path):
        self.browser = browser
        browser.get("about:blank")
        browser.get(f"file://{path}")

    def script(self, text, *arguments):
        return self.browser.execute_script(text, *arguments)

    def wait_for(self, drawn):
        """Until the page has drawn 'patient:slice'."""
        deadline = time.monotonic() + 60
        while self.script("return document.body.dataset.drawn") != drawn:
            assert time.monotonic() < deadline, self.script("return document.body.dataset.drawn")
            time.sleep(0.02)

    def click(self, selector):
        self.browser.find_element("css selector", selector).click()

    def press(self, key):
        self.browser.find_element("tag name", "body").send_keys(key)

    def names(self):
        return self.script("return [...document.querySelectorAll('#patients button')]"
                           ".map((b) => b.dataset.patient)")  # fmt: skip

    def box(self, name, pale=False, table=organs.SEGTHOR, plane="axial"):
        """Picture pixels (left, top, right, bottom) of an organ's line; None where not drawn."""
        rgb = np.array(table[name].rgb)
        if pale:  # as in every other picture
            rgb = drawing.pale(table[name].rgb)
        return self.script(
            """const canvas = document.getElementById(arguments[1]), [r, g, b] = arguments[0];
            const where = geometry[arguments[1]];
            const {data, width} = canvas.getContext("2d").getImageData(
              0, 0, canvas.width, canvas.height);
            const box = [1e9, 1e9, -1, -1];
            for (let i = 0; i < data.length; i += 4) {
              if (Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b) > 6)
                continue;
              const x = ((i / 4) % width - where.x) / where.sx;
              const y = (Math.floor(i / 4 / width) - where.y) / where.sy;
              box[0] = Math.min(box[0], x); box[1] = Math.min(box[1], y);
              box[2] = Math.max(box[2], x); box[3] = Math.max(box[3], y);
            }
            return box[2] < 0 ? null : box;""",
            [int(value) for value in rgb],
            plane,
        )

    def grey_at(self, x, y, plane="axial"):
        """Grey on the canvas at picture pixel (x, y)."""
        return self.script(
            """const [px, py, plane] = arguments, where = geometry[plane];
            return document.getElementById(plane).getContext("2d").getImageData(
              where.x + px * where.sx, where.y + py * where.sy, 1, 1).data[0];""",
            x,
            y,
            plane,
        )

    def mouse(self, kind, plane, x, y, **more):
        """A mouse's event over picture pixel (x, y) of a plane."""
        self.script(
            """const [kind, plane, px, py, more] = arguments, where = geometry[plane];
            const canvas = document.getElementById(plane), box = canvas.getBoundingClientRect();
            const event = {bubbles: true, cancelable: true, ...more,
              clientX: box.left + (where.x + px * where.sx) / where.ratio,
              clientY: box.top + (where.y + py * where.sy) / where.ratio};
            canvas.dispatchEvent(new (kind === "wheel" ? WheelEvent : MouseEvent)(kind, event));""",
            kind,
            plane,
            x,
            y,
            more,
        )

    def wait_until(self, name, value):
        """Until the page says this of itself: `at`, the voxel of the crosshair, or `whole`."""
        deadline = time.monotonic() + 60
        while self.script("return document.body.dataset[arguments[0]]", name) != value:
            assert time.monotonic() < deadline, self.script("return {...document.body.dataset}")
            time.sleep(0.02)


def in_picture(part):
    """A slice of the scan in the picture, whose margin of 35 mm is cut at the scan's edge."""
    first = max(min(HEART[part].start, AORTA[part].start) - 18, 0)  # 17.5 px rounds to even
    return HEART[part].start - first, HEART[part].stop - first


def test_a_reader_clicks_through_patients_and_slices_and_sees_contours(browser, folder):
    page = Page(browser, folder / "out" / "report.html")
    assert page.names() == ["Patient_44", "Patient_42", "Patient_43", "Patient_41"]
    page.wait_for("Patient_44:failed")
    assert "no NIfTI <b>file</b></script>" in browser.find_element("id", "failure").text

    page.click("[data-patient=Patient_41]")
    page.wait_for("Patient_41:2")  # every slice is perfect: the first that has an organ
    assert page.box("aorta") and not page.box("heart")
    for slice_ in (3, 4, 5):
        page.press("\ue013")  # up
        page.wait_for(f"Patient_41:{slice_}")
    # The lines of the heart run about the heart, to a pixel's half and the line's own width.
    (x0, x1), (y0, y1) = in_picture(0), in_picture(1)
    assert page.box("heart") == pytest.approx([x0, y0, x1, y1], abs=0.5)

    page.click("[data-patient=Patient_42]")
    page.wait_for("Patient_42:2")
    page.script("document.getElementById('slider').value = 8;"
                "document.getElementById('slider').dispatchEvent(new Event('input'))")  # fmt: skip
    page.wait_for("Patient_42:8")
    x0, x1 = in_picture(0)
    left, _, right, _ = page.box("heart")
    assert (left, right) == pytest.approx((x0 + 5, x1 + 5), abs=0.5)  # its own shift
    left, _, right, _ = page.box("heart", pale=True)
    assert (left, right) == pytest.approx((x0, x1), abs=0.5)
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


# Boxes [x, y, z] of the picture of a scan without margins, none of them in the middle of any axis.
PLANTED = {
    "heart": ((8, 20), (10, 16), (2, 9)),
    "aorta": ((30, 33), (25, 33), (1, 14)),
    "trachea": ((12, 13), (30, 31), (12, 13)),  # one voxel
}
MM = (1.5, 1.0, 3.0)  # of x, y, z


@pytest.fixture
def planted(browser, tmp_path):
    """The page of a scan with those organs, true ones a voxel to the patient's left of them."""
    labels = np.zeros((40, 36, 18), np.uint8)  # canonical x, y, z
    for name, box in PLANTED.items():
        labels[tuple(slice(*limits) for limits in box)] = organs.SEGTHOR[name].label
    labels[0, 0, 0] = labels[-1, -1, -1] = 1  # so that the picture is the whole scan
    hu = np.full(labels.shape, -1000, np.int16)
    hu[25:, :18, 9:] = 3000  # bone at the patient's left, in front, above
    affine = np.diag([-MM[0], -MM[1], MM[2], 1.0])
    scan, found = file_order.volume(hu, affine), file_order.label_map(labels, affine)
    true = file_order.label_map(np.roll(labels, 1, 0), affine)
    entry = viewer.patient("A", scan, found, true, {}, ALL)
    assert (entry["width"], entry["height"], len(entry["slices"])) == labels.shape
    page.write(str(tmp_path / "report.html"), [entry], "planted", organs=SEGTHOR)
    shown = Page(browser, tmp_path / "report.html")
    shown.wait_until("whole", "true")
    return shown


def go(shown, x, y, z):
    """The crosshair to a voxel, by two clicks: in the axial plane, then in the coronal one."""
    shown.mouse("mousedown", "axial", x + 0.5, y + 0.5, buttons=1)
    shown.wait_until("at", f"{x},{y},{shown.script('return state.at[2]')}")
    shown.mouse("mousedown", "coronal", x + 0.5, 18 - z - 0.5, buttons=1)
    shown.wait_until("at", f"{x},{y},{z}")


def in_plane(name, plane):
    """(left, top, right, bottom) of a planted box in a plane's picture: the head is up."""
    x, y, z = PLANTED[name]
    up = 18 - z[1], 18 - z[0]
    across, down = {"axial": (x, y), "coronal": (x, up), "sagittal": (y, up)}[plane]
    return across[0], down[0], across[1], down[1]


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_organ_lies_in_its_place_in_every_plane(planted, name):
    go(planted, *(limits[0] for limits in PLANTED[name]))
    for plane in ("axial", "coronal", "sagittal"):
        expected = in_plane(name, plane)
        assert planted.box(name, plane=plane) == pytest.approx(expected, abs=0.55), plane
    # The true organ is a voxel further to the patient's left: the sagittal plane of its right edge
    # misses it.
    left, top, right, bottom = in_plane(name, "coronal")
    pale = planted.box(name, pale=True, plane="coronal")
    assert pale == pytest.approx((left + 1, top, right + 1, bottom), abs=0.55)
    assert planted.box(name, pale=True, plane="sagittal") is None


def test_planes_have_true_proportions_the_right_grey_and_letters_at_their_edges(planted):
    go(planted, 32, 5, 12)  # in the bone
    for plane, across, down in (("axial", 0, 1), ("coronal", 0, 2), ("sagittal", 1, 2)):
        where = planted.script("return geometry[arguments[0]]", plane)
        assert where["sx"] / where["sy"] == pytest.approx(MM[across] / MM[down])
        sides = [18 if axis == 2 else (40, 36)[axis] for axis in (across, down)]
        assert [where["width"], where["height"]] == sides
        canvas = planted.script("const c = document.getElementById(arguments[0]);"
                                "return [c.width, c.height]", plane)  # fmt: skip
        assert where["x"] >= -1 and where["width"] * where["sx"] <= canvas[0] + 1
        assert where["y"] >= -1 and where["height"] * where["sy"] <= canvas[1] + 1
    for plane, bone, air in (
        ("axial", (36, 8), (10, 30)),
        ("coronal", (36, 3), (36, 15)),  # above, not below
        ("sagittal", (8, 3), (30, 3)),  # in front, not behind
    ):
        assert planted.grey_at(*bone, plane=plane) > 250, plane
        assert planted.grey_at(*air, plane=plane) < 5, plane
    letters = planted.script(
        """return Object.fromEntries(Object.keys(PLANES).map((name) => {
          const box = document.getElementById(name).getBoundingClientRect();
          const at = (edge) => {
            const letter = document.getElementById(name).parentElement.querySelector("." + edge);
            const b = letter.getBoundingClientRect();
            return [letter.textContent, ((b.left + b.right) / 2 - box.left) / box.width,
              ((b.top + b.bottom) / 2 - box.top) / box.height];
          };
          return [name, ["left", "right", "top", "bottom"].map(at)];
        }));"""
    )
    assert {plane: "".join(one[0] for one in found) for plane, found in letters.items()} == {
        "axial": "RLAP", "coronal": "RLHF", "sagittal": "APHF",
    }  # fmt: skip
    for found in letters.values():
        (_, left, _), (_, right, _), (_, _, top), (_, _, bottom) = found
        assert max(left, top) < 0.15 and min(right, bottom) > 0.85


def test_a_click_a_drag_and_the_wheel_in_one_plane_move_the_others(planted):
    go(planted, 10, 12, 5)
    assert planted.box("aorta", plane="sagittal") is None
    planted.mouse("mousedown", "axial", 31.5, 28.5, buttons=1)
    planted.wait_until("at", "31,28,5")
    assert planted.box("aorta", plane="sagittal") and planted.box("aorta", plane="coronal")
    assert planted.box("heart", plane="sagittal") is None
    # In the sagittal plane the front is to the left and the head is up.
    planted.mouse("mousemove", "sagittal", 12.5, 18 - 3.5, buttons=1)
    planted.wait_until("at", "31,12,3")
    assert planted.script("return document.body.dataset.drawn") == "A:3"
    planted.mouse("mousemove", "sagittal", 20.5, 4.5, buttons=0)  # no button, no move
    planted.mouse("wheel", "coronal", 10, 10, deltaY=-100)
    planted.wait_until("at", "31,13,3")
    planted.mouse("wheel", "sagittal", 10, 10, deltaY=100)
    planted.wait_until("at", "30,13,3")
    planted.mouse("mousemove", "coronal", 10.5, 18 - 2.5, buttons=0)
    text = planted.script("return document.getElementById('readout').textContent")
    assert re.fullmatch(r"about -(99\d|1000) HU · predicted heart · true heart", text)
    planted.mouse("dblclick", "sagittal", 10, 10)
    sizes = planted.script("return Object.keys(PLANES).map((n) => document.getElementById(n)"
                           ".clientHeight)")  # fmt: skip
    assert sizes[2] > 1.8 * sizes[0] and sizes[0] == pytest.approx(sizes[1], abs=1)
    assert not [line for line in planted.browser.get_log("browser") if line["level"] == "SEVERE"]


def test_the_page_opens_at_what_is_in_question_and_leads_to_the_rest(browser, tmp_path):
    labels = truth_map()
    scan, found = file_order.volume(ct(labels), AFFINE), file_order.label_map(labels, AFFINE)
    entry = viewer.patient("A", scan, found, None, {}, ALL)
    asked = [
        ("aorta", "40% in dispute", "no contour in 3 slices", [(3, 3), (12, 14)]),
        ("heart", "9% in dispute", "another outline", [(6, 7)]),
    ]
    entry["questions"] = [
        {
            "organ": organ,
            "short": short,
            "reason": reason,
            "slices": [[low - entry["first"], high - entry["first"]] for low, high in runs],
        }
        for organ, short, reason, runs in asked
    ]
    page.write(str(tmp_path / "report.html"), [entry], "suspects", organs=SEGTHOR)
    shown = Page(browser, tmp_path / "report.html")
    shown.wait_until("whole", "true")

    def slice_of(organ):
        """Where the crosshair is: the slice of the scan, from 0, if in this organ's middle."""
        x, y, z = shown.script("return state.at")
        left, top, right, bottom = shown.box(organ)
        assert (x, y) == pytest.approx(((left + right) / 2, (top + bottom) / 2), abs=1)
        return z + entry["first"]

    assert slice_of("aorta") == 13  # the middle of the longest run
    assert shown.script("return document.querySelector('#patients small').textContent").startswith(
        "aorta: 40% in dispute"
    )
    panel = browser.find_element("id", "questions")
    assert "aorta: no contour in 3 slices" in panel.text and "heart: another outline" in panel.text
    buttons = panel.find_elements("tag name", "button")
    assert [button.text for button in buttons] == ["4", "13–15", "7–8"]
    for button, organ, z in zip(buttons, ("aorta", "aorta", "heart"), (3, 13, 6), strict=True):
        button.click()
        shown.wait_for(f"A:{z - entry['first']}")
        assert slice_of(organ) == z
    marked = shown.script(
        """const canvas = document.getElementById("strip"), context = canvas.getContext("2d");
        const step = canvas.width / current().slices.length;
        return current().slices.map((_, k) => {
          const [r, g, b] = context.getImageData((k + 0.5) * step, canvas.height - 3, 1, 1).data;
          return r > 200 && g < 150 && b < 150;
        });"""
    )
    found = [k + entry["first"] for k, red in enumerate(marked) if red]
    assert set(found) | {6} == {3, 6, 7, 12, 13, 14}  # the current one is framed in blue
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


def test_the_crosshair_stands_at_the_voxel_in_every_plane_and_can_be_hidden(planted):
    go(planted, 20, 14, 6)
    count = """const [name, across, down] = arguments, where = geometry[name];
        const canvas = document.getElementById(name), context = canvas.getContext("2d");
        const blue = (x, y) => { const [r, g, b] = context.getImageData(x, y, 1, 1).data;
          return b > r + 30; };
        const x = Math.floor(where.x + (across + 0.5) * where.sx);
        const y = Math.floor(where.y + (down + 0.5) * where.sy);
        const near = [-1, 0, 1];
        return [near.some((d) => blue(x + d, 3)), near.some((d) => blue(3, y + d)),
          near.some((d) => blue(x + d, y))];"""
    for plane, across, down in (("axial", 20, 14), ("coronal", 20, 11), ("sagittal", 14, 11)):
        assert planted.script(count, plane, across, down) == [True, True, False], plane
        assert planted.script(count, plane, across + 3, down)[0] is False
    planted.click("#layers [data-name=Crosshair]")
    planted.script("return draw()")
    assert planted.script(count, "coronal", 20, 11) == [False, False, False]


def test_the_crosshair_starts_in_the_worst_organ_of_the_slice(browser, folder):
    shown = Page(browser, folder / "out" / "report.html")
    shown.click("[data-patient=Patient_42]")
    shown.wait_for("Patient_42:2")
    x, y, _ = shown.script("return state.at")
    left, top, right, bottom = shown.box("aorta")
    assert left < x < right and top < y < bottom


def test_only_organs_that_the_model_knows_are_offered(browser, folder):
    shown = Page(browser, folder / "out" / "report.html")
    shown.click("[data-patient=Patient_42]")
    shown.wait_for("Patient_42:2")
    names = shown.script("return [...document.querySelectorAll('#layers button')]"
                         ".map((b) => b.dataset.name)")  # fmt: skip
    assert names == ["Predicted", "True (dashed)", "Crosshair", "heart", "aorta"]
    keys = shown.script("return [...document.querySelectorAll('#organkeys kbd')]"
                        ".map((k) => k.textContent).join('')")  # fmt: skip
    assert keys == "HA"
    assert "trachea" not in browser.find_element("tag name", "body").text


def test_no_path_of_the_machine_stands_in_the_page(folder, tmp_path):
    home = tmp_path / "a home"
    home.mkdir()
    flags = copied(folder, home)
    (flags["predictions"] / "Patient_43.nii.gz").write_bytes(b"broken")
    (flags["predictions"] / "cases" / "Patient_42.json").write_text("[]")
    (flags["predictions"] / "cases" / "Patient_44.json").write_text(
        '{"failed": "/mnt/other/scans/Patient_44.nii.gz: damaged, see gs://bucket/x/log.txt"}'
    )
    nibabel.save(
        nibabel.Nifti1Image(truth_map()[1:], AFFINE), flags["labels"] / "Patient_41.nii.gz"
    )
    done = run_entry("serving.report", **flags, output=home / "out", gif=False)
    assert done.returncode == 1, done.stderr
    html = (home / "out" / "report.html").read_text()
    for word in ("a home", str(tmp_path), str(tmp_path.parent), "/mnt", "gs:", "bucket"):
        assert word not in html, word
    assert json.loads(html.partition('id="data">')[2].partition("</script>")[0])["source"] == (
        "predictions"
    )
    reasons = {
        name: entry.get("failed") for name, entry in entries_of(home / "out/report.html").items()
    }
    assert "Patient_41.nii.gz" in reasons["Patient_41"] and "predictions" in reasons["Patient_42"]
    assert reasons["Patient_43"].startswith("Patient_43.nii.gz: ")
    assert reasons["Patient_44"].endswith("Patient_44.nii.gz: damaged, see log.txt")


def test_layers_organs_and_windows_can_be_switched(browser, folder):
    page = Page(browser, folder / "out" / "report.html")
    page.click("[data-patient=Patient_42]")
    page.wait_for("Patient_42:2")
    page.press("\ue013")
    page.wait_for("Patient_42:3")

    def switched(action):
        page.script("delete document.body.dataset.drawn")
        action()
        page.wait_for("Patient_42:3")

    assert page.box("aorta") and page.box("aorta", pale=True)
    switched(lambda: page.click("#layers [data-name=Predicted]"))
    assert not page.box("aorta") and page.box("aorta", pale=True)
    switched(lambda: page.press("p"))
    switched(lambda: page.press("t"))
    assert page.box("aorta") and not page.box("aorta", pale=True)
    switched(lambda: page.press("a"))
    assert not page.box("aorta")

    # 20 HU of tissue under each window: level 40 width 400; -600, 1500; 400, 1800; 57, 500.
    for key, level, width in (("1", 40, 400), ("2", -600, 1500), ("3", 400, 1800), ("4", 57, 500)):
        switched(lambda key=key: page.press(key))
        expected = ((20 - level) / width + 0.5) * 255
        assert page.grey_at(20.5, 10.5) == pytest.approx(expected, abs=3)


def test_numbers_and_notes_stand_beside_the_picture(browser, folder):
    page = Page(browser, folder / "out" / "report.html")
    page.click("[data-patient=Patient_42]")
    page.wait_for("Patient_42:2")
    text = browser.find_element("tag name", "aside").text
    assert "0.750" in text  # the heart: 15 of 20 columns overlap
    assert "1.5 cm³ removed, 0.25 cm³ filled" in text
    assert "plausible" in text and "⚑" in text
    assert "mean Dice" in browser.find_element("id", "means").text
    assert "trachea" not in browser.find_element("id", "numbers").text


def test_without_contours_it_shows_volumes_and_flags(browser, folder):
    page = Page(browser, folder / "plain" / "report.html")
    page.click("[data-patient=Patient_42]")
    page.wait_for("Patient_42:9")  # the middle
    text = browser.find_element("tag name", "aside").text
    assert "57.6" in text and "⚑" in text and "Dice" not in text
    assert "True" not in browser.find_element("id", "layers").text
    assert page.box("heart") and not page.box("heart", pale=True)


def test_seven_organs_have_a_key_a_colour_and_a_line_of_the_strip_each(browser, tmp_path):
    table = organ_table.read("configs/organs/thorax.csv")
    gut = dataclasses.replace(table["trachea"], volume_cm3=None)
    table = organs.Organs((*table.rows[:2], gut, *table.rows[3:]))
    labels = np.zeros(SHAPE, np.uint8)
    for place, organ in enumerate(table):
        labels[8 + 6 * place : 12 + 6 * place, 20:30, 5:15] = organ.label
    scan = file_order.volume(ct(labels), AFFINE)
    found = file_order.label_map(labels, AFFINE, table)
    entry = viewer.patient("A", scan, found, None, {}, Facts(organs=table.names))
    page.write(str(tmp_path / "report.html"), [entry], "seven", table)
    shown = Page(browser, tmp_path / "report.html")
    shown.wait_for("A:7")
    keys = shown.script("return [...document.querySelectorAll('#organkeys kbd')]"
                        ".map((k) => k.textContent).join('')")  # fmt: skip
    assert keys == "EHRASLU"
    rows = browser.find_element("id", "numbers").text.splitlines()
    assert [row.split()[0] for row in rows[-7:]] == list(table.names)
    assert rows[-5].endswith("–") and rows[-4].endswith("50–600")
    for organ, key in zip(table, keys, strict=True):
        assert shown.box(organ.name, table=table)
        for visible in (False, True):
            shown.script("delete document.body.dataset.drawn")
            shown.press(key.lower())
            shown.wait_for("A:7")
            assert bool(shown.box(organ.name, table=table)) == visible, organ.name
        lines = shown.script(
            """const canvas = document.getElementById("strip"), [r, g, b] = arguments[0];
            const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let count = 0;
            for (let i = 0; i < data.length; i += 4)
              count += data[i] === r && data[i + 1] === g && data[i + 2] === b;
            return count;""",
            list(organ.rgb),
        )
        assert lines > 100, organ.name
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


@pytest.mark.parametrize(
    "names, keys",
    [
        (["esophagus", "heart", "trachea", "aorta"], "ehra"),
        (["ptw", "a", "aa", "aaa"], "abcd"),
        ([f"o_{number}" for number in range(25)], "oabcdefghijklmnqrsuvxyz"),
    ],
)
def test_no_two_organs_share_a_key_and_none_takes_the_pages_own(names, keys):
    assert page._keys(names) == [*keys, *[""] * (len(names) - len(keys))]


# What names of files may hold, and what of it ends, opens or breaks an element or a string.
HOSTILE = [
    "<!--<script>", "</script><script>alert(1)</script>", "--><img src=x onerror=alert(1)>",
    "\u2028\u2029", "\"'`&amp;&lt;/${1}", "\\\\u003c\\",
    "\U0001f9e0 \u0645\u0631\u062d\u0628\u0627", "\ud800 \udc80",
    "__proto__", "100%", "]]>", "@@script@@",
]  # fmt: skip


def hostile_page(folder, name) -> Path:
    """The report of a patient of this name, and of one that failed for a reason of this name."""
    labels = truth_map()
    scan, found = file_order.volume(ct(labels), AFFINE), file_order.label_map(labels, AFFINE)
    shown = viewer.patient(name, scan, found, found, {}, ALL)
    reason = viewer.failed("healthy", f"because of {name}")
    page.write(str(folder / "report.html"), [shown, reason], f"the folder {name}", organs=SEGTHOR)
    return folder / "report.html"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_shown_as_it_is_and_not_obeyed(browser, tmp_path, name):
    path = hostile_page(tmp_path, name)
    name = name.encode(errors="replace").decode()
    browser.get_log("browser")
    shown = Page(browser, path)
    shown.wait_for(f"{name}:9")
    assert shown.names() == [name, "healthy"]
    text = "return document.getElementById(arguments[0]).textContent"
    assert shown.script(text, "source") == f"the folder {name}"
    assert shown.script(text, "name") == name
    assert shown.script(text, "caption").startswith(f"{name} · slice ")
    assert shown.script("return document.querySelectorAll('script, img').length") == 2
    address = shown.script("return location.href")
    shown.click("[data-patient=healthy]")
    shown.wait_for("healthy:failed")
    assert shown.script(text, "failure") == f"because of {name}"
    # The address of a slice leads back to it.
    Page(browser, address.removeprefix("file://")).wait_for(f"{name}:9")
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


@pytest.mark.parametrize("address", ["%", "%E0%A4%A", "nobody/3", "A/NaN", "/", "//%00", "A/99"])
def test_any_address_opens_the_page(browser, tmp_path, address):
    Page(browser, f"{hostile_page(tmp_path, 'A')}#{address}").wait_for("A:9")


def test_the_script_writes_text_and_no_markup():
    script = "".join(path.read_text() for path in Path(page.__file__).parent.glob("*.js"))
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                 "srcdoc", "DOMParser", "createContextualFragment"):  # fmt: skip
        assert word not in script


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_of_the_data_can_end_its_element(tmp_path, name):
    html = hostile_page(tmp_path, name).read_text()
    data = html.partition('id="data">')[2].partition("</script>")[0]
    assert not set(data) & set("<>&\u2028\u2029")
    assert json.loads(data)["patients"][0]["name"] == name.encode(errors="replace").decode()


def test_the_page_and_the_pictures_share_windows_and_colours(folder):
    html = (folder / "out" / "report.html").read_text()
    data = json.loads(html.partition('id="data">')[2].partition("</script>")[0])
    assert data["windows"] == [list(window) for window in drawing.WINDOWS_HU]
    assert [organ["pale"] for organ in data["organs"]] == [
        list(drawing.pale(organs.SEGTHOR[name].rgb)) for name in ("heart", "aorta")
    ]
    hu = np.array([-160, 40, 240], np.int16)
    assert drawing.mediastinum(hu).tolist() == [0, 128, 255]


def copied(folder, tmp_path):
    for sub in ("scans", "predictions", "labels"):
        shutil.copytree(folder / sub, tmp_path / sub)
    return {name: tmp_path / name for name in ("predictions", "scans", "labels")}


def entries_of(path):
    html = path.read_text()
    data = json.loads(html.partition('id="data">')[2].partition("</script>")[0])
    return {entry["name"]: entry for entry in data["patients"]}


def test_a_contoured_patient_without_a_label_map_is_shown_as_failed(folder, tmp_path):
    flags = copied(folder, tmp_path)
    (tmp_path / "predictions/Patient_43.nii.gz").unlink()
    (tmp_path / "labels/Patient_41.nii.gz").unlink()
    (tmp_path / "scans/Patient_42.nii.gz").rename(tmp_path / "scans/Patient_9.nii.gz")
    done = run_entry("serving.report", **flags, output=tmp_path / "out", gif=False)
    assert done.returncode == 1
    found = entries_of(tmp_path / "out/report.html")
    assert set(found) == {"Patient_41", "Patient_43", "Patient_44"}
    assert found["Patient_43"]["failed"] == "no label map"
    assert "FAILED: Patient_43: no label map" in done.stdout
    assert "without a scan, left out: Patient_42" in done.stdout
    assert "without a prediction, left out: Patient_9" in done.stdout
    assert "without contours: Patient_41" in done.stdout


def test_rounded_labels_are_shown_with_a_warning(folder, tmp_path):
    flags = copied(folder, tmp_path)
    array = truth_map() * 1.0000001
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), tmp_path / "labels/Patient_41.nii.gz")
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), tmp_path / "predictions/Patient_41.nii.gz")
    done = run_entry("serving.report", **flags, output=tmp_path / "out", gif=False)
    warned = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 2 and all("4e-07 off" in line for line in warned)
    organs_shown = entries_of(tmp_path / "out/report.html")["Patient_41"]["organs"]
    assert organs_shown["heart"]["dice"] == 1


def test_a_ct_on_another_grid_is_one_failed_entry(folder, tmp_path):
    flags = copied(folder, tmp_path)
    image = nibabel.Nifti1Image(ct(truth_map())[:-1], AFFINE)
    nibabel.save(image, tmp_path / "scans/Patient_41.nii.gz")
    (tmp_path / "predictions/cases/Patient_42.json").write_text('{"organs": 3}')
    done = run_entry("serving.report", **flags, output=tmp_path / "out", gif=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    found = entries_of(tmp_path / "out/report.html")
    assert "59x56x20" in found["Patient_41"]["failed"]
    assert "facts of Patient_42" in found["Patient_42"]["failed"]
    assert "failed" not in found["Patient_43"]


def test_the_next_report_clears_what_a_killed_one_left(folder, tmp_path):
    flags = copied(folder, tmp_path)
    for name in ("report.html", "gif/Patient_41.gif", "scores.csv"):
        killed_while_writing(tmp_path / "out" / name)
    with at_work_in(tmp_path / "out"):
        done = run_entry("serving.report", **flags, output=tmp_path / "out")
        assert done.returncode == 2 and "another process is writing there" in done.stderr
        assert len(list((tmp_path / "out").rglob(".partial-*"))) == 3
    run_entry("serving.report", **flags, output=tmp_path / "out")
    (left,) = (tmp_path / "out").rglob(".partial-*")
    assert left.name.endswith("-scores.csv")


@pytest.mark.parametrize("output", ["predictions", "scans", "labels", "file"])
def test_the_report_is_never_where_an_input_lies(folder, tmp_path, output):
    flags = copied(folder, tmp_path)
    (tmp_path / "file").write_text("the user's")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    done = run_entry("serving.report", **flags, output=tmp_path / output)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --output=")
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_no_name_leads_a_gif_out_of_its_folder(folder, tmp_path):
    flags = copied(folder, tmp_path)
    (tmp_path / "predictions/Patient_41.nii.gz").rename(tmp_path / "predictions/..nii.gz")
    rows = [f"{name},scans/Patient_4{n}.nii.gz" for name, n in (("../../escaped", 1), (".", 1))]
    rows.append("Patient_42,scans/Patient_42.nii.gz")
    (tmp_path / "list.csv").write_text("\n".join(["patient,ct", *rows]))
    flags = {"predictions": flags["predictions"], "scans": tmp_path / "list.csv"}
    done = run_entry("serving.report", **flags, output=tmp_path / "out/deep")
    assert done.returncode == 1 and not done.stderr
    assert done.stdout.count("; rename it") == 2  # each is named, and the third is shown
    assert "3 patients, 2 of them failed" in done.stdout
    assert not list(tmp_path.parent.rglob("escaped*"))
    assert [path.name for path in tmp_path.rglob("*.gif")] == ["Patient_42.gif"]
