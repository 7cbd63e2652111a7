"""Tables for the terminal: plain text, columns aligned."""

from segthor import organs
from serving.scoring import Patient, summarise

_COLUMNS = (
    ("Dice", "dice", "{:.3f}"),
    ("Hausdorff mm", "hausdorff_mm", "{:.1f}"),
    ("HD95 mm", "hausdorff95_mm", "{:.1f}"),
    ("average HD mm", "average_hausdorff_mm", "{:.2f}"),
    ("surface mm", "mean_surface_distance_mm", "{:.2f}"),
    ("surface Dice 2 mm", "surface_dice_2mm", "{:.3f}"),
)


def table(header, rows) -> str:
    """First column to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        first, *rest = zip(row, widths, strict=True)
        lines.append("  ".join([first[0].ljust(first[1]), *(c.rjust(w) for c, w in rest)]).rstrip())
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def patients(scored: list[Patient]) -> str:
    """Dice of each patient's organs, and their mean."""
    names = [name for name in organs.NAMES if any(name in p.organs for p in scored)]
    rows = []
    for patient in scored:
        dice = [patient.organs[name].dice for name in names if name in patient.organs]
        cells = [
            number(patient.organs[name].dice) if name in patient.organs else "-" for name in names
        ]
        rows.append((patient.patient, *cells, number(sum(dice) / len(dice) if dice else None)))
    return table(("Dice", *names, "mean"), rows)


def organ_means(scored: list[Patient]) -> str:
    """Each score's mean over patients, one row per organ."""
    summaries = summarise(scored)
    rows = [
        (name, *(number(scores[key].mean, form) for _, key, form in _COLUMNS))
        for name, scores in summaries.items()
    ]
    means = []
    for _, key, form in _COLUMNS:
        known = [s[key].mean for s in summaries.values() if s[key].mean is not None]
        means.append(number(sum(known) / len(known) if known else None, form))
    left_out = sum(scores["hausdorff_mm"].left_out for scores in summaries.values())
    note = f"\n{left_out} infinite distances (an organ missed) are left out." if left_out else ""
    return table(("Mean", *(c[0] for c in _COLUMNS)), [*rows, ("all organs", *means)]) + note


def number(value, form="{:.3f}") -> str:
    """'-' where there is none."""
    return "-" if value is None else form.format(value)
