"""The one writer of CSV files: UTF-8, a line per row, nothing that a spreadsheet would run."""

import csv
import io

from segthor import files

_FORMULA_STARTS = tuple("=+-@\t\r\n")


def write_table(path: str, rows: list[dict], columns=None) -> None:
    """Writes a CSV atomically: a line per row; columns: those of the first row unless given."""
    columns = list(columns or rows[0])
    with files.atomic_write(path) as stream:
        stream.write(csv_line(columns))
        for row in rows:
            stream.write(csv_line([row.get(column) for column in columns]))


def csv_line(values) -> bytes:
    """One line of CSV in UTF-8; None is an empty cell.

    Text that a spreadsheet would run as a formula gets an apostrophe in front; numbers stay.
    """
    text = io.StringIO()
    # The writer puts quotes about the marks of its own line ends alone, so \r must be one.
    csv.writer(text, lineterminator="\r\n").writerow([_no_formula(value) for value in values])
    return text.getvalue().removesuffix("\r\n").encode(errors="backslashreplace") + b"\n"


def _no_formula(value):
    if not isinstance(value, str) or not value.startswith(_FORMULA_STARTS):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
