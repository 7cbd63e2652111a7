"""Checks that the figures of a manifest can be used in computations."""

from dataclasses import dataclass, field

from segthor import fields
from segthor.errors import InputError
from segthor.figures import OrganFigures

_MAX_NUMBER = 1e9  # larger figures in mm, HU or cm3 are damaged


@dataclass(frozen=True)
class Statistics:
    """The statistics of a dataset; each field may be missing.

    slices: Organ, or 'all', to number of slices.
    hu_percentiles: Organ to percentile ('5', '50', '95') to HU.
    spacing_in_plane_mm: 'min', 'median' and 'max' over the patients.
    spacing_between_slices_mm: As spacing_in_plane_mm.
    """

    slices: dict[str, int] = field(default_factory=dict)
    hu_percentiles: dict[str, dict[str, float]] = field(default_factory=dict)
    spacing_in_plane_mm: dict[str, float] = field(default_factory=dict)
    spacing_between_slices_mm: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        for organ, percentiles in self.hu_percentiles.items():
            if not {"5", "50", "95"} <= percentiles.keys():
                raise InputError(f"hu_percentiles of {organ}: expected 5, 50 and 95 %")


def find_odd_figures(statistics: dict, patients):
    """Yields a line for each figure that is missing, of another type, or implausibly large.

    Args:
      statistics: The statistics of the manifest.
      patients: The rows of the manifest (`manifest.Built`).
    """
    try:
        fields.from_json(Statistics, statistics, "statistics")
    except InputError as error:
        yield str(error)
    for row in patients:
        where = f"patient {row.patient!r}"
        try:
            for name, figures in row.audit.organs.items():
                fields.from_json(OrganFigures, figures, f"{where}: {name}")
        except InputError as error:
            yield str(error)
        figures = row.level_hu, row.grey_shares, vars(row.placement), row.audit.organs
        for number in _numbers(figures):
            if abs(number) > _MAX_NUMBER:
                yield f"{where}: expected at most {_MAX_NUMBER:g}, found {number:g}"
    if len({len(row.grey_shares) for row in patients if row.grey_shares}) > 1:
        yield "grey_shares: expected equally many for each patient"


def _numbers(value):
    """Yields every number in nested lists and objects."""
    if isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _numbers(inner)
    elif isinstance(value, int | float):
        yield value
