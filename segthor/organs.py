"""The organs at risk: names, label values, colours and what is anatomically plausible. Data only.

Volumes are the SegTHOR training set's minimum and maximum, widened by about a half on either side,
so that a plausible but unusual patient raises no alarm and a swapped or merged organ does.
HU ranges are of the organ's mean: unenhanced blood is about 40 HU, contrast adds up to some 400.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Organ:
    """One organ at risk; every range is (lowest, highest) plausible value, both included."""

    name: str
    label: int
    rgb: tuple[int, int, int]
    volume_cm3: tuple[float, float]
    mean_hu: tuple[float, float]
    extent_z_mm: tuple[float, float]
    max_components: int


BACKGROUND = 0
ORGANS = (
    Organ("esophagus", 1, (230, 60, 60), (15, 200), (-150, 150), (100, 400), 3),
    Organ("heart", 2, (255, 130, 190), (250, 2200), (-20, 600), (50, 220), 1),
    Organ("trachea", 3, (250, 210, 40), (10, 120), (-1000, -500), (40, 220), 2),
    Organ("aorta", 4, (70, 130, 255), (50, 600), (-10, 600), (80, 500), 3),
)
NAMES = tuple(organ.name for organ in ORGANS)
NUM_CLASSES = 1 + len(ORGANS)
BY_NAME = {organ.name: organ for organ in ORGANS}


def labels(names) -> list[int]:
    """The label values of organs, in the order of their names."""
    return [BY_NAME[name].label for name in names]
