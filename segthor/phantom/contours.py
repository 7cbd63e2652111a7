"""The organs that phantoms draw, their labels in a table, and the tables by name."""

import os

import numpy as np

from segthor import configs, organ_table
from segthor.errors import InputError
from segthor.organs import SEGTHOR, Organs

# Numbers during drawing; the final label map has the labels of the table.
ESOPHAGUS, HEART, TRACHEA, AORTA, SPINAL_CORD, LUNG_LEFT, LUNG_RIGHT = range(1, 8)
_NAMES = ("esophagus", "heart", "trachea", "aorta", "spinal_cord", "lung_left", "lung_right")
_DRAWN = {name: number for number, name in enumerate(_NAMES, 1)}


def table(name: str) -> Organs:
    """The table 'segthor' or 'thorax', or the table in a file; see `table_file`.

    Raises:
      InputError: No such table, a file without one, or organs that phantoms do not draw.
    """
    if name == "segthor":
        return SEGTHOR
    path = table_file(name)
    organs = organ_table.read(path)
    check_drawn(organs, path)
    return organs


def table_file(name: str) -> str:
    """`name` if it has a file extension, otherwise the path of configs/organs/NAME.csv.

    Raises:
      InputError: The package has no such file.
    """
    if os.path.splitext(name)[1]:
        return configs.resolve(name)
    tables = configs.folder() / "organs"
    path = tables / f"{name}.csv"
    if not path.is_file():
        raise InputError(
            f"{name!r}: expected segthor, a table of {tables} (there is no {path.name}), or a "
            "table's file, *.csv or *.json"
        )
    return str(path)


def check_drawn(organs: Organs, where: str = "organs") -> None:
    """Raises InputError for organs that phantoms do not draw; its message starts with `where`."""
    unknown = [name for name in organs.names if name not in _DRAWN]
    if unknown:
        raise InputError(
            f"{where}: phantoms have no {', '.join(unknown)}; expected some of {', '.join(_DRAWN)}"
        )


def label_values(organs: Organs) -> np.ndarray:
    """uint8 [8]: number during drawing -> label of the table, 0 for organs that it lacks."""
    values = np.zeros(1 + len(_DRAWN), np.uint8)
    for organ in organs:
        values[_DRAWN[organ.name]] = organ.label
    return values
