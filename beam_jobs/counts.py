"""Counts that are summed over patients and shards, and the statistics computed from them.

Counts are a nested dictionary, name -> value -> number: 'slices' by organ, 'hu/ORGAN' by the lower
edge of a bin in HU, and the two spacings by mm.
"""

import numpy as np

from beam_jobs.examine import Examined
from segthor.boxes import nonzero_box
from segthor.manifest import Statistics
from segthor.organs import Organs
from segthor.records import present_in

HU_BIN = 4
PERCENTILES = (0.5, 5, 25, 50, 75, 95, 99.5)


def count_patient(patient: Examined, organs: Organs) -> dict[str, dict[str, int]]:
    """Counts of one prepared patient."""
    prepared = patient.prepared
    z_mm, y_mm, x_mm = prepared.placement.spacing_zyx_mm
    counts = {
        "spacing_in_plane_mm": {str(round(max(y_mm, x_mm), 3)): 1},
        "spacing_between_slices_mm": {str(round(z_mm, 3)): 1},
        "slices": {"all": len(prepared.labels)},
    }
    organ_slices = np.array([present_in(plane, organs) for plane in prepared.labels]).sum(0)
    inner = prepared.labels[nonzero_box(prepared.labels)]
    labelled = inner[inner > 0]
    names = patient.source.organs
    for name, number in zip(names, organ_slices[organs.places(names)], strict=True):
        counts["slices"][name] = int(number)
        counts[f"hu/{name}"] = _histogram(prepared.labelled_hu[labelled == organs[name].label])
    return counts


def add(total: dict, counts: dict) -> None:
    """Adds `counts` to `total`, in place. The order of additions does not matter."""
    for name, by_value in counts.items():
        sums = total.setdefault(name, {})
        for value, number in by_value.items():
            sums[value] = sums.get(value, 0) + number


def total(many):
    """The sum of several counts; order and grouping do not matter.

    It is sorted, so that the JSON file does not depend on them either.
    """
    sums = {}
    for counts in many:
        add(sums, counts)
    return {name: dict(sorted(sums[name].items())) for name in sorted(sums)}


def _histogram(hu: np.ndarray) -> dict[str, int]:
    """Lower edge of each bin that is not empty -> number of values; HU_BIN wide, -1024 to 4096."""
    # Exact, and far faster than floor_divide, because the bin is a power of two.
    bins = np.floor(np.clip(hu, -1024, 4095) / HU_BIN).astype(np.int64) + 1024 // HU_BIN
    numbers = np.bincount(bins)
    return {str(int(n) * HU_BIN - 1024): int(numbers[n]) for n in np.flatnonzero(numbers)}


def summary(counts: dict) -> Statistics:
    """Statistics for the manifest: slices per organ, HU percentiles of organs, spacings in mm.

    A percentile is the lower edge of the bin that holds it.
    """
    percentiles = {
        name.removeprefix("hu/"): _percentiles(by_value, map(str, PERCENTILES), PERCENTILES)
        for name, by_value in counts.items()
        if name.startswith("hu/") and by_value  # empty where an organ lies outside every box
    }
    spacings = {
        name: _percentiles(counts[name], ("min", "median", "max"), (0, 50, 100))
        for name in ("spacing_in_plane_mm", "spacing_between_slices_mm")
        if name in counts
    }
    return Statistics(counts.get("slices", {}), percentiles, **spacings)


def _percentiles(counts: dict, names, percents) -> dict[str, float]:
    numbers = list(counts.values())
    picked = np.percentile([*map(float, counts)], percents, method="inverted_cdf", weights=numbers)
    return dict(zip(names, picked.tolist(), strict=True))
