"""The table of organs: what it holds, the way from and to a file, and what contradicts itself."""

import dataclasses
import json
from pathlib import Path

import pytest

from segthor import fields, organ_table, organs
from segthor.errors import InputError
from segthor.organs import SEGTHOR, Organ, Organs

TABLES = Path(__file__).resolve().parents[1] / "configs" / "organs"
RED = (255, 0, 0)


def test_the_default_table_is_segthors():
    assert SEGTHOR.names == ("esophagus", "heart", "trachea", "aorta")
    assert SEGTHOR.labels(SEGTHOR.names) == [1, 2, 3, 4]
    assert SEGTHOR["heart"].volume_cm3 == (250, 2200)


# Minimum and maximum over SegTHOR's training patients, cm3.
@pytest.mark.parametrize(
    ("name", "smallest", "largest"),
    [("esophagus", 30, 170), ("heart", 438, 1829), ("trachea", 22, 73), ("aorta", 95, 465)],
)
def test_plausible_volumes_hold_every_patient_of_the_data_set(name, smallest, largest):
    low, high = SEGTHOR[name].volume_cm3
    assert low < smallest and largest < high


def test_the_shipped_table_is_the_default_one():
    assert organ_table.read(str(TABLES / "segthor.csv")) == SEGTHOR


def test_the_thorax_holds_segthors_organs_unchanged_and_then_cord_and_lungs():
    thorax = organ_table.read(str(TABLES / "thorax.csv"))
    assert thorax.select(SEGTHOR.names) == SEGTHOR
    assert thorax.names[4:] == ("spinal_cord", "lung_left", "lung_right")
    assert [organ.tg263 for organ in thorax][4:] == ["SpinalCord", "Lung_L", "Lung_R"]
    assert (thorax["lung_left"].side, thorax["lung_right"].side) == ("left", "right")


@pytest.mark.parametrize("name", ["segthor.csv", "thorax.csv"])
def test_every_range_of_a_shipped_table_has_a_source(name):
    lines = (TABLES / name).read_text().splitlines()
    assert all(line.endswith('"') and "volume" in line or "area" in line for line in lines[3:])


def test_the_codes_are_those_of_the_standard():
    codes = pytest.importorskip("pydicom.sr.codedict").codes.SCT
    found = {organ.name: organ.snomed for organ in organ_table.read(str(TABLES / "thorax.csv"))}
    expected = {
        "esophagus": codes.Esophagus,
        "heart": codes.Heart,
        "trachea": codes.Trachea,
        "aorta": codes.Aorta,
        "spinal_cord": codes.SpinalCord,
    }
    assert {name: found[name] for name in expected} == {
        name: code.value for name, code in expected.items()
    }


def test_json_gives_the_same_table_back(tmp_path):
    thorax = organ_table.read(str(TABLES / "thorax.csv"))
    assert Organs.from_rows(json.loads(json.dumps(thorax.to_json()))) == thorax
    (tmp_path / "own.json").write_text(json.dumps(thorax.to_json()))
    assert organ_table.read(str(tmp_path / "own.json")) == thorax


def test_the_digest_tells_any_change():
    other = dataclasses.replace(SEGTHOR["aorta"], max_components=4)
    assert Organs((*SEGTHOR.rows[:3], other)).digest() != SEGTHOR.digest()
    assert Organs(SEGTHOR.rows).digest() == SEGTHOR.digest()


def test_a_tolerance_travels_and_the_usual_one_leaves_no_trace(tmp_path):
    (tmp_path / "own.csv").write_text("name,label,tolerance_mm\na,1,1.5\nb,2,\nc,3,3\n")
    table = organ_table.read(str(tmp_path / "own.csv"))
    assert [organ.tolerance_mm for organ in table] == [1.5, 3, 3]
    rows = json.loads(json.dumps(table.to_json()))
    assert ["tolerance_mm" in row for row in rows] == [True, False, False]
    assert Organs.from_rows(rows) == table
    # Shards and models of before there were tolerances are named by this.
    assert SEGTHOR.digest() == "33b42ef3ddfe7a2e"


def test_only_keeps_the_order_and_drops_relations_to_what_is_gone():
    some = SEGTHOR.select(("heart", "esophagus"))
    assert some.names == ("esophagus", "heart")
    assert some["heart"].left_of == ("esophagus",) and some["heart"].below == ()
    assert some.places(["heart"]) == [1]


