"""Reads and writes NIfTI: the only module that knows nibabel.

A file is decompressed by ISA-L, its CRC is checked, and the header is kept whole, so that what is
written beside a scan lies on exactly the scan's grid.
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
_TEXTS = {"descrip", "db_name", "aux_file", "intent_name", "data_type"}
_MM_PER_UNIT = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
_PIECE_BYTES, _BUFFER_BYTES, _MOST_GAP_BYTES = 1 << 20, 1 << 19, 1 << 24
_MOST_BYTES = 1 << 34  # no CT is larger; a header that says so is damaged


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
    def sform(self) -> np.ndarray:
        """The header's sform [4, 4], whatever its code."""
        with np.errstate(all="ignore"):
            return self.header.get_sform()

    @property
    def qform(self) -> np.ndarray:
        """The header's qform [4, 4], whatever its code; NaN where its fields make no sense."""
        try:
            with np.errstate(all="ignore"):
                return self.header.get_qform()
        except (ValueError, nibabel.spatialimages.HeaderDataError):
            return np.full((4, 4), np.nan)

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


class NiftiError(InputError):
    """A file that cannot be read as one NIfTI volume; `code` names the kind of damage.

    Codes: 'file_missing', 'file_not_nifti', 'file_header', 'file_not_3d', 'file_affine',
    'file_type', 'file_too_large', 'file_truncated', 'file_surplus', 'file_damaged'.
    """

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


def read(path: str, digest=None) -> Scan:
    """Reads a 3D NIfTI file.

    Integers stay integers where slope and intercept are integers too; otherwise float32.

    Args:
      path: A file or URL.
      digest: A hashlib object, fed with the file's bytes as they are read.

    Raises:
      NiftiError: no such file, not NIfTI, not 3D, truncated, a slice or more of voxels beyond
        those of the header, or a checksum that does not match.
    """
    with _opened(path, digest) as stream:
        header = _read_header(stream, path)
        shape = _shape_3d(header, path)
        grid = _grid(header, shape, path)
        dtype = header.get_data_dtype()
        if dtype.kind not in "iuf":
            expected = "whole or real numbers"
            raise NiftiError("file_type", f"{path}: expected {expected}, found voxels of {dtype}")
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if size > _MOST_BYTES:
            raise NiftiError("file_too_large", f"{path}: the header promises {size} bytes")
        stream.read(_gap_bytes(header, path))
        buffer = np.empty(size, np.uint8)
        filled = _fill(stream, buffer)
        surplus = 0
        while rest := stream.read(_PIECE_BYTES):  # the CRC is checked at the very end
            surplus += len(rest)
    if filled < size:
        raise NiftiError(
            "file_truncated",
            f"{path}: truncated; the header promises {size} bytes of voxels, found {filled}; "
            "copy it again",
        )
    plane = size // shape[2]
    if surplus >= plane:
        raise NiftiError(
            "file_surplus",
            f"{path}: the header promises {shape[2]} slices, found {surplus // plane} more; "
            "expected a header that fits its voxels",
        )
    return Scan(_scaled(buffer.view(dtype).reshape(shape, order="F"), header), grid)


def read_grid(path: str) -> Grid:
    """Reads the header alone; raises InputError as `read` does."""
    with _opened(path) as stream:
        header = _read_header(stream, path)
    return _grid(header, _shape_3d(header, path), path)


def write(path: str, array: np.ndarray, grid: Grid, slope: float = 1.0) -> None:
    """Writes `array` [X, Y, Z] on `grid`, atomically; compressed where the name ends in .gz.

    Affine, form codes and units are the grid's own; data type is the array's, intercept 0. Texts
    of the header and its extensions are left out. slope: what readers multiply the stored numbers
    with.
    The same input gives the same bytes.

    Raises:
      ValueError: the array's shape is not the grid's.
    """
    if array.shape != grid.shape:
        raise ValueError(f"array: expected shape {grid.shape}, got {array.shape}")
    header = grid.header.copy()
    header.set_data_shape(array.shape)
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(slope, 0)
    header["cal_min"] = header["cal_max"] = 0
    for text in _TEXTS & set(header.keys()):  # may hold a name, and is no part of the grid
        header[text] = b""
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


class _Fed(io.RawIOBase):
    """A stream whose bytes pass a digest on their way."""

    def __init__(self, raw, digest):
        self._raw, self._digest = raw, digest

    def readable(self):
        return True

    def readinto(self, target):
        count = self._raw.readinto(target)
        if self._digest:
            self._digest.update(target[:count])
        return count


