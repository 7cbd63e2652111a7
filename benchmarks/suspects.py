"""Measures how many planted mistakes of contouring `serving.suspects` finds.

Run from the project's root: python -m benchmarks.suspects [--patients=60 --planted=12 --epochs=12]

Makes small phantoms, plants mistakes of four kinds into some training label maps
(benchmarks/planted.py), builds the dataset, cross-validates five folds on it and ranks the
contours with serving.suspects. Expected: of 12 mistakes 11 are among the first 15 suspects.
A repeated run continues in build/suspects. On two cores the folds take more than an hour.
"""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
from absl import app, flags

from benchmarks import planted
from segthor import json_files, nifti
from segthor.organs import SEGTHOR

PATIENTS = flags.DEFINE_integer("patients", 60, "Training patients.", lower_bound=10)
PLANTED = flags.DEFINE_integer("planted", 12, "How many of them get a mistake.", lower_bound=1)
EPOCHS = flags.DEFINE_integer("epochs", 12, "Of each fold.", lower_bound=1)
FOLDER = flags.DEFINE_string("folder", "build/suspects", "Where everything lies.")
FOLDS, FIRST, MISSED = 5, 15, 1
# Half of the mistakes are so coarse that the audit would keep them out of the dataset.
ADMITTED = ("organ_missing", "organ_volume", "organ_hu", "anatomy_mirrored")


def main(_):
    folder = Path(FOLDER.value)
    patients, dataset, runs = folder / "patients", folder / "dataset", folder / "runs"
    if not (folder / "planted.json").exists():
        program("segthor.phantom", output=patients, patients=PATIENTS.value, test_patients=0)
        json_files.write(str(folder / "planted.json"), plant(patients / "train"))
    mistakes = json_files.read(str(folder / "planted.json"))
    if not (dataset / "dataset.json").exists():
        severity = ",".join(f"{code}=warn" for code in ADMITTED)
        shared = {"flagfile": "configs/demo_build.flags", "folds": FOLDS, "severity": severity}
        program("beam_jobs.build", **shared, input=patients, output=dataset)
    flagfile = "configs/smoke.flags"
    program("trainer.cross_validate", flagfile=flagfile, data=dataset, workdir=runs,
            epochs=EPOCHS.value)  # fmt: skip
    program("serving.suspects", runs=runs, data=dataset, output=folder / "out")
    with open(folder / "out" / "suspects.csv") as stream:
        ranked = [(row["patient"], row["organ"]) for row in csv.DictReader(stream)]
    return report(mistakes, ranked)


def report(mistakes, ranked):
    """Prints each mistake's rank among the suspects; status 1 if too many have a low rank."""
    found = 0
    print(f"\n{'patient':14}{'mistake':10}{'wrong':20}place among {len(ranked)} contours")
    for patient, (kind, *wrong) in sorted(mistakes.items()):
        place = 1 + min(ranked.index((patient, organ)) for organ in wrong
                        if (patient, organ) in ranked)  # fmt: skip
        found += place <= FIRST
        print(f"{patient:14}{kind:10}{', '.join(wrong):20}{place}")
    fewest = len(mistakes) - MISSED
    kept = found >= fewest
    print(f"\n{found} of {len(mistakes)} among the first {FIRST}; expected {fewest} or more: "
          f"{'kept' if kept else 'MISSED'}.")  # fmt: skip
    return 0 if kept else 1


def plant(folder):
    """Changes label maps in place; returns patient -> kind, then the organs that are wrong."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    chosen = np.random.default_rng(0).permutation(names)[: PLANTED.value]
    mistakes = {}
    for number, name in enumerate(chosen.tolist()):
        path, kind = str(folder / name / "GT.nii.gz"), planted.KINDS[number % len(planted.KINDS)]
        stored = nifti.read(path)
        labels = stored.zyx.astype(np.uint8)
        labels, wrong = planted.plant(labels, kind, stored.spacing_mm, SEGTHOR.numbers)
        nifti.write(path, labels, stored.grid)
        mistakes[name] = [kind, *wrong]
    return mistakes


def program(module, **given):
    arguments = [f"--{name}={value}" for name, value in given.items()]
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)


if __name__ == "__main__":
    sys.exit(app.run(main))
