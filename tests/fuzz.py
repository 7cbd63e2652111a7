"""Random damage to a patient's files: every case must end in findings or in a shard that decodes.

python -m tests.fuzz [seconds] [first seed]     never a traceback, a warning or a hang

A case is made by its seed alone; `python -m tests.fuzz 0 SEED` repeats one. `test_fuzz.py` runs a
few in the suite.
"""

import gzip
import sys
import warnings
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np

from beam_jobs import shards
from beam_jobs.job import Job
from beam_jobs.plan import ShardPlan
from segthor import files, records
from segthor.organs import SEGTHOR
from segthor.patients import Patient
from segthor.recipe import Recipe
from tests import fuzz_runner
from tests.damage import CT, GT, healthy

RECIPES = (
    Recipe(crop_mm=288, pixel_mm=9),
    Recipe(crop_mm=64, pixel_mm=0),
    Recipe(crop_mm=300, pixel_mm=2.7, context=5),
    Recipe(crop_mm=200, pixel_mm=5, window_level="median:heart,aorta"),
    Recipe(crop_mm=96, pixel_mm=3, crop_center="organs:esophagus", context=1),
)
_DTYPES = ("i1", "u1", "<i2", ">i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f4", ">f4", "<f8")
_SPECIAL = (np.nan, np.inf, -np.inf, 1e30, -1e30, 0, 1, 2, 3, 4, 5, -1, 0.5, 255, -32768, 2**31)


def run_case(seed: int, folder: Path) -> Counter:
    """Damages, examines and writes one patient; returns the codes found, 'built' among them."""
    rng = np.random.default_rng(seed)
    paths = _damaged(rng, folder)
    recipe = RECIPES[rng.integers(len(RECIPES))]
    values = (("heart", 2), ("aorta", 200)) if rng.random() < 0.1 else ()
    job = Job(str(folder / "out"), recipe, label_values=values, organs=SEGTHOR)
    plan = ShardPlan(
        "train-fold0", "train", 0, (Patient("P", *map(str, paths), organs=SEGTHOR.names),)
    )
    part = shards.write(plan, job)
    if part.rejected:
        return Counter(finding.code for finding in part.rejected[0].findings)
    found = list(records.slices(files.join(job.output, part.shard.file)))
    assert len(found) == part.shard.records == part.patients[0].slices
    return Counter(["built", *(finding.code for finding in part.patients[0].audit.findings)])


def _damaged(rng, folder: Path) -> list[Path]:
    healthy_folder = folder.parent / "healthy"
    if not healthy_folder.exists():
        healthy_folder.mkdir()
        healthy(healthy_folder)
    chosen = rng.integers(1, 4)  # CT, contours, or both
    change = _CHANGES[rng.integers(len(_CHANGES))]
    paths = []
    for bit, name in ((1, CT), (2, GT)):
        content = (healthy_folder / name).read_bytes()
        if chosen & bit:
            content = change(rng, content, name)
        suffix = ".nii.gz" if rng.random() < 0.7 else ".nii"
        paths.append(folder / (name.removesuffix(".nii.gz") + suffix))
        paths[-1].write_bytes(content)
    return paths


def _bytes_changed(rng, content, name):
    content = bytearray(content)
    for _ in range(rng.integers(1, 20)):
        content[rng.integers(len(content))] = rng.integers(256)
    return bytes(content)


def _cut(rng, content, name):
    return content[: rng.integers(len(content))]


def _spliced(rng, content, name):
    a, b, c = sorted(rng.integers(len(content), size=3))
    middle = (b"", content[a:b] * 2, rng.bytes(int(c - a)), bytes(int(c - b)))[rng.integers(4)]
    return content[:a] + middle + content[c:]


def _garbage(rng, content, name):
    starts = (b"", b"\x1f\x8b\x08\x00", b"\x5c\x01\x00\x00", content[:20])
    return starts[rng.integers(4)] + rng.bytes(int(rng.integers(2000)))


def _header_bytes(rng, content, name):
    inner = bytearray(gzip.decompress(content))
    for _ in range(rng.integers(1, 12)):
        inner[rng.integers(40, 352)] = rng.integers(256)
    return _packed(rng, bytes(inner))


def _header_fields(rng, content, name):
    inner = bytearray(gzip.decompress(content))
    header = nibabel.Nifti1Header(bytes(inner[:348]), check=False)
    fields = ("dim", "pixdim", "srow_x", "srow_y", "srow_z", "scl_slope", "scl_inter", "vox_offset",
              "datatype", "bitpix", "qform_code", "sform_code", "xyzt_units", "quatern_b",
              "quatern_c", "quatern_d", "qoffset_x")  # fmt: skip
    for field in rng.choice(fields, rng.integers(1, 4)):
        value = np.atleast_1d(header[field]).copy()
        with np.errstate(all="ignore"):
            special = np.array([rng.choice(_SPECIAL)], np.float64).astype(value.dtype)
        value[rng.integers(len(value))] = special[0]
        header[field] = value if header[field].ndim else value[0]
    inner[:348] = header.binaryblock
    return _packed(rng, bytes(inner))


def _array(rng, content, name):
    """A file that is sound as such and holds anything."""
    shape = (64, 64, 24) if rng.random() < 0.6 else tuple(rng.integers(1, 70, 3))
    values = rng.normal(0, 10.0 ** rng.integers(-2, 6), shape)
    if name == GT:
        values = rng.integers(0, 6, shape) * (rng.random(shape) < 10.0 ** rng.integers(-4, 1))
    if rng.random() < 0.4:
        values = values.astype(float)
        values[rng.random(shape) < 0.01] = rng.choice(_SPECIAL)
    dtype = np.dtype(rng.choice(_DTYPES))
    with np.errstate(all="ignore"):
        values = values.astype(dtype)
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(dtype)
    affine = np.diag([*10 ** rng.uniform(-1, 1.3, 3), 1.0])
    affine[:3, :3] = affine[:3, :3] @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    header.set_sform(affine, code=1)
    header["vox_offset"] = 352
    if rng.random() < 0.3:
        header["scl_slope"], header["scl_inter"] = rng.choice(_SPECIAL, 2).astype(np.float32)
    return _packed(rng, header.binaryblock + bytes(4) + values.tobytes(order="F"))


def _packed(rng, inner):
    return gzip.compress(inner, 1) if rng.random() < 0.8 else inner


_CHANGES = (
    _bytes_changed, _cut, _spliced, _garbage, _header_bytes, _header_fields, _array, _array,
)  # fmt: skip


if __name__ == "__main__":
    warnings.simplefilter("error")
    sys.exit(fuzz_runner.program(run_case, "patients"))
