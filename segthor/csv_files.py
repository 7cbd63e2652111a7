"""The one reader and writer of CSV files: UTF-8, a line per row, no formula for a spreadsheet."""

import csv
import io

from segthor import files
from segthor.errors import InputError

_FORMULA_STARTS = tuple("=+-@\t\r\n")


def read_lines(path: str) -> list[tuple[int, list[str]]]:
    """(number, values without blanks around them) of each row that is not empty, the header first.

    Raises InputError where the file cannot be read or is no CSV in UTF-8.
    """
    try:
        text = files.read_bytes(path).decode("utf-8-sig")
        if "\0" in text:
            raise csv.Error("a zero byte")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV in UTF-8 ({error})") from error
    stripped = [(number, [cell.strip() for cell in row]) for number, row in enumerate(rows, 1)]
    return [(number, row) for number, row in stripped if any(row)]


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
