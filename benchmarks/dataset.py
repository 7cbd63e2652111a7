"""The datasets that the trainer's benchmarks share, made once, under build/benchmark/.

full: full-size phantoms as slices of 224x224x3. small: small ones as the demo has them.
"""

import subprocess
import sys

from segthor import files
from segthor.manifest import FILE_NAME
from trainer import sources

FOLDER = "build/benchmark"
RECIPES = {"full": ("--crop_mm=224",), "small": ("--flagfile=configs/demo_build.flags",)}
PATIENTS = 12


def source(size: str = "full") -> sources.Source:
    """The dataset, opened with fold 0 held out."""
    dataset = f"{FOLDER}/{size}_dataset"
    if not files.exists(f"{dataset}/{FILE_NAME}"):
        patients = f"{FOLDER}/{size}_patients"
        print(f"Making {PATIENTS} {size} phantoms in {FOLDER} (once, some minutes)", flush=True)
        _run("segthor.phantom", f"--output={patients}", f"--patients={PATIENTS}", f"--size={size}")
        _run("beam_jobs.build", f"--input={patients}", f"--output={dataset}", *RECIPES[size])
    return sources.open_source(dataset, 0)


def _run(module, *arguments):
    subprocess.run([sys.executable, "-m", module, *arguments], check=True)
