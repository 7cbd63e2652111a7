"""Tables for the terminal, as plain text with aligned columns."""

from segthor.organs import SEGTHOR, Organs
from serving.scoring.evaluation import PatientScores, mean, summarise

_COLUMNS = (
    ("Dice", "dice", "{:.3f}"),
    ("Hausdorff", "hausdorff_mm", "{:.1f}"),
    ("HD95", "hausdorff95_mm", "{:.1f}"),
    ("average HD", "average_hausdorff_mm", "{:.2f}"),
    ("surface", "mean_surface_distance_mm", "{:.2f}"),
    ("sDice 1 mm", "surface_dice_1mm", "{:.3f}"),
    ("2 mm", "surface_dice_2mm", "{:.3f}"),
    ("3 mm", "surface_dice_3mm", "{:.3f}"),
    ("volume diff. cm3", "difference_cm3", "{:+.1f}"),
)

# Dice on the SegTHOR challenge's own patients, which is not a comparison: system, set of patients,
# Dice of esophagus, heart, trachea and aorta, and their published mean.
_PUBLISHED_DICE = (
    ("the original system, 22 March 2019", "test", (0.8513, 0.9457, 0.9083, 0.9175), 0.906),
    ("the original system, 17 March 2019", "test", (0.8452, 0.9328, 0.9039, 0.9115), 0.898),
    ("challenge winner, VB-Nets (3D)", "test", (0.86, 0.95, 0.92, 0.94), 0.918),
    ("Lachinov (3D)", "test", (0.8646, 0.9423, 0.9172, 0.9369), 0.915),
    ("Lachinov (3D), 5-fold", "train", (0.825, 0.948, 0.901, 0.931), 0.901),
    ("course baseline, 2D ENet", "8 of train", (0.524, 0.906, 0.737, 0.796), 0.741),
)


def align(header, rows) -> str:
    """Formats rows under a header; the first column is aligned left, the others right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        first, *rest = zip(row, widths, strict=True)
        lines.append("  ".join([first[0].ljust(first[1]), *(c.rjust(w) for c, w in rest)]).rstrip())
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def patients(scored: list[PatientScores], organs: Organs) -> str:
    """Formats the Dice of each patient's organs, and their mean."""
    names = [name for name in organs.names if any(name in p.organs for p in scored)]
    rows = []
    for patient in scored:
        cells = [patient.organs[n].dice if n in patient.organs else None for n in names]
        rows.append((patient.patient, *map(format_number, cells), format_number(mean(cells))))
    return align(("Dice", *names, "mean"), rows)


def organ_means(scored: list[PatientScores], organs: Organs) -> str:
    """Formats the mean of each score over patients, one row per organ; distances in mm."""
    summaries = summarise(scored, organs)
    rows = [
        (name, *(format_number(scores[key].mean, form) for _, key, form in _COLUMNS))
        for name, scores in summaries.items()
    ]
    means = [
        format_number(mean(scores[key].mean for scores in summaries.values()), form)
        for _, key, form in _COLUMNS
    ]
    text = align(("mean, mm", *(c[0] for c in _COLUMNS)), [*rows, ("all organs", *means)])
    missed = sum(scores["hausdorff_mm"].left_out for scores in summaries.values())
    if missed:
        text += (
            f"\nLeft out of mean distances: {missed} organs found in only one of the label maps."
        )
    return text


def to_mend(scored: list[PatientScores], organs: Organs) -> str:
    """Formats added path length and slices to touch: per patient, and slices of all patients."""
    rows = []
    for name, scores in summarise(scored, organs).items():
        path, slices = scores["added_path_mm"], scores["slices_to_touch"]
        cells = [(path.mean, "{:.0f}"), (path.median, "{:.0f}"), (slices.mean, "{:.1f}")]
        total = sum(p.organs[name].slices_to_touch for p in scored if name in p.organs)
        tolerance = f"{organs[name].tolerance_mm:g}"
        rows.append((name, tolerance, *(format_number(*cell) for cell in cells), total))
    header = ("to mend", "tolerance mm", "added path mm", "median", "slices", "of all patients")
    return align(header, rows)


def intervals(scored: list[PatientScores], organs: Organs) -> str:
    """Formats the Dice over patients: mean with its 95 % interval, median, lowest."""
    rows = []
    for name, scores in summarise(scored, organs).items():
        dice = scores["dice"]
        lowest = min(p.organs[name].dice for p in scored if name in p.organs)
        interval = f"{format_number(dice.low)} to {format_number(dice.high)}"
        cells = [format_number(value) for value in (dice.mean, dice.median, lowest)]
        rows.append((name, dice.count, cells[0], interval, *cells[1:]))
    return align(("Dice", "patients", "mean", "95 % interval", "median", "lowest"), rows)


def reference_rows() -> str:
    """Formats published Dice on the patients of the SegTHOR challenge, for orientation."""
    rows = [
        (f"{system} ({patients})", *map(format_number, (*dice, overall)))
        for system, patients, dice, overall in _PUBLISHED_DICE
    ]
    title = "For orientation, Dice on SEGTHOR'S OWN patients, which these are not unless you say so"
    return f"{title}:\n" + align(("SegTHOR", *SEGTHOR.names, "mean"), rows)


def comparison(rows: list[dict]) -> str:
    """Formats the rows of `serving.scoring.comparison.compare`."""
    lines = [
        (
            f"{row['organ']}, {row['score']}",
            row["count"],
            format_number(row["mean"]),
            format_number(row["other_mean"]),
            format_number(row["mean_difference"], "{:+.3f}"),
            f"{format_number(row['low'], '{:+.3f}')} to {format_number(row['high'], '{:+.3f}')}",
            format_number(row["p_value"]),
        )
        for row in rows
    ]
    header = ("this run, other run", "patients", "this", "other", "difference", "95 %", "p")
    test = "p: Wilcoxon's signed-rank test, two-sided, patient by patient."
    return f"{align(header, lines)}\n{test}"


def shorten_list(names, most: int = 10) -> str:
    """Joins the first names with commas, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def format_number(value, form="{:.3f}") -> str:
    """Formats a number; None as '-'."""
    return "-" if value is None else form.format(value)
