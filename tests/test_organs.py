"""The organs: the challenge's label values, and ranges that hold the data set's own."""

import pytest

from segthor import organs


def test_labels_are_the_challenges():
    labels = {organ.name: organ.label for organ in organs.ORGANS}
    assert labels == {"esophagus": 1, "heart": 2, "trachea": 3, "aorta": 4}
    assert organs.NUM_CLASSES == 5
    assert len({organ.rgb for organ in organs.ORGANS}) == 4


# Minimum and maximum over SegTHOR's training patients, cm3.
@pytest.mark.parametrize(
    ("name", "smallest", "largest"),
    [("esophagus", 30, 170), ("heart", 438, 1829), ("trachea", 22, 73), ("aorta", 95, 465)],
)
def test_plausible_volumes_hold_every_patient_of_the_data_set(name, smallest, largest):
    low, high = organs.BY_NAME[name].volume_cm3
    assert low < smallest and largest < high
