"""One case's trouble stays that case's, and its line quotes no header."""

import os
import time
import zlib

import dicom_damage
import numpy as np
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from beam_jobs import examine as examining
from beam_jobs.job import Job
from segthor import files, findings, guard, inputs, scans
from segthor.dicom import DicomError, elements, headers
from segthor.errors import InputError, ReadError
from segthor.organs import SEGTHOR
from segthor.patients import Patient
from segthor.recipe import Recipe
from segthor.volume import LabelMap

JOB = Job("unused", Recipe(crop_mm=288, pixel_mm=9), organs=SEGTHOR)
SECRET = "could not convert string to float: 'MARKER'"


def fail(*_, **__):
    raise ValueError(SECRET)


def test_an_unforeseen_error_is_told_by_kind_and_place():
    with pytest.raises(ValueError) as caught:
        files.inside("", fail())
    told = guard.describe(caught.value)
    place = f"tests/test_guard.py:{fail.__code__.co_firstlineno + 1}"
    assert told == f"an error that was not foreseen, ValueError at {place}"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InputError("P: expected a CT"), "P: expected a CT"),
        (OSError(28, "No space left on device", "out/A"), "out/A: No space left on device"),
        (MemoryError(), "no memory left"),
        (KeyError(SECRET), "an error that was not foreseen, KeyError"),
    ],
)
def test_what_is_ours_or_the_systems_is_told_as_it_is(error, told):
    assert guard.describe(error) == told


def test_a_call_has_its_time_and_hands_on_what_it_raises():
    began = time.monotonic()
    with pytest.raises(ReadError, match="^P: took longer than 0.1 s"):
        guard.within(0.1, "P", time.sleep, 5)
    assert time.monotonic() - began < 4
    assert guard.within(5, "P", int, "12") == 12
    with pytest.raises(ValueError):
        guard.within(5, "P", int, "x")

    def time_out():
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        guard.within(5, "P", time_out)


@pytest.mark.parametrize("name", ["read", "read_grid", "read_contours", "read_labels"])
def test_whatever_a_reader_raises_is_one_patients_trouble(monkeypatch, name):
    for module in (scans.nifti,):
        monkeypatch.setattr(module, "read", fail)
        monkeypatch.setattr(module, "read_grid", fail)
    given = ("A.nii", "A.nii") if name == "read_contours" else ("A.nii",)
    with pytest.raises(ReadError) as caught:
        getattr(scans, name)(*given)
    assert caught.value.code == "unforeseen" and "MARKER" not in str(caught.value)
    assert str(caught.value).startswith("A.nii: ")


def test_whatever_the_data_job_raises_for_a_patient_rejects_that_patient(monkeypatch):
    monkeypatch.setattr(examining, "_examine", fail)
    found = examining.examine(Patient("P", "A.nii"), JOB)
    assert found.rejected and [one.code for one in found.findings] == ["unforeseen"]
    assert "MARKER" not in found.findings[0].message
    assert "unforeseen" in findings.FATAL


@pytest.fixture
def patient(tmp_path):
    dicom_damage.healthy(tmp_path / "P")
    return tmp_path / "P"


def put(folder, keyword, value, kind="DS"):
    """Writes bytes as they are into an element of every slice."""

    def change(dataset):
        implicit, little = dataset.original_encoding
        padded = value + b" " * (len(value) % 2)
        dataset[Tag(keyword)] = RawDataElement(
            Tag(keyword), kind, len(padded), padded, 0, implicit, little
        )

    dicom_damage.every(folder, change)


@pytest.mark.parametrize("text", [b"MARKER", b"NaN", b"1\\2", b"-1", b"0", b"1e400", b""])
def test_a_slice_thickness_of_any_kind_is_the_slices_distance(patient, text):
    put(patient, "SliceThickness", text)
    made = {"version": "0", "model": "0", "date": "20260101", "time": "000000"}
    written = patient.parent / "seg.dcm"
    scan = scans.read(str(patient / "ct"))
    labels = np.zeros(scan.zyx.shape, np.uint8)
    labels[3:6, 4:9, 4:9] = 1
    label_map = LabelMap(labels, scan.grid, SEGTHOR)
    scans.write_dicom(str(patient / "ct"), label_map, {"seg": str(written)}, made)
    dataset = elements.open_dataset(open(written, "rb"), "seg")
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SliceThickness) == pytest.approx(scan.grid.spacing_mm[0], rel=1e-3)


@pytest.mark.parametrize("text", [b"1e-300\\1e-300", b"5e-324\\1", b"1e-5\\1"])
def test_pixels_too_small_for_any_scanner_have_no_place(patient, text):
    put(patient, "PixelSpacing", text)
    (found,) = inputs.find(str(patient), organs=SEGTHOR)
    assert found.fault_code == "series_no_position"
    assert examining.examine(found, JOB).rejected


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop", "gone"])
def test_only_regular_files_are_opened(tmp_path, kind):
    path = tmp_path / "file"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        files.open_read(str(path))
    assert headers.read(str(path)).kind == headers.UNREADABLE
    assert kind == "gone" or files.listdir(str(tmp_path)) == ["file"]


def test_what_cannot_be_opened_in_a_tree_is_named_and_the_rest_is_found(tmp_path):
    dicom_damage.healthy(tmp_path / "A")
    dicom_damage.healthy(tmp_path / "B", patient="2", study="2", series="2", frame="2")
    os.mkfifo(tmp_path / "B" / "pipe.dcm")
    (tmp_path / "B" / "loop").symlink_to(tmp_path / "B" / "loop")
    deep = tmp_path / "B"
    here = os.getcwd()
    try:
        os.chdir(deep)
        for _ in range(25):
            os.mkdir("x" * 200)
            os.chdir("x" * 200)
    finally:
        os.chdir(here)
    one, other = inputs.find(str(tmp_path), organs=SEGTHOR)
    assert one.name == "A" and not one.fault
    assert other.name == "B" and other.fault_code == "file_damaged"
    assert "expected" not in scans.dicom_listing(str(tmp_path), JOB.organs)


def test_a_deflated_file_fills_a_limited_memory(tmp_path):
    dicom_damage.healthy(tmp_path, syntax="deflated")
    path = dicom_damage.slices(tmp_path)[0]
    content = path.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    inner = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = packer.compress(inner)
    for _ in range(17):  # 272 MB in 270 KB
        body += packer.compress(bytes(1 << 24))
    path.write_bytes(content[:start] + body + packer.flush())
    with pytest.raises(DicomError, match="at most 256 MB") as caught, open(path, "rb") as stream:
        elements.open_dataset(stream, str(path))
    assert caught.value.code == "file_too_large"
    assert headers.read(str(path)).kind == headers.DAMAGED


def test_calls_of_one_thread_have_a_limit_each():
    def double(item):
        if item in (2, 5):
            time.sleep(1.5)
        return 2 * item

    found = guard.map_within(0.3, double, range(1, 6), lambda item: f"{item} is late")
    assert found == [2, "2 is late", 6, 8, "5 is late"]
    assert guard.map_within(0.3, double, [], str) == []
    with pytest.raises(ZeroDivisionError):
        guard.map_within(0.3, lambda item: 1 / item, [1, 0], str)
