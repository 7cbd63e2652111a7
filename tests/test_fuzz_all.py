"""Each kind of file of `tests.fuzz_all`, a few cases of it: read, or refused in one line."""

import json
import os

import pytest

from segthor import csv_files, json_files, model_directory, organ_table
from segthor.errors import InputError
from segthor.organs import SEGTHOR, Organ, Organs
from tests import fuzz_all, fuzz_kinds

CASES = {"codecs": 6, "headers": 12, "structures": 8, "csv": 60, "json": 60, "organs": 60}


@pytest.mark.parametrize("name", fuzz_kinds.KINDS)
def test_a_damaged_file_is_read_or_refused(name):
    ended = fuzz_all.run_kind(name, 20, 1, CASES.get(name, 15))
    assert ended and not ended["WRONG"]


@pytest.mark.parametrize("name", fuzz_kinds.KINDS)
def test_the_undamaged_files_are_read(tmp_path, name):
    fuzz_kinds.KINDS[name](tmp_path).check_base()


def test_a_kind_that_refuses_its_undamaged_files_does_not_run(monkeypatch):
    monkeypatch.setattr(fuzz_kinds.Csv, "_NAMES", b"no table")
    with pytest.raises(InputError):
        fuzz_all.run_kind("csv", 0, 1)


def test_the_death_of_the_process_is_seen_with_its_seed(monkeypatch, capfd):
    monkeypatch.setattr(fuzz_kinds.Csv, "run", lambda *_: os.kill(os.getpid(), 9))
    monkeypatch.setattr("sys.argv", ["fuzz_all", "--minutes=0", "--only=csv", "--seed=41"])
    assert fuzz_all.main() == 1
    assert "csv, seed 41: ended the process (-9)" in capfd.readouterr().out


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "\ufeff", "nul"])
def test_json_that_is_none_or_too_deep_is_one_line(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    for read in (json_files.read, organ_table.read):
        with pytest.raises(InputError, match=r"a\.json: expected JSON") as caught:
            read(str(path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sign", "=+-@\uff1d\uff0b\uff0d\uff20")
def test_no_cell_is_a_formula(sign):
    assert csv_files.csv_line([f"{sign}1+A1"]).decode() == f"'{sign}1+A1\n"


@pytest.mark.parametrize("name", ["²", "٣", "1.0", "-1", "+2", " 3"])
def test_only_plain_numbers_are_versions(tmp_path, name):
    for version in ("1", name):
        (tmp_path / version).mkdir()
        (tmp_path / version / "saved_model.pb").write_bytes(b"x")
    assert model_directory.versions(str(tmp_path)) == [1]
    assert model_directory.newest(str(tmp_path)) == str(tmp_path / "1")


def test_a_synonym_of_marks_alone_is_no_name():
    table = Organs((Organ("heart", 1, (1, 2, 3), synonyms=("-", "_ ", "Herz")),))
    assert table["heart"].known_as == {"heart", "herz"}


@pytest.mark.parametrize("code", ["1" * 17, "٣٤٥", "1.2", "-1"])
def test_a_code_that_dicom_cannot_hold_is_refused(tmp_path, code):
    path = tmp_path / "table.json"
    rows = SEGTHOR.to_json()
    rows[0]["snomed"] = code
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError, match="snomed"):
        organ_table.read(str(path))
