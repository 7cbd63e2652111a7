"""The dataset that the trainer's benchmarks share: full-size phantoms as slices of 224x224x3.

Made once, under build/benchmark/, by the project's own programs.
"""

import subprocess
import sys

from segthor import files
from segthor.manifest import FILE_NAME
from trainer import sources

FOLDER = "build/benchmark"
PATIENTS = 12


def source() -> sources.Source:
    """The dataset, opened with fold 0 held out."""
    dataset = f"{FOLDER}/dataset"
    if not files.exists(f"{dataset}/{FILE_NAME}"):
        patients = f"{FOLDER}/patients"
        print(f"Making {PATIENTS} full-size phantoms in {FOLDER} (once, some minutes)", flush=True)
        _run("segthor.phantom", f"--output={patients}", f"--patients={PATIENTS}", "--size=full")
        _run("beam_jobs.build", f"--input={patients}", f"--output={dataset}", "--crop_mm=224")
    return sources.open_source(dataset, 0)


def _run(module, *arguments):
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)
