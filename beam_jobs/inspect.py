"""Shows what a dataset holds: numbers on the terminal, pictures in a folder.

python -m beam_jobs.inspect --data=DIR [--output=DIR/inspect]

Writes slices.png (slices with contours), normalization.png (the same slices before and after
normalization) and histograms.png (spacings, window levels, organ volumes).
"""

from absl import flags

from beam_jobs import inspection
from segthor import files, locks
from segthor.errors import run
from segthor.manifest import DEFAULT_DATASET, Dataset

_DATA = flags.DEFINE_string("data", DEFAULT_DATASET, "Folder of the dataset.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the pictures (default: DATA/inspect).")
_PATIENTS = flags.DEFINE_integer("patients", 8, "Patients on the pictures.", 1, 100)


def main(argv):
    """Prints the statistics, then draws."""
    del argv
    dataset = Dataset.load(_DATA.value)
    print("\n".join(inspection.lines(dataset)))
    output = _OUTPUT.value or files.join(_DATA.value, "inspect")
    with locks.alone(output):
        files.remove_partial(output)
        inspection.draw(dataset, _DATA.value, output, _PATIENTS.value)
    print(f"Wrote {', '.join(inspection.FILES)} to {output}")


if __name__ == "__main__":
    run(main)
