"""Writes synthetic patients in the layout of the SegTHOR data set.

python -m segthor.phantom --output=DIR --patients=24 --test_patients=4 --size=small --seed=0
With --organs=thorax the spinal cord and both lungs are contoured, too; the images are the same.
"""

from absl import flags

from segthor.errors import hint, run
from segthor.phantom.contours import table, table_file
from segthor.phantom.dataset import write_dataset

OUTPUT = flags.DEFINE_string("output", None, "Folder for the patients.", required=True)
PATIENTS = flags.DEFINE_integer("patients", 24, "Patients in train/.", 0, 10**6)
TEST_PATIENTS = flags.DEFINE_integer("test_patients", 4, "Patients in test/.", 0, 10**6)
SIZE = flags.DEFINE_enum(
    "size",
    "small",
    ["small", "full"],
    "small: 128x128, about 40 slices. full: 512x512, 150 to 284.",
)
SEED = flags.DEFINE_integer("seed", 0, "The same seed gives the same patients.", 0, 2**31 - 1)
ORGANS = flags.DEFINE_string(
    "organs",
    "segthor",
    "Organs to contour: segthor, thorax (configs/organs/thorax.csv), or a file.",
)


def main(argv) -> None:
    """Writes the patients and prints the next command."""
    del argv
    organs = table(ORGANS.value)
    write_dataset(OUTPUT.value, PATIENTS.value, TEST_PATIENTS.value, SIZE.value, SEED.value, organs)
    print(
        f"Wrote {PATIENTS.value} training and {TEST_PATIENTS.value} test patients to "
        f"{OUTPUT.value} (train/, test/, test_labels/)."
    )
    if PATIENTS.value:
        own = {} if ORGANS.value == "segthor" else {"organ_table": table_file(ORGANS.value)}
        print(hint("beam_jobs.build", input=OUTPUT.value, output="DATASET", **own))


if __name__ == "__main__":
    run(main)
