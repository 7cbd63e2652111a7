"""Reads and writes CSV files in UTF-8. No cell that is written is a formula in a spreadsheet."""

import csv
import io

from segthor import files
from segthor.errors import InputError

# Spreadsheets treat the full-width signs (U+FF1D, FF0B, FF0D, FF20) like the plain ones.
_FORMULA_STARTS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


def read_table(
    path: str, columns: tuple[str, ...] = (), needed: tuple[str, ...] = (), comment: str = ""
) -> list[tuple[int, dict[str, str]]]:
    """Reads a CSV with a header. Empty rows, and empty columns without a name, are left out.

    Args:
      path: The file.
      columns: The names that are allowed, in lower case; the header is then lowered. Empty: any.
      needed: Names of columns that must be present.
      comment: Start of rows that are comments; '' for none.

    Returns:
      (line number, column's name to value) of each row.

    Raises:
      InputError: The file cannot be read, has other columns, or a row has another number of values
        than the header.
    """
    numbered = _read_lines(path, comment)
    header = _without_empty_end(numbered[0][1]) if numbered else []
    if columns:
        header = [name.lower() for name in header]
    _check_header(header, columns, needed, path)
    return [
        (line, _named_values(header, row, f"{path}, line {line}")) for line, row in numbered[1:]
    ]


def _check_header(header: list[str], columns, needed, path: str) -> None:
    names = [name for name in header if name]
    unknown = set(names) - set(columns or names)
    if not names or unknown or set(needed) - set(names) or len(set(names)) < len(names):
        expected = f"the columns {','.join(columns)}" if columns else "a line of columns"
        at_least = f" ({' and '.join(needed)} at least)" if needed else ""
        raise InputError(
            f"{path}: expected {expected}{at_least}, found {','.join(header) or 'nothing'}"
        )


def write_table(path: str, rows: list[dict], columns=None) -> None:
    """Writes a CSV atomically. columns: Their order; by default that of the first row."""
    columns = list(columns or rows[0])
    with files.atomic_write(path) as stream:
        stream.write(csv_line(columns))
        for row in rows:
            stream.write(csv_line([row.get(column) for column in columns]))


def csv_line(values) -> bytes:
    """One line of CSV in UTF-8; None becomes an empty cell.

    Text that a spreadsheet would evaluate as a formula gets an apostrophe in front.
    """
    text = io.StringIO()
    # The writer quotes only the characters of its own line end, so \r must be one of them.
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


def _read_lines(path: str, comment: str) -> list[tuple[int, list[str]]]:
    """(line number, values without surrounding blanks) of each row that is not empty."""
    try:
        text = files.read_bytes(path).decode("utf-8-sig")
        if "\0" in text:
            raise csv.Error("a zero byte")
        stream = io.StringIO(text, newline="")
        rows = list(csv.reader(stream, delimiter=_delimiter(text, comment), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV in UTF-8 ({error})") from error
    stripped = [(number, [cell.strip() for cell in row]) for number, row in enumerate(rows, 1)]
    filled = [(number, row) for number, row in stripped if any(row)]
    return [one for one in filled if not comment or not one[1][0].startswith(comment)]


def _delimiter(text: str, comment: str) -> str:
    """',', or ';' where the header has one and no comma, as Excel writes in much of Europe."""
    lines = (line for line in text.splitlines() if line.strip(" ,;\t"))
    header = next((one for one in lines if not comment or not one.startswith(comment)), "")
    return ";" if ";" in header and "," not in header else ","


def _without_empty_end(cells: list[str]) -> list[str]:
    last = max((number for number, cell in enumerate(cells, 1) if cell), default=0)
    return cells[:last]


def _named_values(header: list[str], row: list[str], where: str) -> dict[str, str]:
    """Column's name to value, for the columns with a name."""
    row = row[: len(header)] + _without_empty_end(row[len(header) :])
    if len(row) != len(header):
        raise InputError(f"{where}: expected {len(header)} values, found {len(row)}")
    for number, (name, value) in enumerate(zip(header, row, strict=True), 1):
        if value and not name:
            raise InputError(
                f"{where}: expected nothing in column {number}, which has no name in the first "
                f"line; found {value!r}"
            )
    return {name: value for name, value in zip(header, row, strict=True) if name}