@contextlib.contextmanager
def _opened(path: str, digest=None):
    """The file's stream, decompressed where it starts like gzip; damage ends in NiftiError."""
    try:
        raw = files.open_read(path)
    except InputError as error:
        raise NiftiError("file_missing", str(error)) from error
    with raw, io.BufferedReader(_Fed(raw, digest), _BUFFER_BYTES) as stored:
        try:
            packed = stored.peek(2)[:2] == b"\x1f\x8b"
            yield igzip.IGzipFile(fileobj=stored) if packed else stored
        except EOFError as error:
            message = f"{path}: truncated; the compressed data end too soon; copy it again"
            raise NiftiError("file_truncated", message) from error
        except (OSError, igzip.isal_zlib.error) as error:
            message = f"{path}: damaged ({error}); copy it again"
            raise NiftiError("file_damaged", message) from error


def _read_header(stream, path: str):
    start = stream.read(4)
    sizes = (int.from_bytes(start, order) for order in ("little", "big"))
    kind = next((_HEADER_TYPES[size] for size in sizes if size in _HEADER_TYPES), None)
    if kind is None:
        message = f"{path}: expected a NIfTI file, found no NIfTI header"
        raise NiftiError("file_not_nifti", message)
    block = start + stream.read(kind.sizeof_hdr - 4)
    try:
        with np.errstate(all="ignore"):
            header = kind.from_fileobj(io.BytesIO(block), check=False)
            header.get_data_dtype(), header.get_slope_inter(), header.get_best_affine()
            header.get_xyzt_units()
    except Exception as error:  # nibabel raises many kinds for a header that makes no sense
        message = f"{path}: the NIfTI header cannot be read ({error})"
        raise NiftiError("file_header", message) from error
    magic = bytes(header["magic"])
    if magic[:3] not in (b"n+1", b"n+2"):
        message = f"{path}: expected a single-file NIfTI (magic n+1), found {magic!r}"
        raise NiftiError("file_not_nifti", message)
    return header


def _gap_bytes(header, path: str) -> int:
    """How much lies between the header and the voxels."""
    offset = float(header["vox_offset"])
    if not 0 <= offset <= _MOST_GAP_BYTES:
        message = f"{path}: the header says that voxels start at byte {offset:g}"
        raise NiftiError("file_header", message)
    return max(int(offset) - int(header["sizeof_hdr"]), 4)


def _shape_3d(header, path: str) -> tuple[int, int, int]:
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1:
        raise NiftiError("file_not_3d", f"{path}: expected one 3D volume, found shape {shape}")
    return shape


def _grid(header, shape, path: str) -> Grid:
    with np.errstate(all="ignore"):  # some kinds of NaN warn when they are only copied
        affine = np.array(header.get_best_affine(), np.float64)
    affine[:3] *= _MM_PER_UNIT.get(header.get_xyzt_units()[0], 1.0)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        message = f"{path}: the affine is not invertible: {affine[:3].tolist()}"
        raise NiftiError("file_affine", message)
    return Grid(shape, affine, header)


def _fill(stream, buffer: np.ndarray) -> int:
    """Fills the buffer as far as the stream goes; returns the number of bytes."""
    view, filled = memoryview(buffer), 0
    while filled < buffer.size:
        # In pieces that a core's cache holds: gzip's readinto goes through a copy of its own.
        count = stream.readinto(view[filled : filled + _PIECE_BYTES])
        if not count:
            break
        filled += count
    return filled


def _scaled(stored: np.ndarray, header) -> np.ndarray:
    """Slope and intercept applied, native byte order."""
    slope, intercept = header.get_slope_inter()
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    if (slope, intercept) == (1.0, 0.0):
        return stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if stored.dtype.kind in "iu" and _is_small_whole(slope) and _is_small_whole(intercept):
        slope, intercept = int(slope), int(intercept)
        bounds = [int(bound) * slope + intercept for bound in (stored.min(), stored.max())]
        dtype = np.result_type(*(np.min_scalar_type(bound) for bound in bounds), np.int16)
        if dtype.kind == "i":
            # Integers wrap around, so steps that overflow still end in the right result.
            return stored.astype(dtype) * np.array(slope).astype(dtype) + np.array(
                intercept
            ).astype(dtype)
    with np.errstate(all="ignore"):  # what is not finite is for the audit to find
        return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _is_small_whole(number: float) -> bool:
    return float(number).is_integer() and abs(number) < 2**31
