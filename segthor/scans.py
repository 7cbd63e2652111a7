"""The one door through which a scan or a label map is read."""

from dataclasses import dataclass

import numpy as np

from segthor import audit, nifti
from segthor.errors import InputError
from segthor.nifti import Grid, Scan
from segthor.organs import SEGTHOR, Organs


@dataclass(frozen=True)
class LabelMap:
    """The organs' labels in memory: `array` is uint8 [X, Y, Z] in the file's order.

    warnings: what the reader had to make of the file, in words for people.
    """

    array: np.ndarray
    grid: Grid
    warnings: tuple[str, ...] = ()


def read(path: str, digest=None) -> Scan:
    """A scan in HU; digest: a hashlib object, fed with the file's bytes as they are read.

    Raises:
      InputError: a file that cannot be read as one volume; of the kind `segthor.nifti.NiftiError`.
    """
    return nifti.read(path, digest)


def read_grid(path: str) -> Grid:
    """Where a file's voxels lie; raises InputError as `read` does."""
    return nifti.read_grid(path)


def read_labels(
    path: str,
    like: tuple[str, Grid] | None = None,
    label_values=(),
    most_bytes: int | None = None,
    organs: Organs = SEGTHOR,
) -> LabelMap:
    """A label map in the labels of a table of organs.

    like: path and grid of the scan that it must lie on. label_values: (organ, value in the file),
    where they are not the table's. most_bytes: as in `segthor.nifti.read`.

    Raises:
      InputError: a file that cannot be read, that lies on another grid, or that holds anything but
        the organs' labels.
    """
    stored = nifti.read(path, most_bytes=most_bytes)
    if like is not None:
        for finding in audit.pair_findings(like[1], stored.grid):
            raise InputError(f"{path} against {like[0]}: {finding.message}")
    labels, findings = audit.to_labels(stored.array, label_values, organs)
    if labels is None:
        raise InputError(f"{path}: {findings[-1].message}")
    warnings = tuple(f"{path}: {finding.message}" for finding in findings)
    return LabelMap(labels, stored.grid, warnings)
