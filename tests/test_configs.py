"""The configurations that come with the project say what they are for, and can work."""

import dataclasses
from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from segthor import flags_of
from segthor.errors import InputError
from segthor.organs import SEGTHOR
from trainer import main  # noqa: F401  which defines the flags
from trainer.config import Config
from trainer.strengths import Strengths

ROOT = Path(__file__).resolve().parents[1]
# Of the data job, and of the node.
OTHERS = {"demo_build", "dataflow", "flink", "spark", "node"}
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.flags") if path.stem not in OTHERS)


def config_of(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    with flagsaver.flagsaver():
        flags.FLAGS(["trainer.main", f"--flagfile=configs/{name}.flags"])
        return flags_of.read(Config)


@pytest.mark.parametrize("name", NAMES)
def test_every_configuration_can_work_and_says_what_it_is_for(name, monkeypatch):
    first = (ROOT / "configs" / f"{name}.flags").read_text().splitlines()[0]
    assert first.startswith("# ") and first.endswith(".") and len(first) > 40
    assert isinstance(config_of(name, monkeypatch), Config)


def test_each_organ_has_its_own_and_one_has_all(monkeypatch):
    for name in ("esophagus", "heart", "trachea", "aorta"):
        assert config_of(name, monkeypatch).organs == (name,)
    assert config_of("all", monkeypatch).of_table(SEGTHOR).organs == SEGTHOR.names
    assert config_of("classifier", monkeypatch).task == "classify"


def test_a_configuration_includes_its_base(monkeypatch):
    assert config_of("multi_host", monkeypatch).precision == "bfloat16"  # from multi_gpu
    assert config_of("multi_host", monkeypatch).encoder_weights == "imagenet"  # from all
    assert config_of("smoke", monkeypatch).backbone == "resnet18"


def test_quick_augments_few_patients_as_by_default(monkeypatch):
    quick = config_of("quick", monkeypatch)
    assert quick.augment == config_of("smoke", monkeypatch).augment
    assert quick.of_patients(4).augment == Strengths() and quick.of_patients(5) == quick
    strong = dataclasses.replace(quick.augment, flip_left_right=0.5, noise=0.5)
    few = dataclasses.replace(quick, augment=strong).of_patients(1).augment
    assert few == dataclasses.replace(Strengths(), flip_left_right=0.5, noise=0.5)


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_says_only_what_differs_from_what_it_includes(name, monkeypatch):
    lines = (ROOT / "configs" / f"{name}.flags").read_text().splitlines()
    lines = [line for line in lines if line.startswith("--")]
    whole = config_of(name, monkeypatch)
    for line in (line for line in lines if not line.startswith("--flagfile=")):
        with flagsaver.flagsaver():
            flags.FLAGS(["trainer.main", *(other for other in lines if other != line)])
            try:
                without = flags_of.read(Config)
            except InputError:  # it is even needed
                continue
            assert without != whole, line
