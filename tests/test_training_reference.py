"""What training patients measure, and how far from them a new scan is."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from segthor import fields, reference
from segthor.figures import OrganFigures
from segthor.geometry import Placement
from segthor.manifest import Audit, Built


def placement(slices=40, spacing=1.0, slice_mm=3.0):
    shape, spacing_mm = (slices, 128, 128), (slice_mm, spacing, spacing)
    return Placement.centred(shape, spacing_mm, (64, 64), 96, 1.0)


def patient(number, volume=500.0, center=(0.0, 0.0, 0.0), **grid):
    shares = np.full(reference.GREY_RANGES, 1 / reference.GREY_RANGES)
    shares[0] += 0.001 * number
    shares[1] -= 0.001 * number
    figures = OrganFigures(volume + number, 90.0 + number, 40.0, 1, 0, center)
    other = dataclasses.replace(figures, center_lps_mm=(10.0, 0.0, 0.0))
    audit = Audit(organs={"heart": figures, "aorta": other})
    place = placement(**grid)
    return Built(f"P{number}", "", "", "", "train", 0, 40, (), 50.0, place, audit, tuple(shares))


def test_it_survives_json():
    made = reference.compute_reference([patient(n) for n in range(5)])
    assert fields.from_json(reference.Reference, dataclasses.asdict(made), "reference") == made
    assert made.patients == 5


def test_figures_are_those_of_the_patients():
    made = reference.compute_reference([patient(n, slices=40 + n) for n in range(5)])
    lengths = [3.0 * (40 + n) for n in range(5)]
    found = made.scan["length_mm"]
    assert (found.low, found.high) == (min(lengths), max(lengths))
    assert found.mean == pytest.approx(np.mean(lengths))
    assert found.sd == pytest.approx(np.std(lengths, ddof=1), abs=1e-4)
    assert made.organs["heart"]["left_mm"].mean == -10
    assert made.organs["aorta"]["left_mm"].mean == 10


def test_a_scan_of_other_slices_is_far_and_a_patient_of_theirs_is_not():
    made = reference.compute_reference([patient(n, slice_mm=3 + 0.1 * n) for n in range(5)])
    for slice_mm, far in ((3.2, False), (6.0, True), (1.0, True)):
        figures = made.scan_figures(placement(slice_mm=slice_mm), 50.0, made.grey_shares)
        z_score = made.scan["slice_mm"].z_score("slice_mm", figures["slice_mm"])
        assert (abs(z_score) > 6) == far
        assert np.sign(z_score) == np.sign(round(slice_mm - 3.2, 6))


def test_patients_of_a_dataset_from_before_do_not_count():
    old = [dataclasses.replace(patient(n), grey_shares=()) for n in range(9)]
    assert reference.compute_reference(old) is None
    assert reference.compute_reference([*old, patient(1), patient(2)]) is None
    assert reference.compute_reference([*old, *map(patient, range(3))]).patients == 3


def test_grey_levels_are_compared_as_by_the_distance_of_wasserstein():
    rng = np.random.default_rng(0)
    one, other = rng.dirichlet(np.ones(16)), rng.dirichlet(np.ones(16))
    places = np.arange(16) / 16
    expected = stats.wasserstein_distance(places, places, one, other)
    assert reference.grey_distance(one, other) == pytest.approx(expected)


def test_air_in_the_box_changes_no_grey_shares():
    rng = np.random.default_rng(0)
    tissue = rng.integers(1, 256, (8, 16, 16), np.uint8)
    wider = np.pad(tissue, ((0, 0), (5, 5), (5, 5)))
    assert reference.grey_shares(wider) == reference.grey_shares(tissue)
    assert sum(reference.grey_shares(tissue)) == pytest.approx(1, abs=1e-4)
    assert reference.grey_shares(np.zeros((4, 8, 8), np.uint8)) == (0.0,) * 16
