"""Which organs have a side, what their mirror images are, and where mirroring is refused."""

from pathlib import Path

import numpy as np
import pytest

from segthor import organ_table, sides
from segthor.errors import InputError
from segthor.organs import SEGTHOR, Organ, Organs

THORAX = Path(__file__).resolve().parents[1] / "configs" / "organs" / "thorax.csv"
RED = (255, 0, 0)


def table(*rows) -> Organs:
    """Organs of (name, side, mirror), labelled from 1."""
    return Organs(
        tuple(
            Organ(name, label, RED, side=side, mirror=mirror)
            for label, (name, side, mirror) in enumerate(rows, 1)
        )
    )


def test_the_shipped_table_pairs_the_lungs_and_nothing_else():
    thorax = organ_table.read(str(THORAX))
    assert {o.name: o.mirror for o in thorax if o.mirror} == {
        "lung_left": "lung_right", "lung_right": "lung_left",
    }  # fmt: skip
    sides.require_mirrors(thorax, thorax.names, "--tta")
    sides.require_mirrors(SEGTHOR, SEGTHOR.names, "--tta")
    expected = np.arange(256)
    expected[[6, 7]] = 7, 6
    np.testing.assert_array_equal(sides.mirrored_labels(thorax), expected)
    assert sides.mirrored_labels(thorax).dtype == np.uint8


def test_pairs_travel_as_json_and_a_table_without_them_has_no_trace_of_the_column():
    pairs = table(("eye_a", "left", "eye_b"), ("eye_b", "right", "eye_a"))
    assert Organs.from_rows(pairs.to_json()) == pairs
    plain = table(("eye_a", "left", ""), ("eye_b", "right", ""))
    assert all("mirror" not in row for row in plain.to_json())
    assert plain.digest() != pairs.digest()


@pytest.mark.parametrize(
    "rows, message",
    [
        ([("a", "", "b")], "a: mirror 'b'; expected an organ of the table"),
        ([("a", "", "b"), ("b", "", "")], "a: mirror 'b'; expected b to have the mirror 'a'"),
        ([("a", "", "b"), ("b", "", "b")], "a: mirror 'b'; expected b to have the mirror 'a'"),
        ([("a", "left", "b"), ("b", "left", "a")], "an organ of the other side than left"),
    ],
)
def test_pairs_that_contradict_the_table_are_one_line(rows, message):
    with pytest.raises(InputError, match=message):
        table(*rows)


@pytest.mark.parametrize("value", [5, ["b"], None, {}])
def test_a_mirror_of_another_kind_is_refused(value):
    with pytest.raises(InputError, match="no table of organs"):
        Organs.from_rows([{"name": "a", "label": 1, "rgb": [1, 2, 3], "mirror": value}])


@pytest.mark.parametrize(
    "name, tg263, side",
    [
        ("lung_left", "", "left"),
        ("left_lung", "", "left"),
        ("lung_r", "", "right"),
        ("rightlung", "", "right"),
        ("lung_lower_lobe_left", "", "left"),
        ("lung_rul", "", "right"),
        ("organ", "Lung_L", "left"),
        ("organ", "LungR", "right"),
        ("rib_left_1", "", "left"),
        ("vertebra_l1", "VB_L1", ""),
        ("lungs", "", ""),
        ("liver", "", ""),
        ("cleft", "", ""),
        ("a_lad", "A_LAD", ""),
        ("left_and_right_lung", "", ""),
    ],
)
def test_the_side_of_an_organ_is_read_from_its_names(name, tg263, side):
    assert sides.side_of(Organ(name, 1, RED, tg263=tg263)) == side


@pytest.mark.parametrize(
    "names",
    [("lung_left", "lung_right"), ("left_lung", "right_lung"), ("lung_l", "lung_r"),
     ("leftlung", "rightlung")],
)  # fmt: skip
def test_names_that_differ_by_side_are_proposed_and_do_not_count(names):
    organs = table(*((name, "", "") for name in (*names, "heart")))
    assert sides.proposed_pairs(organs.names) == [names]
    np.testing.assert_array_equal(sides.mirrored_labels(organs), np.arange(256))
    with pytest.raises(InputError) as error:
        sides.require_mirrors(organs, organs.names, "--tta")
    message = str(error.value)
    assert message.startswith("--tta: the table") and f"{names[0]} and {names[1]}" in message
    assert "'mirror'" in message and "\n" not in message and "heart" not in message


def test_a_side_in_the_column_alone_needs_a_mirror_image_too():
    organs = table(("kidney_a", "left", ""), ("kidney_b", "right", ""))
    with pytest.raises(InputError, match="what kidney_a, kidney_b become"):
        sides.require_mirrors(organs, organs.names, "--tta")


def test_an_organ_may_be_its_own_mirror_image_and_one_that_is_not_learned_needs_none():
    organs = table(("liver", "right", "liver"), ("lung_left", "left", ""))
    sides.require_mirrors(organs, ["liver"], "--tta")
    assert sides.mirrored_labels(organs)[1] == 1


def test_places_follow_the_pairs_whatever_the_order_and_need_both():
    thorax = organ_table.read(str(THORAX))
    names = ("lung_right", "heart", "lung_left")
    assert sides.mirrored_places(thorax, names) == [2, 1, 0]
    with pytest.raises(InputError, match="lung_left without its mirror image lung_right"):
        sides.mirrored_places(thorax, ("heart", "lung_left"))
