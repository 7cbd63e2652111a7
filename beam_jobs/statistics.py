"""Counts per shard, added up by a Beam combiner, and what they say about the dataset."""

from collections import Counter

import apache_beam as beam
import numpy as np

PERCENTILES = (0.5, 5, 25, 50, 75, 95, 99.5)


class AddCounts(beam.CombineFn):
    """Adds mappings name -> value -> count; order and grouping do not matter."""

    def create_accumulator(self):
        """Nothing counted yet."""
        return {}

    def add_input(self, total, counts):
        """Adds the counts of one shard."""
        for name, of_name in counts.items():
            total.setdefault(name, Counter()).update(of_name)
        return total

    def merge_accumulators(self, totals):
        """Adds what several workers counted."""
        merged = {}
        for total in totals:
            self.add_input(merged, total)
        return merged

    def extract_output(self, total):
        """Plain values, sorted, for JSON."""
        return {name: dict(sorted(total[name].items())) for name in sorted(total)}


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
