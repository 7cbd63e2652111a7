"""A stack of DICOM images to a `segthor.volume.Volume`, and from its order of axes back."""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pydicom

from segthor import files, memory
from segthor.dicom import DicomError, elements, pixels
from segthor.findings import Finding
from segthor.volume import Grid, Volume

_FILES_AHEAD = 8


@dataclass(frozen=True)
class Instance:
    """One image. frame: its number within an enhanced file, from 0; None in a file of one image.

    position_mm: LPS, centre of the first pixel.
    """

    path: str
    frame: int | None
    sop_class_uid: str
    sop_instance_uid: str
    position_mm: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Stack:
    """Images that are the slices of one volume; array index k along Z is instance k.

    shape: (X, Y, Z). affine: [4, 4] float64, voxel index to RAS+ mm, from the first position and
    the mean step; a tilted gantry is kept as shear. positions_mm: [Z, 3], LPS. orientation: LPS
    unit vectors along a row (X) and down a column (Y). pixel_spacing_mm: between rows, between
    columns. findings: (code, message) of what deserves a warning. duplicates: (k, instance) of
    images at the place of instance k, which `read_stack` holds to be the same image.
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

    @property
    def grid(self) -> Grid:
        """Where the voxels lie, in float32 as NIfTI holds it: one scan is the same in both."""
        return Grid(self.shape, self.affine.astype(np.float32).astype(np.float64))

    def to_zyx(self, planes: np.ndarray) -> np.ndarray:
        """[slice, row, column] of the stack as canonical [Z, Y, X]; a view."""
        return self.grid.to_zyx(planes.T)

    def to_planes(self, zyx: np.ndarray) -> np.ndarray:
        """Canonical [Z, Y, X] as [slice, row, column] of the stack; a view."""
        return self.grid.to_file(zyx).T

    @cached_property
    def header(self) -> pydicom.Dataset:
        """The first instance's data set without pixel data, read when it is first asked for."""
        path = self.instances[0].path
        with files.open_read(path) as stream:
            return elements.open_dataset(stream, path)

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file that `read_stack` reads, each once, in the order of reading."""
        return tuple(_by_path(self))


def read_stack(stack: Stack, digest=None, most_bytes: int | None = None) -> Volume:
    """Reads all images of a stack, each file once.

    HU are integers (int16 where they fit) where slopes and intercepts are
    integers, otherwise float32. What stands for padding is left as it is.

    Args:
      stack: As `segthor.dicom.stacks` makes them.
      digest: A hashlib object, fed with the files' bytes, in the order of `stack.paths`.
      most_bytes: How much memory the scan may fill; by default `segthor.memory.scan_limit`.

    Raises:
      DicomError: 'file_missing', 'file_not_dicom', 'file_damaged', 'file_truncated',
        'file_changed', 'file_too_large', 'dicom_syntax', 'series_no_rescale', and
        'series_several_volumes' where two images at one place differ.
    """
    size, most = int(np.prod(stack.shape, dtype=object)) * 2, most_bytes or memory.scan_limit()
    if size > most:
        message = (
            f"{stack.instances[0].path}: the series needs {size / 1e9:.3g} GB of memory, found "
            f"{most / 1e9:.3g} GB for a scan"
        )
        raise DicomError("file_too_large", message)
    planes_read, surplus = _Planes(stack.shape), 0
    places = _by_path(stack)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        tasks = ((path, placed, stack.shape) for path, placed in places.items())
        for placed, content, planes, has_surplus in _ahead(pool, _read_file, tasks):
            surplus += has_surplus
            if digest:
                digest.update(content)
            for (k, instance), plane in zip(placed, planes, strict=True):
                planes_read.put(k, plane, instance.path)
    doubts = stack.findings + _surplus_findings(surplus)
    findings = tuple(Finding.of(*doubt) for doubt in doubts)
    return Volume(stack.to_zyx(planes_read.array), stack.grid, findings)


def _surplus_findings(count: int) -> tuple[tuple[str, str], ...]:
    message = f"{count} images hold more bytes of pixels than their headers say; these are left out"
    return (("series_surplus", message),) if count else ()


class _Planes:
    """The slices of a stack [slice, row, column], int16 until a slice needs more."""

    def __init__(self, shape):
        self.array = np.empty(shape[::-1], np.int16)
        self._paths = [None] * shape[2]  # whence each slice came

    def put(self, k: int, plane: np.ndarray, path: str) -> None:
        """Lays down slice k; an image that comes second must be the same as the first."""
        if self._paths[k] is None:
            self._paths[k] = path
            self._widen(plane.dtype)
            self.array[k] = plane
        elif not np.array_equal(self.array[k], plane):
            raise DicomError(
                "series_several_volumes",
                f"{path}: another image than {self._paths[k]} at the same place of the same "
                "series; expected one volume, found several; give one of them a folder of its own",
            )

    def _widen(self, dtype):
        if not np.can_cast(dtype, self.array.dtype):
            both = (
                np.dtype("f4") if dtype.kind == "f" else np.promote_types(dtype, self.array.dtype)
            )
            self.array = self.array.astype(both)


def _by_path(stack: Stack) -> dict[str, list[tuple[int, Instance]]]:
    """File to the slices that it holds."""
    places = {}
    for k, instance in [*enumerate(stack.instances), *stack.duplicates]:
        places.setdefault(instance.path, []).append((k, instance))
    return places


def _ahead(pool, function, tasks):
    """Results in the tasks' order, with only a few files in memory at a time."""
    waiting = deque()
    for task in tasks:
        waiting.append(pool.submit(function, *task))
        if len(waiting) >= _FILES_AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read_file(path: str, placed, shape):
    try:
        content = files.read_bytes(path)
    except (files.InputError, OSError) as error:
        raise DicomError("file_missing", f"{path}: cannot be read") from error
    image = pixels.Image(content, path)
    planes = []
    for _, instance in placed:
        image.check(instance.sop_instance_uid, (shape[1], shape[0]))
        planes.append(image.hu(instance.frame))
    return placed, content, planes, image.has_surplus
