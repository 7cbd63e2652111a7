"""Counts that add up over shards, in any order and grouping."""

import itertools

import apache_beam as beam
import numpy as np
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from beam_jobs.counts import summary, total

PARTS = [
    {"slices": {"all": 3, "heart": 1}, "hu/heart": {"0": 5, "-4": 1}},
    {"slices": {"all": 2}, "hu/heart": {"0": 2}, "spacing_in_plane_mm": {"0.98": 1}},
    {},
    {"slices": {"all": 1, "heart": 1}, "spacing_in_plane_mm": {"1.2": 2}},
]
TOTAL = {
    "hu/heart": {"-4": 1, "0": 7},
    "slices": {"all": 6, "heart": 2},
    "spacing_in_plane_mm": {"0.98": 1, "1.2": 2},
}


def test_counts_add_up_in_every_order_and_grouping():
    for order in itertools.permutations(PARTS):
        for cut in range(len(order) + 1):
            assert repr(total([total(order[:cut]), total(order[cut:])])) == repr(TOTAL)


def test_they_are_summed_in_beam(tmp_path):
    path = str(tmp_path / "total")
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        (
            pipeline
            | beam.Create(PARTS)
            | beam.CombineGlobally(total)
            | beam.Map(lambda counts: open(path, "w").write(repr(counts)))
        )
    assert open(path).read() == repr(TOTAL)


def test_percentiles_are_those_of_the_values_counted():
    values = np.random.default_rng(0).integers(-40, 200, 5000) * 4
    numbers, counts = np.unique(values, return_counts=True)
    of_heart = {str(n): int(c) for n, c in zip(numbers, counts, strict=True)}
    found = summary({"hu/heart": of_heart, "slices": {"all": 1}}).hu_percentiles["heart"]
    for percent, value in found.items():
        assert value == np.percentile(values, float(percent), method="inverted_cdf")


def test_spacings_are_summed_up_by_min_median_max():
    counts = {"spacing_in_plane_mm": {"0.98": 2, "10.0": 1, "0.9": 2}}
    found = summary(counts).spacing_in_plane_mm
    assert found == {"min": 0.9, "median": 0.98, "max": 10.0}


def test_an_organ_without_a_voxel_in_the_boxes_has_no_percentiles():
    made = summary({"slices": {"all": 3, "heart": 0}, "hu/heart": {}, "hu/aorta": {"40": 2}})
    assert list(made.hu_percentiles) == ["aorta"] and made.slices["heart"] == 0
