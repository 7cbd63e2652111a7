"""Builds a dataset of TFRecord shards from patients' CT and contours.

python -m beam_jobs.build --input=DIR|CSV --output=DIR [--runner=DirectRunner]

--input is a folder in SegTHOR's or nnU-Net's layout, or a CSV with the columns
patient,ct,labels,split,organs. Without --input, phantom patients are made and built. Options of
Apache Beam pass through. A second run rewrites only what changed.

Exit status: 0; 3 where patients were rejected and the others built; 2 for an error.
"""

from absl import flags

from beam_jobs import plan
from beam_jobs.driver import Settings, build
from segthor import organs, runners
from segthor.errors import InputError, run
from segthor.manifest import DEFAULT_DATASET
from segthor.recipe import Recipe

DEFAULT_PHANTOMS = "data/phantoms"
PHANTOM_RECIPE = {"crop_mm": 264.0, "pixel_mm": 2.75}  # a matrix of 96, as in demo_build.flags

_INPUT = flags.DEFINE_string("input", None, "Folder of patients, or CSV; phantoms if not given.")
_OUTPUT = flags.DEFINE_string("output", DEFAULT_DATASET, "Folder of the dataset.")
_RUNNER = flags.DEFINE_string("runner", "DirectRunner", "Any runner of Apache Beam.")
_SPLIT = flags.DEFINE_enum(
    "split",
    "auto",
    plan.SPLITS,
    "original: the eight validation patients of the original system; hash: by chance; csv: the "
    "CSV's column; auto: the first of csv, original, hash that fits.",
)
_FRACTION = flags.DEFINE_float(
    "validation_fraction", 0.2, "Share of validation patients with --split=hash.", 0, 1
)
_FOLDS = flags.DEFINE_integer("folds", 5, "Folds for cross-validation.", lower_bound=1)
_SHARDS = flags.DEFINE_integer(
    "shards", 0, "Shards per split and fold; 0: about 100 to 200 MB each.", lower_bound=0
)
_SEED = flags.DEFINE_integer("seed", 0, "Deals patients and orders slices.", lower_bound=0)
_CROP_MM = flags.DEFINE_float("crop_mm", None, "Side of the square box (default: 256).")
_PIXEL_MM = flags.DEFINE_float("pixel_mm", None, "In-plane pixel; 0: the scan's own (default: 1).")
_CONTEXT = flags.DEFINE_integer("context", None, "Slices per image, odd (default: 3).")
_WIDTH = flags.DEFINE_float("window_width", None, "Width of the window in HU (default: 350).")
_LEVEL = flags.DEFINE_string(
    "window_level", None, "HU, or median:ORGANS or mean:ORGANS, the patient's own (default: 50)."
)
_CENTER = flags.DEFINE_string(
    "crop_center", None, "Centre of the box: body or organs:ORGANS (default: body)."
)
_MASKS = flags.DEFINE_string(
    "level_masks", None, "Folder of an earlier model's label maps, for level and centre of "
    "patients without contours of the organs asked for."
)  # fmt: skip
_LABEL_VALUES = flags.DEFINE_list(
    "label_values", [], "The input's label values, ORGAN=VALUE,...; other values are background."
)
_SEVERITY = flags.DEFINE_list(
    "severity",
    [],
    "CODE=reject|warn|ignore,... for the audit's findings; docs/data.md has them.",
)
_STRICT = flags.DEFINE_bool("strict", False, "Whether one rejected patient fails the build.")


def main(argv):
    """Reads the flags, makes phantoms where no input is named, builds."""
    if any(argument.lstrip("-").partition("=")[0] == "labels" for argument in argv[1:]):
        raise InputError("--labels: the input's label values are named with --label_values")
    runners.check_options(_RUNNER.value, argv[1:])
    settings = Settings(
        input=_INPUT.value or DEFAULT_PHANTOMS,
        output=_OUTPUT.value,
        recipe=_recipe(),
        runner=_RUNNER.value,
        split=_SPLIT.value,
        validation_fraction=_FRACTION.value,
        folds=_FOLDS.value,
        shards=_SHARDS.value,
        seed=_SEED.value,
        level_masks=_MASKS.value,
        label_values=_label_values(),
        severities=tuple(sorted(_pairs("severity", _SEVERITY.value).items())),
        strict=_STRICT.value,
    )
    if not _INPUT.value:
        from segthor import phantom  # half a second that real patients need not wait for

        print(f"No --input: making 24 phantoms with contours and 4 without in {settings.input}")
        phantom.write_dataset(settings.input, 24, 4, "small", 0)
    return build(settings, argv[1:])


def _recipe() -> Recipe:
    given = {
        "crop_mm": _CROP_MM.value,
        "pixel_mm": _PIXEL_MM.value,
        "context": _CONTEXT.value,
        "window_width_hu": _WIDTH.value,
        "window_level": _LEVEL.value,
        "crop_center": _CENTER.value,
    }
    given = {field: value for field, value in given.items() if value is not None}
    return Recipe(**(({} if _INPUT.value else PHANTOM_RECIPE) | given))


def _label_values() -> tuple[tuple[str, int], ...]:
    values = _pairs("label_values", _LABEL_VALUES.value)
    for name, value in values.items():
        if name not in organs.NAMES or not value.isdigit() or not 0 < int(value) < 65536:
            known = ", ".join(organs.NAMES)
            raise InputError(
                f"label_values: expected ORGAN=VALUE with {known}; found {name}={value}"
            )
    return tuple((name, int(values[name])) for name in organs.NAMES if name in values)


def _pairs(flag: str, items: list[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in items]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise InputError(f"{flag}: expected NAME=VALUE,NAME=VALUE; found {name + equals!r}")
    return {name.strip(): value.strip() for name, _, value in pairs}


if __name__ == "__main__":
    run(main, known_only=True)