@pytest.mark.parametrize(
    "roi, organ",
    [
        ("Spinal-Cord", "spinal_cord"),
        (" ESOPHAGUS ", "esophagus"),
        ("Lung L", "lung_left"),
        ("lung_r", "lung_right"),
        ("A_Aorta", "aorta"),
        ("Heart_PRV", None),
        ("A_Aorta_Asc", None),
        ("Esophagus_NAdj", None),
    ],
)
def test_an_organ_is_known_by_its_exact_names_alone(roi, organ):
    thorax = organ_table.read(str(TABLES / "thorax.csv"))
    known = [one.name for one in thorax if organs.plain_name(roi) in one.known_as]
    assert known == ([organ] if organ else [])


def test_a_short_table_gets_colours_and_checks_nothing(tmp_path):
    (tmp_path / "own.csv").write_text("name,label\nliver,1\nkidney_left,200\n")
    table = organ_table.read(str(tmp_path / "own.csv"))
    assert table.highest_label == 200
    assert table["liver"].rgb != table["kidney_left"].rgb
    assert table["liver"].volume_cm3 is None and table["liver"].max_components is None


@pytest.mark.parametrize(
    "rows, message",
    [
        ("a,0", "line 2: a: label 0; expected 1 to 255"),
        ("a,256", "label 256"),
        ("a,1.5", "label: expected a whole number, found '1.5'"),
        ("a,²", "whole number"),
        ("A b,1", "name 'A b'"),
        ("background,1", "none of all, background, fold, ignore, mean, patient"),
        (f"{'a' * 26},1", "at most 25"),
        ("../x,1", "name '../x'"),
        ("a,1\nb,1", "label 1 belongs to a and to b"),
        ("a,1\na,2", "two organs have the same name"),
        ("a,1,9", "expected 2 values, found 3"),
        ("", "no organ"),
    ],
)
def test_a_table_that_contradicts_itself_is_one_line(tmp_path, rows, message):
    path = tmp_path / "own.csv"
    path.write_text(f"name,label\n{rows}\n")
    with pytest.raises(InputError) as error:
        organ_table.read(str(path))
    assert str(path) in str(error.value) and message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "columns, row, message",
    [
        ("rgb", "1 2", "rgb (1, 2)"),
        ("rgb", "1 2 300", "rgb (1, 2, 300)"),
        ("volume_cm3", "10", "volume_cm3 (10.0,)"),
        ("volume_cm3", "20 to 10", "volume_cm3"),
        ("volume_cm3", "nan to 10", "volume_cm3"),
        ("mean_hu", "a to b", "mean_hu: expected 'LOWEST to HIGHEST', found 'a'"),
        ("max_components", "0", "max_components 0"),
        ("side", "up", "side 'up'"),
        ("tg263", "a name that is too long", "tg263"),
        ("snomed", "x", "snomed 'x'"),
        ("left_of", "spleen", "left_of 'spleen'"),
        ("left_of", "a", "left_of 'a'"),
        ("tolerance_mm", "-1", "tolerance_mm -1.0; expected 0 to 50 mm"),
        ("tolerance_mm", "51", "tolerance_mm 51"),
        ("tolerance_mm", "nan", "tolerance_mm nan"),
        ("tolerance_mm", "thick", "tolerance_mm: expected millimetres, found 'thick'"),
        ("colour", "1", "expected the columns"),
    ],
)
def test_a_value_that_is_none_is_one_line(tmp_path, columns, row, message):
    path = tmp_path / "own.csv"
    path.write_text(f"name,label,{columns}\na,1,{row}\n")
    with pytest.raises(InputError) as error:
        organ_table.read(str(path))
    assert str(path) in str(error.value) and message in str(error.value)


def test_a_synonym_of_two_organs_is_refused():
    with pytest.raises(InputError, match="synonym 'cor' belongs to heart and to core"):
        Organs((Organ("heart", 1, RED, synonyms=("C_or",)), Organ("core", 2, RED, tg263="Cor")))


@pytest.mark.parametrize("value", [None, {}, [1], [{"name": "a"}], [{"name": "a", "labels": 1}]])
def test_json_that_is_no_table_is_one_line(value):
    with pytest.raises(InputError, match="model/organs.json: no table of organs"):
        fields.from_json(Organs, value, "model/organs.json")
