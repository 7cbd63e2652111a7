"""Checks that the figures of a manifest can be used in computations."""

_MAX_NUMBER = 1e9  # larger figures in mm, HU or cm3 are damaged


def find_odd_figures(patients):
    """Yields a line for each implausibly large figure, and for grey levels that do not compare.

    patients: The rows of the manifest (`manifest.Built`).
    """
    for row in patients:
        organs = [vars(figures) for figures in row.audit.organs.values()]
        for number in _numbers((row.level_hu, row.grey_shares, vars(row.placement), organs)):
            if abs(number) > _MAX_NUMBER:
                found = f"expected at most {_MAX_NUMBER:g}, found {number:g}"
                yield f"patient {row.patient!r}: {found}"
    if len({len(row.grey_shares) for row in patients if row.grey_shares}) > 1:
        yield "grey_shares: expected equally many for each patient"


def _numbers(value):
    """Yields every number in nested lists and objects."""
    if isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _numbers(inner)
    elif isinstance(value, int | float):
        yield value
