"""Rows of the tables of rules and peers, with errors that name file, line and column."""

from segthor.errors import InputError


class Row:
    """The cells of one row.

    cells: Column to text.
    line: Line in the file.
    where: File and line, for messages.
    """

    def __init__(self, cells: dict[str, str], line: int, path: str):
        self.cells, self.line, self.where = cells, line, f"{path}, line {line}"

    def error(self, column: str, message: str) -> InputError:
        """Makes the error of a cell."""
        return InputError(f"{self.where}, column {column}: {message}")

    def unexpected(self, column: str, expected: str) -> InputError:
        """Makes the error of a cell that holds something else than expected."""
        return self.error(column, f"expected {expected}, found {self.text(column) or 'nothing'}")

    def text(self, column: str) -> str:
        """The text of a cell; '' for a column that the file does not have."""
        return self.cells.get(column, "")

    def names(self, column: str) -> tuple[str, ...]:
        """The names in a cell, with commas between."""
        return tuple(filter(None, (one.strip() for one in self.text(column).split(","))))

    def number(self, column: str, kind: type):
        """The number from 0 on in a cell, 0 where it is empty; kind: int or float."""
        try:
            value = kind(self.text(column) or 0)
        except ValueError:
            value = -1
        if not 0 <= value < 1e6:
            raise self.unexpected(column, "a number from 0 on")
        return value

    def yes(self, column: str) -> bool:
        """Whether a cell says yes; raises InputError for other texts than yes and no."""
        if self.text(column) not in ("", "yes", "no"):
            raise self.unexpected(column, "yes or no")
        return self.text(column) == "yes"
