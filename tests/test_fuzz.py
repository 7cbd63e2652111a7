"""Anything may come as a patient's file: it ends in findings or in a shard, never in a traceback.

`python -m tests.fuzz 600` and `python -m tests.fuzz_dicom 600` do the same for ten minutes.
"""

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from beam_jobs.examine import examine
from beam_jobs.job import Job
from segthor.findings import CODES
from segthor.organs import SEGTHOR
from segthor.patients import Patient
from segthor.volume import Grid
from tests import file_order, fuzz, fuzz_dicom

NUMBERS = st.floats(-(2.0**100), 2.0**100, width=32)


thorough = pytest.mark.thorough


@pytest.mark.parametrize(
    "first", [0, 12, *(pytest.param(first, marks=thorough) for first in range(24, 120, 12))]
)
def test_damaged_files_end_in_findings_or_in_a_shard(tmp_path, first):
    place = tmp_path / "case"
    place.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for seed in range(first, first + 12):
            assert set(fuzz.run_case(seed, place)) <= {*CODES, "built"}, seed


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=thorough)])
def test_damaged_dicom_ends_in_findings_or_in_the_dataset(tmp_path, seed):
    assert fuzz_dicom.run_case(seed, tmp_path / "case", rounds=1)["built"] > 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_arrays_on_any_grid_end_in_findings(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    shape = data.draw(st.tuples(*[st.integers(1, 40)] * 3))
    paths = []
    for dtypes in (("<i2", "<f4", "<u2", "<i4"), ("<u1", "<f4", "<i2")):
        dtype = np.dtype(data.draw(st.sampled_from(dtypes)))
        elements = NUMBERS if dtype.kind == "f" else None
        array = data.draw(
            arrays.arrays(dtype, shape, elements=elements, fill=st.just(dtype.type(0)))
        )
        turn = data.draw(arrays.arrays(np.float64, (3, 4), elements=st.floats(-100, 100)))
        affine = np.vstack([turn, [0, 0, 0, 1]])
        if abs(np.linalg.det(affine[:3, :3])) < 1e-6:
            affine = np.diag([2, 2, 3, 1.0])
        paths.append(str(folder / f"{len(paths)}.nii"))
        file_order.write(paths[-1], array, Grid(shape, affine))
    found = examine(
        Patient("P", *paths, organs=SEGTHOR.names), Job("unused", fuzz.RECIPES[0], organs=SEGTHOR)
    )
    assert found.findings and all(one.code in CODES for one in found.findings)
