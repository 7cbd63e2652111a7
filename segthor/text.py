"""How values are written as text: JSON that people can compare, CSV that no spreadsheet runs."""

import csv
import dataclasses
import io
import json
import sys

_FORMULA_STARTS = tuple("=+-@\t\r\n")


def share_keys(pairs) -> dict:
    """Keys are one string in all files, so that the rows of many small files fit into memory."""
    return {sys.intern(key): value for key, value in pairs}


def _dumps(value) -> str:
    return json.dumps(value, default=_fields)


def _fields(row) -> dict:
    """A dataclass's fields as they are; `asdict` and `vars` would leave copies of many rows."""
    return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}


def json_lines(value):
    """Lines a person can read and compare, each made by the fast encoder."""
    if not isinstance(value, dict):
        yield _dumps(value) + "\n"
        return
    separator = "{\n"
    for key, item in value.items():
        yield f"{separator}{json.dumps(str(key))}: "
        separator = ",\n"
        if isinstance(item, list | tuple) and item:
            yield "[\n "
            for number, row in enumerate(item):
                yield (",\n " if number else "") + _dumps(row)
            yield "\n]"
        else:
            yield _dumps(item)
    yield "\n}\n" if value else "{}\n"


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
