"""The file seam: the same laws for local folders and for a URL file system."""

import csv
import io
import os
import uuid

import pytest

from segthor import csv_files, files, json_files
from segthor.errors import InputError


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    if request.param == "local":
        return str(tmp_path / "data")
    return f"memory://{uuid.uuid4().hex}/data"


def write(path, content):
    with files.atomic_write(path) as stream:
        stream.write(content)


def test_what_was_written_is_read(folder):
    path = files.join(folder, "sub", "a.bin")
    write(path, b"one")
    assert files.read_bytes(path) == b"one"
    assert files.exists(path) and not files.is_dir(path)
    assert files.is_dir(files.parent(path))
    assert files.name(path) == "a.bin"
    assert files.listdir(files.parent(path)) == ["a.bin"]


def test_a_failed_write_leaves_the_old_file_and_no_other(folder):
    path = files.join(folder, "a.bin")
    write(path, b"old")
    with pytest.raises(RuntimeError), files.atomic_write(path) as stream:
        stream.write(b"new")
        raise RuntimeError("cut off")
    assert files.read_bytes(path) == b"old"
    assert files.listdir(folder) == ["a.bin"]
    if not files.is_url(folder):
        assert os.listdir(folder) == ["a.bin"]


def test_a_reader_never_meets_a_file_that_is_being_written(folder):
    path = files.join(folder, "a.bin")
    with files.atomic_write(path) as stream:
        stream.write(b"half")
        assert not files.exists(path)
        assert files.listdir(folder) == []
    assert files.read_bytes(path) == b"half"


def test_json_and_digest(folder):
    path = files.join(folder, "a.json")
    json_files.write(path, {"b": [1, 2.5], "a": "é"})
    assert json_files.read(path) == {"b": [1, 2.5], "a": "é"}
    write(path, b"abc")
    # FIPS 180-2's own example.
    assert files.sha256(path).startswith("ba7816bf8f01cfea414140de5dae2223b00361a3")
    with pytest.raises(InputError, match="a.json: expected JSON"):
        json_files.read(path)


def test_stamp_changes_with_the_file(folder):
    path = files.join(folder, "a.bin")
    write(path, b"one")
    before = files.stamp(path)
    assert files.stamp(path) == before
    write(path, b"three")
    assert files.stamp(path) != before


def test_what_is_missing_is_named(folder):
    path = files.join(folder, "none.bin")
    with pytest.raises(InputError, match="none.bin"):
        files.read_bytes(path)
    if files.is_url(folder):
        assert files.listdir(files.join(folder, "none")) == []
    else:
        with pytest.raises(InputError, match="expected a folder, found nothing"):
            files.listdir(files.join(folder, "none"))
    write(path, b"")
    with pytest.raises(InputError, match="expected a folder, found a file"):
        files.listdir(path)
    files.remove(path)
    assert not files.exists(path)


def test_parents_of_bare_and_root_names():
    assert files.parent("a.json") == "."
    assert files.parent("/a.json") == "/"
    assert files.parent("gs://bucket/x/a.json") == "gs://bucket/x"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/etc/x", "../x", "a/b", "a/", "..\\x", "a\0b", "/"]
)
def test_a_name_that_leads_out_of_its_folder_is_refused(folder, name):
    with pytest.raises(InputError, match="expected the name of a file in this folder"):
        files.inside(folder, name)


@pytest.mark.parametrize("name", ["a.nii.gz", "..a", "a..b", "~", "=x", "-", "C:", "a b"])
def test_any_other_name_is_a_file_of_the_folder(folder, name):
    path = files.inside(folder, name)
    assert (files.parent(path), files.name(path)) == (folder, name)


def read_table(path):
    with io.StringIO(files.read_bytes(path).decode(), newline="") as stream:
        return list(csv.reader(stream))


def test_a_table_is_read_back_as_it_was_written(folder):
    path = files.join(folder, "a.csv")
    csv_files.write_table(path, [{"a": 1.5, "b": 'x, "y"'}, {"a": -2, "b": None}])
    assert read_table(path) == [["a", "b"], ["1.5", 'x, "y"'], ["-2", ""]]
    csv_files.write_table(path, [], ["a", "b"])
    assert read_table(path) == [["a", "b"]]


@pytest.mark.parametrize("start", list("=+-@\t\r\n"))
def test_no_text_is_a_formula_for_a_spreadsheet(folder, start):
    path = files.join(folder, "a.csv")
    cells = [f"{start}cmd|' /C calc'!A0", f"{start}1+1"]
    csv_files.write_table(path, [dict(enumerate(cells))])
    assert read_table(path)[1] == [f"'{cell}" for cell in cells]


def test_numbers_stay_numbers_as_text_too(folder):
    path = files.join(folder, "a.csv")
    cells = [-3.5, "-3.5", "+1e-3", -1, "-inf", "5-6", "a=b", ""]
    csv_files.write_table(path, [dict(enumerate(cells))])
    assert read_table(path)[1] == [str(cell) for cell in cells]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_no_json_can_hold_is_not_written(tmp_path, value):
    path = tmp_path / "a.json"
    json_files.write(str(path), {"kept": 1})
    for holder in ({"a": value}, {"a": [{"b": value}]}, {"a": {"b": [1, value]}}, [value]):
        with pytest.raises(ValueError, match="not JSON compliant"):
            json_files.write(str(path), holder)
    assert json_files.read(str(path)) == {"kept": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_only_the_named_kind_of_temporary_file_is_removed(tmp_path):
    own, other = (f"{files.TEMPORARY_PREFIX}{'0' * 32}-{name}" for name in ("a.json", "b.csv"))
    for name in (own, other, "a.json"):
        (tmp_path / name).write_text("x")
    files.remove_partial(str(tmp_path), "-a.json")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [other, "a.json"]
    files.remove_partial(str(tmp_path))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.json"]


def test_a_file_and_a_folder_are_synced(tmp_path):
    (tmp_path / "a").write_text("a")
    files.sync(str(tmp_path / "a"))
    files.sync(str(tmp_path))
    files.sync("memory://no/such/file")
