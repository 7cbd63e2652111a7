"""Arrays [X, Y, Z] in the order of a file, as tests make and compare them."""

from typing import NamedTuple

import numpy as np

from segthor import nifti
from segthor.organs import SEGTHOR
from segthor.volume import Grid, LabelMap, Volume


class Stored(NamedTuple):
    """What lies in a file. array: [X, Y, Z] in the file's order of axes."""

    array: np.ndarray
    grid: Grid


def of(made: Volume | LabelMap) -> Stored:
    """A volume or label map as a file in its order of axes holds it."""
    return Stored(made.grid.to_file(made.zyx), made.grid)


def read(path, *args, **kwargs) -> Stored:
    """What `nifti.read` reads."""
    return of(nifti.read(str(path), *args, **kwargs))


def write(path, array, grid: Grid) -> None:
    """Writes an array in the order of axes of `grid`."""
    nifti.write(str(path), grid.to_zyx(np.asarray(array)), grid)


def volume(array, affine) -> Volume:
    """A scan of an array in the order of axes of `affine`."""
    grid = Grid(array.shape, affine)
    return Volume(grid.to_zyx(array), grid)


def label_map(array, affine, organs=SEGTHOR, contoured=None) -> LabelMap:
    """A label map of an array in the order of axes of `affine`."""
    grid = Grid(array.shape, affine)
    return LabelMap(grid.to_zyx(array), grid, organs, contoured)


def on_grid(zyx, spacing_mm, organs=SEGTHOR, planes=None) -> LabelMap:
    """A label map [Z, Y, X] with this spacing along z, y and x."""
    z_mm, y_mm, x_mm = spacing_mm
    grid = Grid(zyx.shape[::-1], np.diag([-x_mm, -y_mm, z_mm, 1.0]), planes=planes)
    return LabelMap(zyx, grid, organs)
