"""Reads and writes NIfTI: the only module that knows nibabel.

A file is decompressed by ISA-L straight into the array's own memory (its CRC is checked), and the
header is kept whole, so that what is written beside a scan lies on exactly the scan's grid.
"""

import contextlib
import io
from dataclasses import dataclass

import nibabel
import numpy as np
from isal import igzip

from segthor import files
from segthor.errors import InputError

SUFFIXES = (".nii", ".nii.gz")
_HEADER_TYPES = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
_MM_PER_UNIT = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
_READ_BYTES = 1 << 24


@dataclass(frozen=True)
class Grid:
    """Where a scan's voxels lie. `affine`: [4, 4] float64, voxel index to RAS+ mm."""

    shape: tuple[int, int, int]
    affine: np.ndarray
    header: nibabel.Nifti1Header

    @classmethod
    def from_affine(cls, shape, affine) -> "Grid":
        """A grid of our own making; units mm, sform and qform both 'scanner'."""
        header = nibabel.Nifti1Header()
        header.set_data_shape(shape)
        header.set_xyzt_units("mm", "sec")
        header.set_sform(affine, code="scanner")
        header.set_qform(affine, code="scanner", strip_shears=True)
        return cls(tuple(int(n) for n in shape), np.asarray(affine, np.float64), header)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along each array axis."""
        return tuple(float(mm) for mm in np.linalg.norm(self.affine[:3, :3], axis=0))


@dataclass(frozen=True)
class Scan:
    """A volume in memory: `array` is [X, Y, Z] in the file's order, native byte order."""

    array: np.ndarray
    grid: Grid


def stem(path: str) -> str:
    """The file's name without folder and without .nii or .nii.gz, in any case."""
    base = files.name(path)
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if base.lower().endswith(suffix):
            return base[: -len(suffix)]
    return base


def is_nifti(path: str) -> bool:
    """Whether the name ends like a NIfTI file's, in any case."""
    return path.lower().endswith(SUFFIXES)


def read(path: str) -> Scan:
    """Reads a 3D NIfTI file.

    Integers stay integers where slope and intercept are integers too; otherwise float32.

    Raises:
      InputError: no such file, not NIfTI, not 3D, truncated, or a checksum that does not match.
    """
    with _opened(path) as stream:
        header = _read_header(stream, path)
        shape = _shape_3d(header, path)
        dtype = header.get_data_dtype()
        stream.read(max(int(header["vox_offset"]) - int(header["sizeof_hdr"]), 4))
        buffer = np.empty(int(np.prod(shape)) * dtype.itemsize, np.uint8)
        filled = _fill(stream, buffer)
        stream.read(1)  # meets the end of the stream, where the CRC is checked
    if filled < buffer.size:
        raise InputError(
            f"{path}: truncated; the header promises {buffer.size} bytes of voxels, "
            f"found {filled}; copy it again"
        )
    stored = buffer.view(dtype).reshape(shape, order="F")
    return Scan(_scaled(stored, header, path), _grid(header, shape, path))


def read_grid(path: str) -> Grid:
    """Reads the header alone; raises InputError as `read` does."""
    with _opened(path) as stream:
        header = _read_header(stream, path)
    return _grid(header, _shape_3d(header, path), path)


def write(path: str, array: np.ndarray, grid: Grid) -> None:
    """Writes `array` [X, Y, Z] on `grid`, atomically; compressed where the name ends in .gz.

    Affine, form codes and units are the grid's own; data type is the array's, slope 1, intercept 0.
    The same input gives the same bytes.

    Raises:
      ValueError: the array's shape is not the grid's.
    """
    if array.shape != grid.shape:
        raise ValueError(f"array: expected shape {grid.shape}, got {array.shape}")
    header = grid.header.copy()
    header.set_data_shape(array.shape)
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    header["descrip"] = b""
    header.extensions.clear()
    header["vox_offset"] = (int(header["sizeof_hdr"]) + 4 + 15) // 16 * 16
    head = header.binaryblock
    head += bytes(int(header["vox_offset"]) - len(head))
    voxels = np.asarray(array, header.get_data_dtype()).tobytes(order="F")
    with files.atomic_write(path) as stream:
        if path.lower().endswith(".gz"):
            with igzip.IGzipFile("", "wb", compresslevel=2, fileobj=stream, mtime=0) as packed:
                packed.write(head)
                packed.write(voxels)
        else:
            stream.write(head)
            stream.write(voxels)


@contextlib.contextmanager
def _opened(path: str):
    """The file's stream, decompressed where it starts like gzip; damage ends in InputError."""
    with files.open_read(path) as raw:
        start = raw.read(2)
        raw.seek(0)
        try:
            yield igzip.IGzipFile(fileobj=raw) if start == b"\x1f\x8b" else raw
        except (EOFError, OSError, igzip.isal_zlib.error) as error:
            raise InputError(f"{path}: damaged or truncated ({error}); copy it again") from error


def _read_header(stream, path: str):
    start = stream.read(4)
    sizes = (int.from_bytes(start, order) for order in ("little", "big"))
    kind = next((_HEADER_TYPES[size] for size in sizes if size in _HEADER_TYPES), None)
    if kind is None:
        raise InputError(f"{path}: expected a NIfTI file, found no NIfTI header")
    block = start + stream.read(kind.sizeof_hdr - 4)
    try:
        header = kind.from_fileobj(io.BytesIO(block), check=False)
        header.get_data_dtype(), header.get_slope_inter(), header.get_best_affine()
    except Exception as error:  # nibabel raises many kinds for a header that makes no sense
        raise InputError(f"{path}: the NIfTI header cannot be read ({error})") from error
    magic = bytes(header["magic"])
    if magic[:3] not in (b"n+1", b"n+2"):
        raise InputError(f"{path}: expected a single-file NIfTI (magic n+1), found {magic!r}")
    return header


def _shape_3d(header, path: str) -> tuple[int, int, int]:
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"{path}: expected one 3D volume, found shape {shape}")
    return shape


def _grid(header, shape, path: str) -> Grid:
    affine = np.array(header.get_best_affine(), np.float64)
    affine[:3] *= _MM_PER_UNIT.get(header.get_xyzt_units()[0], 1.0)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"{path}: the affine is not invertible: {affine[:3].tolist()}")
    return Grid(shape, affine, header)


def _fill(stream, buffer: np.ndarray) -> int:
    view, filled = memoryview(buffer), 0
    while filled < buffer.size:
        count = stream.readinto(view[filled : filled + _READ_BYTES])
        if not count:
            break
        filled += count
    return filled


def _scaled(stored: np.ndarray, header, path: str) -> np.ndarray:
    """Slope and intercept applied, native byte order."""
    if stored.dtype.kind not in "iuf":
        raise InputError(f"{path}: expected whole or real numbers, found voxels of {stored.dtype}")
    slope, intercept = header.get_slope_inter()
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    if (slope, intercept) == (1.0, 0.0):
        return stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if stored.dtype.kind in "iu" and slope.is_integer() and intercept.is_integer():
        bounds = np.array([stored.min(), stored.max()], np.float64) * slope + intercept
        dtype = np.result_type(*(np.min_scalar_type(int(bound)) for bound in bounds), np.int16)
        return (stored * dtype.type(slope) + dtype.type(intercept)).astype(dtype, copy=False)
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
