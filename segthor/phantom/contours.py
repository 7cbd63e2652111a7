"""Which organs phantoms draw, how a table of organs numbers them, and where tables are found."""

import os

import numpy as np

from segthor import configs, organ_table
from segthor.errors import InputError
from segthor.organs import SEGTHOR, Organs

# Numbers while a phantom is drawn; those of its label map are the table's.
ESOPHAGUS, HEART, TRACHEA, AORTA, SPINAL_CORD, LUNG_LEFT, LUNG_RIGHT = range(1, 8)
_DRAWN = {
    "esophagus": ESOPHAGUS,
    "heart": HEART,
    "trachea": TRACHEA,
    "aorta": AORTA,
    "spinal_cord": SPINAL_CORD,
    "lung_left": LUNG_LEFT,
    "lung_right": LUNG_RIGHT,
}


def table(name: str) -> Organs:
    """A table by name (segthor, thorax: see `table_file`), or that of a file.

    Raises:
      InputError: no such table, a file that is none, or organs that phantoms do not draw.
    """
    if name == "segthor":
        return SEGTHOR
    path = table_file(name)
    found = organ_table.read(path)
    check_drawn(found, path)
    return found


def table_file(name: str) -> str:
    """`name` itself if it ends as a file does, otherwise the package's configs/organs/NAME.csv.

    Raises:
      InputError: the package has no such file.
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
    """Raises InputError, with `where` in front, for organs that phantoms do not draw."""
    unknown = [name for name in organs.names if name not in _DRAWN]
    if unknown:
        raise InputError(
            f"{where}: phantoms have no {', '.join(unknown)}; expected some of {', '.join(_DRAWN)}"
        )


def label_values(organs: Organs) -> np.ndarray:
    """uint8 [8]: the table's label value for each number drawn, 0 for organs that it lacks."""
    values = np.zeros(1 + len(_DRAWN), np.uint8)
    for organ in organs:
        values[_DRAWN[organ.name]] = organ.label
    return values
