"""The audit for people: one line per patient, and a page that shows what was found."""

import csv

import pytest

from beam_jobs import audit_page
from beam_jobs.shards import Part
from segthor.figures import OrganFigures
from segthor.findings import Finding
from segthor.geometry import Placement
from segthor.manifest import Audit, Built, Rejected
from segthor.organs import SEGTHOR, Organ, Organs

FIGURES = OrganFigures(40.0, 200.0, 30.0, 1, 0, (0.0, 0.0, 0.0))


PLACEMENT = Placement((10, 96, 96), (2.5, 0.9, 0.98), (0.0, 0.0), (1.0, 1.0), 96)


def finding(code, severity, message="what was <found> & where"):
    return Finding(code, severity, message)


def patient(name, *findings):
    return Built(
        name, f"{name}.nii", "gt.nii", "", "train", 1, 9, ("heart",), 50.0,
        PLACEMENT, Audit(findings, {"heart": FIGURES}),
    )  # fmt: skip


def rejected(name, *findings):
    return Rejected(name, f"{name}.nii", "gt.nii", findings)


@pytest.fixture
def written(tmp_path):
    parts = {
        "b": ((patient("good"), patient("odd", finding("metal", "warn"))), ()),
        "a": (
            (),
            (rejected("<bad>", finding("file_missing", "reject"), finding("metal", "warn")),),
        ),
    }
    for name, (patients, rejects) in parts.items():
        thumbnails = {"odd": "UElDVFVSRQ=="}
        part = Part("", None, patients, rejects, (), {}, thumbnails, {})
        part.save(str(tmp_path), name)
    return audit_page.write(list(parts), str(tmp_path), organs=SEGTHOR), tmp_path


def test_the_table_has_one_line_per_patient_sorted_by_name(written):
    count, folder = written
    assert count == 1
    with open(folder / "audit.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["patient"], row["status"], row["codes"]) for row in rows] == [
        ("<bad>", "rejected", "file_missing;metal"),
        ("good", "good", ""),
        ("odd", "warned", "metal"),
    ]
    assert rows[1]["heart_volume_cm3"] == "40.0" and rows[1]["aorta_volume_cm3"] == ""
    assert (rows[1]["pixel_mm"], rows[1]["slice_mm"], rows[1]["level_hu"]) == (
        "0.98",
        "2.5",
        "50.0",
    )


def test_the_page_counts_escapes_and_shows_rejects_first(written):
    page = (written[1] / "audit.html").read_text()
    assert "3 patients: 1 good, 1 warned, 1 rejected" in page
    assert "<bad>" not in page and "&lt;bad&gt;" in page and "what was &lt;found&gt; &amp;" in page
    assert page.index("&lt;bad&gt;") < page.index("<td>odd")
    assert "data:image/png;base64,UElDVFVSRQ==" in page and "<td>good" not in page
    assert "http" not in page.replace("http-equiv", "")  # opens without a network


def test_the_page_says_for_which_organs_there_is_no_range(tmp_path, written):
    assert "Not checked" not in (written[1] / "audit.html").read_text()
    gut = Organ("gut", 7, (1, 2, 3), mean_hu=(-100, 100), extent_z_mm=(1, 2))
    Part("", None, (patient("a"),), (), (), {}, {}, {}).save(str(tmp_path), "a")
    audit_page.write(["a"], str(tmp_path), Organs((SEGTHOR["aorta"], gut)))
    page = (tmp_path / "audit.html").read_text()
    told = "Not checked, without a range in the table of organs"
    assert f"{told}: gut: volume_cm3, max_components.</p>" in page
    assert 'style="color: rgb(1, 2, 3)">gut' in page
    columns = (tmp_path / "audit.csv").read_text().splitlines()[0].split(",")
    assert "gut_volume_cm3" in columns and "heart_volume_cm3" not in columns


def test_a_name_that_a_spreadsheet_would_run_is_text_and_numbers_stay_numbers(tmp_path):
    told = patient("=cmd|' /C calc'!A0", finding("metal", "warn", "+1 metal"))
    part = Part("", None, (told,), (), (), {}, {}, {})
    part.save(str(tmp_path), "a")
    audit_page.write(["a"], str(tmp_path), organs=SEGTHOR)
    with open(tmp_path / "audit.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["patient"], row["messages"]) == ("'=cmd|' /C calc'!A0", "'+1 metal")
    assert float(row["heart_mean_hu"]) == 30.0
