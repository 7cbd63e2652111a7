"""Slices mirrored left to right in training: organs of a side change places, or it is refused."""

import dataclasses

import pytest
import slices
from tiny_models import run_entry

from segthor.errors import InputError
from segthor.organs import Organ, Organs
from trainer.config import Config
from trainer.strengths import Strengths

RED = (255, 0, 0)
SIDED = Organs(
    (
        Organ("lung_right", 2, RED, side="right", mirror="lung_left"),
        Organ("heart", 3, RED),
        Organ("lung_left", 1, RED, side="left", mirror="lung_right"),
        Organ("liver", 4, RED, side="right", mirror="liver"),
    )
)
UNPAIRED = Organs(tuple(dataclasses.replace(organ, mirror="") for organ in SIDED))


def config(**strengths):
    return Config(augment=dataclasses.replace(Strengths(), **strengths))


def test_a_table_with_sides_and_no_pairs_refuses_to_mirror_left_to_right():
    with pytest.raises(InputError) as error:
        config(flip_left_right=0.5).of_table(UNPAIRED)
    message = str(error.value)
    assert message.startswith("--augment_flip_left_right: the table of organs does not say what")
    assert "(by their names lung_left and lung_right)" in message and "liver" in message
    config(flip_left_right=0.5).of_table(SIDED)
    config(flip_front_back=0.5).of_table(UNPAIRED)
    config(flip_left_right=0.0).of_table(UNPAIRED)


def test_organs_that_are_not_learned_need_no_pairs():
    some = dataclasses.replace(config(flip_left_right=0.5), organs=("heart",))
    assert some.of_table(UNPAIRED).organs == ("heart",)


@pytest.mark.parametrize("module", ["trainer.main", "trainer.preview", "trainer.doctor"])
def test_every_program_that_augments_refuses_in_one_line(tmp_path, module):
    slices.make(tmp_path / "data", patients=3, slices=2, table=UNPAIRED)
    own = {"trainer.main": {"workdir": tmp_path / "run"}}.get(module, {})
    done = run_entry(module, data=tmp_path / "data", augment_flip_left_right=0.5, **own)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: --augment_flip_left_right: the table of organs")
    assert not (tmp_path / "run").exists()
