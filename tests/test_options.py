"""Every number that a user may choose has a range, which its flag shows and nothing escapes."""

import dataclasses
import math

import pytest
from absl import flags
from absl.testing import flagsaver
from programs import ROOT, run

from beam_jobs.driver import Settings
from segthor import fields, flags_of, options
from segthor.errors import InputError
from segthor.organs import SEGTHOR
from segthor.recipe import Recipe
from serving.prediction.plan import Plan
from trainer import main  # noqa: F401  which defines its flags
from trainer.config import Config
from trainer.strengths import Strengths

KINDS = {
    Config: Config,
    Strengths: Strengths,
    Recipe: Recipe,
    Settings: lambda **values: Settings("in", "out", organs=SEGTHOR, **values),
    Plan: lambda **values: Plan("out", ("model",), **values),
}
NUMBERS = [
    (kind, spec)
    for kind in KINDS
    for spec in dataclasses.fields(kind)
    if isinstance(spec.default, int | float) and not isinstance(spec.default, bool)
]


def named(value):
    return value.name if isinstance(value, dataclasses.Field) else getattr(value, "__name__", "")


@pytest.mark.parametrize("kind, spec", NUMBERS, ids=named)
def test_a_number_outside_its_range_is_refused_with_name_and_range(kind, spec):
    lowest, highest = spec.metadata["within"]
    assert math.isfinite(lowest) and math.isfinite(highest) and lowest < highest
    wrong = [lowest - 1, highest + 1, -math.inf, math.inf, math.nan, 10**30, -(10**30), "1", None]
    wrong += [True] + ([lowest + 0.5] if isinstance(spec.default, int) else [])
    for value in wrong:
        with pytest.raises(InputError) as refused:
            KINDS[kind](**{spec.name: value})
        expected = f"{options.flag_name(spec)}: expected {options.range_text(spec)}, found {value}"
        assert str(refused.value) == expected
    assert KINDS[kind]() == KINDS[kind](**{spec.name: spec.default})


@pytest.mark.parametrize("value", ["1e300", "inf", "-inf", "nan", "100001"])
def test_a_window_level_that_no_scan_has_is_refused(value):
    with pytest.raises(InputError, match="window_level: expected HU up to 100000"):
        Recipe(window_level=value)


TRAINERS = [(kind, spec) for kind, spec in NUMBERS if kind in (Config, Strengths)]


@pytest.mark.parametrize("kind, spec", TRAINERS, ids=named)
def test_the_flag_shows_the_range_and_the_error_names_the_flag(kind, spec):
    name = "augment_" * (kind is Strengths) + options.flag_name(spec)
    assert f"[{options.range_text(spec)}]" in flags.FLAGS[name].help
    with flagsaver.flagsaver(**{name: spec.metadata["within"][1] + 1}):
        with pytest.raises(InputError, match=f"^--{name}: expected .*, found"):
            flags_of.read(Config)


@pytest.mark.parametrize(
    "kind, value, message",
    [
        (Config, ["task"], "^config: expected an object"),
        (Config, {"tsak": "segment"}, "^config: tsak: unknown"),
        (Config, {"augment": {"noize": 0.1}}, "^config: augment.noize: unknown"),
        (Config, {"augment": {"noise": "much"}}, "noise: expected a finite number, found 'much'"),
        (Config, {"augment": {"noise": 1e12}}, "^config: augment: noise: expected 0 to "),
        (Config, {"fold": -2}, "^config: fold: expected -1 to 999, found -2"),
        (Config, {"fold": 0.5}, "^config: fold: expected a whole number, found 0.5"),
        (Config, {"seed": True}, "^config: seed: expected a whole number, found True"),
        (Config, {"augment": None}, "^config: augment: expected an object, found None"),
        (Config, {"organs": "heart"}, "organs: expected a list, found 'heart'"),
        (Config, {"organs": [1]}, r"organs\[0\]: expected a text, found 1"),
        (Config, {"deterministic": 1}, "deterministic: expected true or false, found 1"),
        (Config, {"encoder_weights": 5}, "encoder_weights: expected a text, found 5"),
        (Recipe, {"crop_mm": "wide"}, "crop_mm: expected a finite number, found 'wide'"),
        (Recipe, {"window_level": 50}, "window_level: expected a text, found 50"),
    ],
)
def test_json_that_makes_no_sense_is_refused_by_name(kind, value, message):
    with pytest.raises(InputError, match=message):
        fields.from_json(kind, value, kind.__name__.lower())


@pytest.mark.parametrize(
    "module, argument",
    [
        ("trainer.main", "--seed=-1"),
        ("trainer.main", "--fold=-7"),
        ("trainer.main", "--learning_rate=inf"),
        ("trainer.main", "--weight_decay=nan"),
        ("trainer.main", "--ema=1"),
        ("trainer.main", "--batch_size=1000000000"),
        ("trainer.main", "--seed=99999999999999999999999"),
        ("trainer.main", "--augment_noise=nan"),
        ("trainer.main", "--cpu_devices=1000000"),
        ("trainer.preview", "--versions=1000000000"),
        ("trainer.preview", "--seed=-1"),
        ("beam_jobs.build", "--seed=-1"),
        ("beam_jobs.build", "--crop_mm=inf"),
        ("beam_jobs.build", "--pixel_mm=inf"),
        ("beam_jobs.build", "--pixel_mm=1e-300"),
        ("beam_jobs.build", "--window_width=nan"),
        ("beam_jobs.build", "--validation_fraction=nan"),
        ("beam_jobs.build", "--folds=100000000000000000000"),
    ],
)
def test_a_wrong_number_ends_the_program_in_one_line(module, argument, tmp_path):
    command = ["-m", module, argument, *["--workdir=run"] * (module == "trainer.main")]
    done = run(command, cwd=tmp_path, environment={"PYTHONPATH": ROOT})
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert argument.partition("=")[0].lstrip("-") in line and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "module, texts",
    [
        ("trainer.main", ["Slices per step and device. [1 to 65536] (default: 16)"]),
        ("trainer.main", ["--augment_noise=...", "[0 to 2147483647]"]),
        ("beam_jobs.build", ["--window_width=...", "[0.001 to 100000] (default: 350.0)"]),
        ("beam_jobs.build", ["Folds for cross-validation. [1 to 1000] (default: 5)"]),
    ],
)
def test_help_shows_ranges_and_defaults(module, texts):
    done = run(["-m", module, "--help"])
    shown = " ".join(done.stdout.split())
    assert all(text in shown for text in texts), shown
