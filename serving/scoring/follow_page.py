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
_COLUMNS = (
    ("approved", "{}"),
    ("changed", "{}"),
    ("slices_changed", "{:.0f}"),
    ("added_path_mm", "{:.0f}"),
    ("surface_dice_3mm", "{:.3f}"),
    ("difference_cm3", "{:+.1f}"),
    ("dice", "{:.3f}"),
    ("expected_dice", "{:.3f}"),
    ("bound", "{:.3f}"),
    ("marked", "{}"),
)
_TITLES = (
    *("approved", "changed", "slices changed", "added path mm", "surface Dice 3 mm"),
    *("draft - approved cm3", "Dice", "expected", "bound", "marked by review"),
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
        _groups(overall, with_month=False),
        "<h2>By month</h2>",
        _groups(months, with_month=True),
        f"<h2>Changed organs, lowest Dice first ({min(len(changed), MOST_ROWS)} of "
        f"{len(changed)})</h2>",
        _rows(changed[:MOST_ROWS]),
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


def _groups(groups: list[Group], with_month: bool) -> str:
    lines = []
    for group in groups:
        cells = [_cell(getattr(group, name), form) for name, form in _COLUMNS]
        cells = [group.organ, *([group.month or "not known"] if with_month else []), *cells]
        lines.append((cells, group.alarm))
    return _table(("organ", *(["month"] if with_month else []), *_TITLES), lines)


def _rows(rows: list[Row]) -> str:
    scores = ("slices changed", "added path mm", "Dice", "expected", "at least")
    header = ("patient", "organ", "month", *scores, "draft cm3", "approved cm3", "marked by review")
    lines = [
        (
            (
                row.patient,
                row.organ,
                row.month,
                row.slices_changed,
                _cell(row.added_path_mm, "{:.0f}"),
                _cell(row.dice, "{:.3f}"),
                _cell(row.expected_dice, "{:.3f}"),
                _cell(row.lower_dice, "{:.3f}"),
                _cell(row.draft_cm3, "{:.1f}"),
                _cell(row.approved_cm3, "{:.1f}"),
                "yes" if row.review else "no",
            ),
            row.lower_dice is not None and row.dice < row.lower_dice,
        )
        for row in rows
    ]
    return _table(header, lines)


def _cell(value, form: str) -> str:
    return "" if value is None else form.format(value)


def _table(header, lines) -> str:
    """Formats a table; lines: Pairs of cells and whether to mark the row."""
    rows = [f"<tr>{''.join(f'<th>{html.escape(name)}</th>' for name in header)}</tr>"]
    for cells, marked in lines:
        inner = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells)
        rows.append(f'<tr class="alarm">{inner}</tr>' if marked else f"<tr>{inner}</tr>")
    return f"<table>\n{chr(10).join(rows)}\n</table>"
