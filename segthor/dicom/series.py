"""Reads a stack of DICOM images as a `segthor.volume.Volume`."""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pydicom

from segthor import files, memory
from segthor.dicom import DicomError, elements, pixels
from segthor.findings import Finding
from segthor.planes import Planes
from segthor.volume import Grid, Volume

_FILES_AHEAD = 8


@dataclass(frozen=True)
class Instance:
    """One image of a stack.

    path: The file.
    frame: Number within an enhanced file, from 0; None in a file of one image.
    sop_class_uid, sop_instance_uid: UIDs of the file.
    position_mm: Centre of the first pixel, LPS.
    """

    path: str
    frame: int | None
    sop_class_uid: str
    sop_instance_uid: str
    position_mm: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Stack:
    """Images that are the slices of one volume, in order along their normal.

    instances: The images; instance k is array index k along Z.
    shape: Voxels along X (columns), Y (rows) and Z.
    affine: float64 [4, 4], voxel index to RAS+ mm, from the first position and the mean step; a
      tilted gantry gives a shear.
    positions_mm: Centres of the first pixels, LPS [Z, 3].
    orientation: LPS unit vectors along a row (X) and down a column (Y).
    pixel_spacing_mm: Distance between rows, and between columns.
    series_uid, study_uid, frame_of_reference_uid: UIDs.
    findings: (code, message) of warnings.
    duplicates: (k, instance) of images at the position of instance k; `read_stack` checks that they
      are equal.
    offsets_mm: Distance of each instance from the first one, where steps are uneven or slices are
      missing; None at even steps.
    gaps: Number of the instance before each gap, from 0.
    """

    instances: tuple[Instance, ...]
    shape: tuple[int, int, int]
    affine: np.ndarray
    positions_mm: np.ndarray
    orientation: tuple[float, ...]
    pixel_spacing_mm: tuple[float, float]
    series_uid: str
    study_uid: str
    frame_of_reference_uid: str
    findings: tuple[tuple[str, str], ...] = ()
    duplicates: tuple[tuple[int, Instance], ...] = ()
    offsets_mm: tuple[float, ...] | None = None
    gaps: tuple[int, ...] = ()

    @property
    def grid(self) -> Grid:
        """The grid, with the affine rounded to float32, so that a NIfTI copy has the same grid."""
        grid = Grid(self.shape, self.affine.astype(np.float32).astype(np.float64))
        return grid if self.offsets_mm is None else replace(grid, planes=self._planes(grid))

    def _planes(self, grid: Grid) -> Planes:
        """The uneven planes, from inferior to superior."""
        if not grid.orientation.flipped[2]:
            return Planes.from_positions(self.offsets_mm, self.gaps)
        below_gaps = [len(self.offsets_mm) - 2 - k for k in reversed(self.gaps)]
        return Planes.from_positions(np.negative(self.offsets_mm[::-1]), below_gaps)

    def to_zyx(self, planes: np.ndarray) -> np.ndarray:
        """Turns [slice, row, column] of the stack to canonical [Z, Y, X]; a view."""
        return self.grid.to_zyx(planes.T)

    def to_planes(self, zyx: np.ndarray) -> np.ndarray:
        """Turns canonical [Z, Y, X] to [slice, row, column] of the stack; a view."""
        return self.grid.to_file(zyx).T

    @cached_property
    def header(self) -> pydicom.Dataset:
        """The data set of the first instance without pixel data; read on first use."""
        return elements.read_dataset(self.instances[0].path)

    @property
    def paths(self) -> tuple[str, ...]:
        """All files of the stack, in the order in which `read_stack` reads them."""
        return tuple(_by_path(self))


def read_stack(stack: Stack, digest=None, most_bytes: int | None = None) -> Volume:
    """Reads all images of a stack, each file once.

    HU are integers (int16 if they fit) if all slopes and intercepts are integers, otherwise
    float32. Padding values are not changed.

    Args:
      digest: A hashlib object, updated with the bytes of the files in the order of `stack.paths`.
      most_bytes: Memory that the scan may fill; by default `segthor.memory.scan_limit`.

    Raises:
      DicomError: 'file_missing', 'file_changed', 'file_too_large', those of `pixels.Image`, and
        'series_several_volumes' where two images at one position differ.
    """
    _check_size(stack, most_bytes or memory.scan_limit())
    slices, num_surplus = _Slices(stack.shape), 0
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        tasks = ((path, own, stack.shape) for path, own in _by_path(stack).items())
        for own, content, planes, has_surplus in _run_ahead(pool, _read_file, tasks):
            num_surplus += has_surplus
            if digest:
                digest.update(content)
            for (k, instance), plane in zip(own, planes, strict=True):
                slices.put(k, plane, instance.path)
    findings = list(stack.findings)
    if num_surplus:
        message = f"{num_surplus} images hold more bytes of pixels than their headers say; these"
        findings.append(("series_surplus", f"{message} are left out"))
    findings = tuple(Finding.of(*finding) for finding in findings)
    return Volume(stack.to_zyx(slices.array), stack.grid, findings)


def _check_size(stack: Stack, most_bytes: int) -> None:
    size = int(np.prod(stack.shape, dtype=object)) * 2  # of int16
    if size > most_bytes:
        raise DicomError(
            "file_too_large",
            f"{stack.instances[0].path}: the series needs {size / 1e9:.3g} GB of memory, found "
            f"{most_bytes / 1e9:.3g} GB for a scan",
        )


class _Slices:
    """The slices of a stack [slice, row, column], int16 until a slice needs another dtype."""

    def __init__(self, shape):
        self.array = np.empty(shape[::-1], np.int16)
        self._paths = [None] * shape[2]  # file of each slice

    def put(self, k: int, plane: np.ndarray, path: str) -> None:
        """Stores slice k; a second image for it must be equal to the first."""
        if self._paths[k] is None:
            self._paths[k] = path
            if not np.can_cast(plane.dtype, self.array.dtype):
                wider = np.promote_types(plane.dtype, self.array.dtype)
                is_float = plane.dtype.kind == "f"
                self.array = self.array.astype(np.float32 if is_float else wider)
            self.array[k] = plane
        elif not np.array_equal(self.array[k], plane):
            raise DicomError(
                "series_several_volumes",
                f"{path}: another image than {self._paths[k]} at the same place of the same "
                "series; expected one volume, found several; give one of them a folder of its own",
            )


def _by_path(stack: Stack) -> dict[str, list[tuple[int, Instance]]]:
    """File to (k, instance) of its slices."""
    by_path = {}
    for k, instance in [*enumerate(stack.instances), *stack.duplicates]:
        by_path.setdefault(instance.path, []).append((k, instance))
    return by_path


def _run_ahead(pool, function, tasks):
    """Yields results in the order of the tasks, with a few files in memory at a time."""
    waiting = deque()
    for task in tasks:
        waiting.append(pool.submit(function, *task))
        if len(waiting) >= _FILES_AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read_file(path: str, own, shape):
    """(own, bytes of the file, slices, whether the file has surplus pixels)."""
    try:
        content = files.read_bytes(path)
    except (files.InputError, OSError) as error:
        raise DicomError("file_missing", f"{path}: cannot be read") from error
    image = pixels.Image(content, path)
    planes = []
    for _, instance in own:
        image.check(instance.sop_instance_uid, (shape[1], shape[0]))
        planes.append(image.hu(instance.frame))
    return own, content, planes, image.has_surplus
