"""Small patients on disk, for the tests of the data job."""

import functools
from pathlib import Path

import numpy as np

from segthor import phantom
from segthor.figures import OrganFigures
from segthor.volume import Grid
from tests import file_order

# A matrix of 32 for phantoms of 48x48x16 voxels of about 9 mm.
TINY_RECIPE = {"crop_mm": 288.0, "pixel_mm": 9.0}


MEASURED = OrganFigures(
    volume_cm3=1.0,
    extent_z_mm=20.0,
    mean_hu=40.0,
    components=1,
    gaps=0,
    center_lps_mm=(1.0, 2.0, 3.0),
)


@functools.cache
def tiny_patient(seed: int, **overrides) -> phantom.Phantom:
    """`phantom.tiny`, made once in a process; nothing can be written to its arrays."""
    made = phantom.tiny(seed, **overrides)
    for array in (made.hu, made.labels, made.affine):
        array.setflags(write=False)
    return made


def save(path, array, affine=None, grid=None) -> str:
    """Writes one NIfTI file and returns its name."""
    grid = grid or Grid(array.shape, affine)
    file_order.write(str(path), np.asarray(array), grid)
    return str(path)


def save_patient(folder, name: str, made, gz: bool = True) -> None:
    """A phantom in SegTHOR's layout."""
    suffix = ".nii.gz" if gz else ".nii"
    place = Path(folder) / "train" / name
    save(place / (name + suffix), made.hu, made.affine)
    save(place / ("GT" + suffix), made.labels, made.affine)


def save_patients(folder, count: int, first: int = 1, seed: int = 0) -> str:
    """Tiny phantoms Patient_01, ... in SegTHOR's layout; returns the folder."""
    for number in range(first, first + count):
        save_patient(folder, f"Patient_{number:02d}", tiny_patient(seed * 1000 + number))
    return str(folder)


def touch(path) -> None:
    """An empty file, its folder too; discovery looks at names alone."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).touch()
