"""The page of `serving.follow`, one HTML file without a script."""

import html

from segthor import files, outputs
from serving.scoring.follow_up import FEWEST, Group, Row

MOST_ROWS = 200  # rows of single organs, those with the lowest Dice
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 72em; padding: 0 1em;
  background: #18181b; color: #e4e4e7 }
h1 { font-size: 1.4em } h2 { font-size: 1.1em; margin-top: 2em }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
td, th { border-top: 1px solid #3f3f46; padding: .3em .6em; text-align: right }
td:first-child, th:first-child { text-align: left }
.alarm { color: #f87171; font-weight: 600 }
"""
# Title of a column, field of `Group` or `Row`, and format.
_PATIENT, _ORGAN, _MONTH = ((name, name, "{}") for name in ("patient", "organ", "month"))
_MEDIANS = (
    ("approved", "approved", "{}"),
    ("changed", "changed", "{}"),
    ("slices changed", "slices_changed", "{:.0f}"),
    ("added path mm", "added_path_mm", "{:.0f}"),
    ("surface Dice 3 mm", "surface_dice_3mm", "{:.3f}"),
    ("draft - approved cm3", "difference_cm3", "{:+.1f}"),
    ("Dice", "dice", "{:.3f}"),
    ("expected", "expected_dice", "{:.3f}"),
    ("bound", "bound", "{:.3f}"),
    ("marked by review", "marked", "{}"),
)
_SCORES = (
    ("slices changed", "slices_changed", "{}"),
    ("added path mm", "added_path_mm", "{:.0f}"),
    ("Dice", "dice", "{:.3f}"),
    ("expected", "expected_dice", "{:.3f}"),
    ("at least", "lower_dice", "{:.3f}"),
    ("draft cm3", "draft_cm3", "{:.1f}"),
    ("approved cm3", "approved_cm3", "{:.1f}"),
    ("marked by review", "review", "{}"),
)


def write(
    path: str, overall: list[Group], months: list[Group], rows: list[Row], conclusion: str
) -> None:
    """Writes the page; conclusion: One line."""
    alarm = any(group.alarm for group in months)
    changed = sorted((row for row in rows if row.changed), key=lambda row: row.dice)
    parts = [
        f'<p class="{"alarm" if alarm else ""}">{html.escape(conclusion)}</p>',
        "<p>Medians are over the changed organs. Unchanged drafts may be right, or may not have "
        "been checked. bound: the median of the review's lower bounds; a month with at least "
        f"{FEWEST} changed organs and a median Dice below it raises an alarm.</p>",
        "<h2>Each organ</h2>",
        _table((_ORGAN, *_MEDIANS), overall, lambda group: group.alarm),
        "<h2>By month</h2>",
        _table((_ORGAN, _MONTH, *_MEDIANS), months, lambda group: group.alarm),
        f"<h2>Changed organs, lowest Dice first ({min(len(changed), MOST_ROWS)} of "
        f"{len(changed)})</h2>",
        _table((_PATIENT, _ORGAN, _MONTH, *_SCORES), changed[:MOST_ROWS], _is_worse),
    ]
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="generator" content="{outputs.SOFTWARE}">\n<title>Follow-up</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>Drafts and approved contours</h1>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )
    with files.atomic_write(path) as stream:
        stream.write(page.encode(errors="backslashreplace"))


def _is_worse(row: Row) -> bool:
    """Whether the Dice is below the lower bound of the review."""
    return row.lower_dice is not None and row.dice < row.lower_dice


def _table(columns, rows: list[Group] | list[Row], is_marked) -> str:
    """Formats a table; is_marked: Function of a row, whether to mark it."""
    lines = [f"<tr>{''.join(f'<th>{html.escape(title)}</th>' for title, _, _ in columns)}</tr>"]
    for row in rows:
        cells = (_format(getattr(row, name), form) for _, name, form in columns)
        inner = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr class="alarm">{inner}</tr>' if is_marked(row) else f"<tr>{inner}</tr>")
    return f"<table>\n{chr(10).join(lines)}\n</table>"


def _format(value, form: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not known" if value == "" else "" if value is None else form.format(value)
