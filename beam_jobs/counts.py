"""Counts that add up over patients and shards, and what they say.

Counts are name -> value -> number: 'slices' by organ, 'hu/ORGAN' by bin, spacings by mm.
"""

import numpy as np

from beam_jobs.examine import Examined
from segthor.boxes import nonzero_box
from segthor.organs import Organs
from segthor.records import present_in

HU_BIN = 4
PERCENTILES = (0.5, 5, 25, 50, 75, 95, 99.5)


def of_patient(patient: Examined, organs: Organs) -> dict[str, dict[str, int]]:
    """What there is to count in one prepared patient."""
    prepared = patient.prepared
    z_mm, y_mm, x_mm = prepared.placement.spacing_zyx_mm
    counts = {
        "spacing_in_plane_mm": {str(round(max(y_mm, x_mm), 3)): 1},
        "spacing_between_slices_mm": {str(round(z_mm, 3)): 1},
        "slices": {"all": len(prepared.labels)},
    }
    held = np.array([present_in(plane, organs) for plane in prepared.labels]).sum(0)
    inner = prepared.labels[nonzero_box(prepared.labels)]
    labelled = inner[inner > 0]
    names = patient.source.organs
    for name, number in zip(names, held[organs.places(names)], strict=True):
        counts["slices"][name] = int(number)
        counts[f"hu/{name}"] = _histogram(prepared.labelled_hu[labelled == organs[name].label])
    return counts


def add(total: dict, counts: dict) -> None:
    """Adds `counts` to `total`, in place; order does not matter."""
    for name, of_name in counts.items():
        held = total.setdefault(name, {})
        for value, number in of_name.items():
            held[value] = held.get(value, 0) + number


def _histogram(hu: np.ndarray) -> dict[str, int]:
    """Lowest HU of each bin to how many values lie in it; bins of HU_BIN, from -1024 to 4096."""
    # Exact, and far faster than floor_divide: the bin is a power of two.
    bins = np.floor(np.clip(hu, -1024, 4095) / HU_BIN).astype(np.int64) + 1024 // HU_BIN
    numbers = np.bincount(bins)
    return {str(int(n) * HU_BIN - 1024): int(numbers[n]) for n in np.flatnonzero(numbers)}


def summary(counts: dict) -> dict:
    """The manifest's statistics: slices per organ, HU percentiles inside organs, spacings in mm.

    A percentile is the lower edge of the bin that holds it.
    """
    percentiles = {
        name.removeprefix("hu/"): dict(
            zip(map(str, PERCENTILES), _percentiles(of_name, PERCENTILES), strict=True)
        )
        for name, of_name in counts.items()
        if name.startswith("hu/")
    }
    spacings = {
        name: dict(
            zip(("min", "median", "max"), _percentiles(counts[name], (0, 50, 100)), strict=True)
        )
        for name in ("spacing_in_plane_mm", "spacing_between_slices_mm")
        if name in counts
    }
    return {"slices": counts.get("slices", {}), "hu_percentiles": percentiles, **spacings}


def _percentiles(counts: dict, percents) -> list[float]:
    values = np.array(sorted(map(float, counts)))
    numbers = {float(value): number for value, number in counts.items()}
    reached = np.cumsum([numbers[value] for value in values])
    ranks = np.maximum(1, np.ceil(np.array(percents) / 100 * reached[-1]))
    return [float(values[np.searchsorted(reached, rank)]) for rank in ranks]
