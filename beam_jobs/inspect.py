"""Shows what a dataset holds: numbers on the terminal, pictures in a folder.

python -m beam_jobs.inspect --data=DIR [--output=DIR/inspect]

Writes slices.png (slices with contours), normalization.png (the same slices before and after
normalization) and histograms.png (spacings, window levels, organ volumes). Exit status: 0, or 1
where a patient could not be shown.
"""

from absl import flags

from beam_jobs import inspection
from segthor import files, outputs
from segthor.errors import run
from segthor.manifest import DEFAULT_DATASET, Dataset

_DATA = flags.DEFINE_string("data", DEFAULT_DATASET, "Folder of the dataset.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the pictures (default: DATA/inspect).")
_PATIENTS = flags.DEFINE_integer("patients", 8, "Patients on the pictures.", 1, 100)


def main(argv):
    """Prints the statistics, then draws."""
    del argv
    default = files.join(_DATA.value, "inspect")
    output = default if _OUTPUT.value is None else _OUTPUT.value
    pictures = dict.fromkeys(inspection.FILES, outputs.picture)
    if output and files.is_same(output, default):  # `check_folder` refuses folders in a dataset
        outputs.check_files(output, pictures)
    else:
        outputs.check_folder(output, {"data": _DATA.value}, written=pictures)
    dataset = Dataset.load(_DATA.value)
    print("\n".join(inspection.describe(dataset)))
    with outputs.lock_folder(output, inspection.FILES):
        failed = inspection.draw(dataset, _DATA.value, output, _PATIENTS.value)
    print(f"Wrote {', '.join(inspection.FILES)} to {output}")
    return 1 if failed else 0


if __name__ == "__main__":
    run(main)
