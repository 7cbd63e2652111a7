"""Tables for the terminal: plain text, columns aligned."""

from segthor.organs import SEGTHOR, Organs
from serving.scoring import references
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


def aligned(header, rows) -> str:
    """Rows under a header: the first column to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        first, *rest = zip(row, widths, strict=True)
        lines.append("  ".join([first[0].ljust(first[1]), *(c.rjust(w) for c, w in rest)]).rstrip())
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def patients(scored: list[PatientScores], organs: Organs) -> str:
    """Dice of each patient's organs, and their mean."""
    names = [name for name in organs.names if any(name in p.organs for p in scored)]
    rows = []
    for patient in scored:
        cells = [patient.organs[n].dice if n in patient.organs else None for n in names]
        rows.append((patient.patient, *map(number, cells), number(mean(cells))))
    return aligned(("Dice", *names, "mean"), rows)


def organ_means(scored: list[PatientScores], organs: Organs) -> str:
    """Each score's mean over patients, one row per organ; distances in mm."""
    summaries = summarise(scored, organs)
    rows = [
        (name, *(number(scores[key].mean, form) for _, key, form in _COLUMNS))
        for name, scores in summaries.items()
    ]
    means = [
        number(mean(scores[key].mean for scores in summaries.values()), form)
        for _, key, form in _COLUMNS
    ]
    text = aligned(("mean, mm", *(c[0] for c in _COLUMNS)), [*rows, ("all organs", *means)])
    missed = sum(scores["hausdorff_mm"].left_out for scores in summaries.values())
    if missed:
        text += f"\nLeft out of the mean distances: {missed} organs that only one side holds."
    return text


def to_mend(scored: list[PatientScores], organs: Organs) -> str:
    """Added path length and slices to touch, of a patient on average and of all together."""
    rows = []
    for name, scores in summarise(scored, organs).items():
        path, slices = scores["added_path_mm"], scores["slices_to_touch"]
        cells = [(path.mean, "{:.0f}"), (path.median, "{:.0f}"), (slices.mean, "{:.1f}")]
        total = sum(p.organs[name].slices_to_touch for p in scored if name in p.organs)
        tolerance = f"{organs[name].tolerance_mm:g}"
        rows.append((name, tolerance, *(number(*cell) for cell in cells), total))
    header = ("to mend", "tolerance mm", "added path mm", "median", "slices", "of all patients")
    return aligned(header, rows)


def intervals(scored: list[PatientScores], organs: Organs) -> str:
    """Dice over patients: mean with its 95 % interval, median, lowest."""
    rows = []
    for name, scores in summarise(scored, organs).items():
        dice = scores["dice"]
        lowest = min(p.organs[name].dice for p in scored if name in p.organs)
        interval = f"{number(dice.low)} to {number(dice.high)}"
        rows.append(
            (name, dice.count, number(dice.mean), interval, number(dice.median), number(lowest))
        )
    return aligned(("Dice", "patients", "mean", "95 % interval", "median", "lowest"), rows)


def reference_rows() -> str:
    """What others reached on SegTHOR's patients, marked as such."""
    rows = [
        (f"{system} ({patients})", *map(number, (*dice, overall)))
        for system, patients, dice, overall in references.DICE
    ]
    title = "For orientation, Dice on SEGTHOR'S OWN patients, which these are not unless you say so"
    return f"{title}:\n" + aligned(("SegTHOR", *SEGTHOR.names, "mean"), rows)


def comparison(rows: list[dict]) -> str:
    """This run against another, as `serving.scoring.comparison.compare` gives it."""
    lines = [
        (
            f"{row['organ']}, {row['score']}",
            row["count"],
            number(row["mean"]),
            number(row["other_mean"]),
            number(row["mean_difference"], "{:+.3f}"),
            f"{number(row['low'], '{:+.3f}')} to {number(row['high'], '{:+.3f}')}",
            number(row["p_value"]),
        )
        for row in rows
    ]
    header = ("this run, other run", "patients", "this", "other", "difference", "95 %", "p")
    test = "p: Wilcoxon's signed-rank test, two-sided, patient by patient."
    return f"{aligned(header, lines)}\n{test}"


def some(names, most: int = 10) -> str:
    """The names with commas between, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def number(value, form="{:.3f}") -> str:
    """'-' where there is none."""
    return "-" if value is None else form.format(value)
