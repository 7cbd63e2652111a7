"""DICOM of one patient through the data job: each damage under its code, the unusual unchanged."""

from pathlib import Path

import dicom_damage
import numpy as np
import pytest
from damage import check_findings, healthy_phantom
from dicom_damage import DAMAGES, UNUSUAL

from beam_jobs.examine import examine
from beam_jobs.job import Job
from segthor import inputs
from segthor.organs import SEGTHOR
from segthor.recipe import Recipe

JOB = Job("unused", Recipe(crop_mm=288, pixel_mm=9), organs=SEGTHOR)


def examined(folder):
    named = Path(folder) / "patients.csv"
    (source,) = inputs.find(str(named if named.exists() else folder), organs=SEGTHOR)
    return examine(source, JOB)


@pytest.fixture
def healthy(tmp_path):
    dicom_damage.healthy(tmp_path)
    return tmp_path


def test_the_undamaged_patient_raises_nothing_and_has_the_phantoms_voxels(healthy):
    check_unchanged(examined(healthy), ())


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_is_found_under_its_code(healthy, name):
    code, spoil = DAMAGES[name]
    spoil(healthy)
    found = examined(healthy)
    check_findings(found, code)
    assert not any("Secret" in one.message for one in found.findings)


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_unusual_gives_the_same_voxels(healthy, name):
    codes, change = UNUSUAL[name]
    change(healthy)
    check_unchanged(examined(healthy), codes)


def check_unchanged(found, codes):
    """HU, label map, place and organs are the phantom's, with these warnings and no others."""
    assert [one.code for one in found.findings] == list(codes)
    assert found.source.organs == SEGTHOR.names and not found.rejected
    made = healthy_phantom()
    both = found.scans
    np.testing.assert_allclose(both.ct.spacing_mm, made.volume.spacing_mm, atol=1e-4)
    np.testing.assert_array_equal(both.ct.zyx, made.volume.zyx)
    np.testing.assert_array_equal(both.contours.zyx, made.label_map.zyx)
    assert _low_corner_mm(both.ct.grid) == pytest.approx(
        _low_corner_mm(both.contours.grid), abs=1e-3
    )
    corner = _corners_mm(made.affine, made.hu.shape).min(0)
    assert _low_corner_mm(both.ct.grid) == pytest.approx(corner, abs=1e-3)


def _low_corner_mm(grid):
    return _corners_mm(grid.affine, grid.shape).min(0)


def _corners_mm(affine, shape):
    """The outermost voxels' centres along the patient's axes, [2, 3] RAS+ mm."""
    ends = np.array([(0, 0, 0, 1), (*np.subtract(shape, 1), 1)], float)
    return (ends @ affine.T)[:, :3]
