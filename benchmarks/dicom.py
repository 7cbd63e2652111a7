"""Times reading and writing of DICOM and NIfTI for one full-size patient, and prints the goals.

Run from the project's root: python -m benchmarks.dicom
All files are read once before, so that they come from the system's cache.
"""

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, "tests")  # the writer of DICOM phantoms

import dicom_phantoms

from benchmarks.peak import peak_bytes
from segthor import nifti, phantom, scans
from segthor.dicom import index, places
from segthor.organs import SEGTHOR

FOLDER = Path("build/benchmark/dicom")
SHAPE = (512, 512, 200)
REPEATS = 3
_READ = "import sys; from segthor import scans; scans.read(sys.argv[1])"
MADE = {"version": "0", "model": "benchmark", "date": "20260101", "time": "000000"}


def main() -> int:
    """Prints a row per measurement; 1 where a goal is missed or a result differs."""
    organs = SEGTHOR
    made = phantom.make(3, "full", organs, shape=SHAPE, axcodes="LPS")
    plain, jpeg = _series(made, "explicit"), _series(made, "jpeg_2000_lossless")
    file = str(FOLDER / "ct.nii.gz")
    grid = scans.read_grid(str(plain))
    nifti.write(file, scans.read(str(plain)).zyx, grid)
    labels = made.label_map
    drawn = {"rtstruct": str(FOLDER / "set.dcm")}
    seg = {"seg": str(FOLDER / "seg.dcm")}
    rows = [
        _row("NIfTI in", None, lambda: nifti.read(file)),
        _row("index, a file", 0.002, lambda: _index(plain), SHAPE[2]),
        _row("series in, uncompressed", 1.0, lambda: _read(plain)),
        _row("series in, JPEG 2000", 12.0, lambda: _read(jpeg)),
        _row("structure set out", 1.0, lambda: _write(plain, labels, drawn)),
        _row(
            "structure set in",
            1.0,
            lambda: places.read_contours(drawn["rtstruct"], str(plain), organs),
        ),
        _row("SEG out", 1.5, lambda: _write(plain, labels, seg)),
    ]
    first = rows[0][2]
    print(f"{'x'.join(map(str, SHAPE))}, {len(organs)} organs\n")
    print(f"{'':28}{'seconds':>9}{'goal':>8}{'beside NIfTI in':>17}")
    for name, goal, seconds in rows:
        print(f"{name:28}{seconds:9.4f}{goal or '':>8}{seconds / first:17.2f}")
    back = places.read_contours(drawn["rtstruct"], str(plain), organs).zyx
    differing = int(np.count_nonzero(back != labels.zyx))
    extra = (peak_bytes(_READ, str(plain)) - peak_bytes(_READ, file)) / 1e6
    print(f"\nvoxels that differ after mask > structure set > mask: {differing}")
    print(f"peak memory above the NIfTI route: {extra:.0f} MB (goal 150)")
    missed = [name for name, goal, seconds in rows if goal and seconds > goal]
    print(f"missed: {', '.join(missed) or 'none'}")
    return int(bool(missed or differing or extra > 150))


def _series(made, syntax: str) -> Path:
    folder = FOLDER / syntax
    if not folder.exists():
        hu, affine = dicom_phantoms.posed(made.hu, made.affine)
        dicom_phantoms.write_series(folder, hu, affine, syntax=syntax)
    return folder


def _read(folder: Path):
    """Reads headers and pixels, as the data job does."""
    index.clear_cache()
    return scans.read(str(folder))


def _index(folder: Path):
    index.clear_cache()
    return index.index_folder(str(folder))


def _write(folder: Path, labels, paths: dict):
    return places.write(str(folder), labels, paths, MADE)


def _row(name: str, goal: float | None, action, parts: int = 1):
    """(name, goal, seconds of the quickest of some runs, for one of the parts)."""
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    return name, goal, min(seconds) / parts


if __name__ == "__main__":
    sys.exit(main())
