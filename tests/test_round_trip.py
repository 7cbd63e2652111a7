"""Labels in place of a network's output: through the preparation and back to the scan's grid."""

import numpy as np
import pytest

from segthor import organs, phantom
from segthor.recipe import Recipe, prepare
from tests.way_back import labels_back


def dice(one, other, label):
    both = np.count_nonzero((one == label) & (other == label))
    return 2 * both / (np.count_nonzero(one == label) + np.count_nonzero(other == label))


# Slices of full size in any case; all of them take nine seconds.
@pytest.mark.parametrize(
    "scan",
    [
        {"shape": (512, 512, 45), "spacing_mm": (0.946, 0.946, 10.0)},
        pytest.param({}, marks=pytest.mark.thorough),
    ],
)
def test_a_full_size_patient_comes_back_nearly_whole_when_resampled_and_whole_when_not(scan):
    made = phantom.make(1, "full", **scan)
    prepared = prepare(made.volume, Recipe(), made.label_map)
    assert prepared.labels_outside == 0
    grid = made.volume.grid
    back = grid.to_file(labels_back(prepared.placement, prepared.labels))
    for organ in organs.SEGTHOR:
        least = 0.95 if organ.name == "esophagus" else 0.97
        assert dice(back, made.labels, organ.label) >= least, organ.name
    native = prepare(made.volume, Recipe(crop_mm=352, pixel_mm=0), made.label_map)
    assert native.labels_outside == 0
    back = grid.to_file(labels_back(native.placement, native.labels))
    np.testing.assert_array_equal(back, made.labels)


@pytest.mark.parametrize("axcodes", ["LPS", "RAI", "SPL", "ALI"])
@pytest.mark.parametrize("oblique_deg", [0, 3])
def test_a_small_patient_comes_back_whole_at_native_pixels_however_it_lies(axcodes, oblique_deg):
    made = phantom.make(5, "small", axcodes=axcodes, oblique_deg=oblique_deg)
    prepared = prepare(made.volume, Recipe(crop_mm=128, pixel_mm=0), made.label_map)
    assert prepared.labels_outside == 0
    back = made.volume.grid.to_file(labels_back(prepared.placement, prepared.labels))
    np.testing.assert_array_equal(back, made.labels)
