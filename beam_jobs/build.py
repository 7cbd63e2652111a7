"""Builds a dataset of TFRecord shards from patients' CT and contours.

python -m beam_jobs.build --input=DIR|CSV --output=DIR [--runner=DirectRunner]

--input is a folder in SegTHOR's or nnU-Net's layout, a tree of DICOM files (CT series and structure
sets; --list shows what is in it), or a CSV with the columns patient,ct,labels,split,organs. Without
--input, phantom patients are made and built. The organs are SegTHOR's four, or those of the table
that --organ_table names (docs/organs.md). Options of Apache Beam are passed on. A second run
rewrites only what changed.

Exit status: 0; 3 where patients were rejected and the others built; 2 for an error.
"""

from absl import flags

from beam_jobs.driver import Settings, build
from segthor import configs, files, flags_of, ignored, organ_table, outputs, runners, scans
from segthor.errors import InputError, run
from segthor.manifest import DEFAULT_DATASET
from segthor.organs import SEGTHOR, Organs
from segthor.patient_table import SERIES_HELP, read_series

DEFAULT_PHANTOMS = "data/phantoms"

_INPUT = flags.DEFINE_string("input", None, "Folder of patients, or CSV; phantoms if not given.")
_OUTPUT = flags.DEFINE_string("output", DEFAULT_DATASET, "Folder of the dataset.")
_ORGAN_TABLE = flags.DEFINE_string(
    "organ_table", None, "CSV or JSON file of the table of organs (default: SegTHOR's four)."
)
_LABEL_VALUES = flags.DEFINE_list(
    "label_values",
    [],
    "The input's label values, ORGAN=VALUE,...; other values are background. ignore=VALUE is the "
    "value of voxels that are not annotated; alone, it leaves the organs' values as they are.",
)
_ROI_NAMES = flags.DEFINE_string(
    "roi_names",
    None,
    "CSV with the columns organ,name: names of ROIs in structure sets, in addition to the table's "
    "synonyms.",
)
_SERIES = flags.DEFINE_string("series", "", SERIES_HELP)
_DESCRIPTIONS = flags.DEFINE_bool(
    "descriptions",
    False,
    "With --list: also prints each series' description, free text that may name the patient.",
)
_LIST = flags.DEFINE_bool("list", False, "Prints what a DICOM folder holds, and builds nothing.")
_SEVERITY = flags.DEFINE_list(
    "severity",
    [],
    "CODE=reject|warn|ignore,... for the audit's findings, which docs/data.md lists.",
)
flags_of.define(Settings)


def main(argv):
    """Reads the flags, makes phantoms where no input is named, builds."""
    _check_paths(argv)
    if not _INPUT.value:
        _apply_phantom_flags()
    organs, roi_names = _read_tables()
    if _LIST.value:
        print(_listing(organs, roi_names))
        return 0
    settings = flags_of.read(
        Settings,
        input=_INPUT.value or DEFAULT_PHANTOMS,
        output=_OUTPUT.value,
        organs=organs,
        label_values=_label_values(organs),
        roi_names=roi_names,
        series=read_series(_SERIES.value),
        severities=tuple(sorted(_pairs("severity", _SEVERITY.value).items())),
    )
    runners.check_options(settings.runner, argv[1:])
    if not _INPUT.value:
        from segthor import phantom  # slow import (half a second), not needed for real patients

        print(f"No --input: making 24 phantoms with contours and 4 without in {settings.input}")
        phantom.write_dataset(settings.input, 24, 4, "small", 0)
    return build(settings, argv[1:])


def _check_paths(argv) -> None:
    """Raises InputError for an input or output that cannot be used, before anything is read."""
    flags_of.refuse(argv[1:], {"labels": "name the input's label values with --label_values"})
    if _INPUT.value == "":  # --input=$UNSET: building phantoms instead would replace a dataset
        raise InputError("--input=: expected a folder or a CSV, found nothing")
    if not _LIST.value:
        read = {"input": _INPUT.value, "level_masks": flags.FLAGS.level_masks}
        outputs.check_folder(_OUTPUT.value, read, own=outputs.DATASET)


def _read_tables() -> tuple[Organs, tuple[tuple[str, str], ...]]:
    """The table of organs and the (organ, ROI name) pairs that the flags name."""
    organs, roi_names = SEGTHOR, ()
    if _ORGAN_TABLE.value is not None:
        organs = organ_table.read(files.absolute(configs.resolve(_ORGAN_TABLE.value)))
    if _ROI_NAMES.value is not None:
        roi_names = organ_table.read_roi_names(files.absolute(_ROI_NAMES.value), organs)
    return organs, roi_names


def _apply_phantom_flags() -> None:
    """Sets the flags of the demo's phantoms, except those that the user set."""
    flagfile = configs.folder() / "demo_build.flags"
    for argument in flags.FLAGS.read_flags_from_files([f"--flagfile={flagfile}"]):
        name, _, value = argument.lstrip("-").partition("=")
        if flags.FLAGS[name].using_default_value:
            flags.FLAGS[name].parse(value)


def _label_values(organs: Organs) -> tuple[tuple[str, int], ...]:
    values = _pairs("label_values", _LABEL_VALUES.value)
    known = (*organs.names, ignored.NAME)
    for name, value in values.items():
        if name not in known or not value.isdecimal() or not 0 < int(value[:6]) < 65536:
            raise InputError(
                f"label_values: expected ORGAN=VALUE with {', '.join(known)}; found {name}={value}"
            )
    label_values = tuple((name, int(values[name])) for name in known if name in values)
    ignored.check(label_values, organs, "label_values")
    return label_values


def _listing(organs: Organs, roi_names) -> str:
    root = files.absolute(_INPUT.value or "")
    if not _INPUT.value or not files.is_dir(root):
        raise InputError("list: expected --input=FOLDER of DICOM files, found none")
    return scans.dicom_listing(root, organs, roi_names, _DESCRIPTIONS.value)


def _pairs(flag: str, items: list[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in items]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise InputError(f"{flag}: expected NAME=VALUE,NAME=VALUE; found {name + equals!r}")
    return {name.strip(): value.strip() for name, _, value in pairs}


if __name__ == "__main__":
    run(main, known_only=True)
