"""Reads and writes NIfTI; the only module that imports nibabel.

The axes of a file may have any of 48 orders. `read` returns a canonical view [Z, Y, X], and `write`
takes one. Files are decompressed by ISA-L, and their CRC is checked. A label map is written with
the header of its scan, so that it lies exactly on the scan's voxels.
"""

import contextlib
import io
import re

import nibabel
import numpy as np
from isal import igzip

from segthor import files, memory, rescale
from segthor.unpack import NiftiError, fill, open_stream
from segthor.volume import Grid, Volume, corner_distance_mm, is_invertible

_HEADER_TYPES = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
_TEXTS = {"descrip", "db_name", "aux_file", "intent_name", "data_type"}
_MM_PER_UNIT = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
_PIECE_BYTES, _MOST_GAP_BYTES = 1 << 20, 1 << 24
_FORMS_MM = 1.0  # allowed between sform and qform


def stem(path: str) -> str:
    """The file's name without its folder and without .nii or .nii.gz, in any case."""
    return re.sub(r"\.nii(\.gz)?\Z", "", files.name(path), flags=re.IGNORECASE)


def is_nifti(path: str) -> bool:
    """Whether the name ends in .nii or .nii.gz, in any case."""
    return path.lower().endswith((".nii", ".nii.gz"))


def read(path: str, digest=None, most_bytes: int | None = None) -> Volume:
    """Reads a 3D NIfTI file; `zyx` is a view of its voxels.

    Integers stay integers where slope and intercept are integers, too; otherwise float32.

    Args:
      digest: A hashlib object, updated with the bytes of the file.
      most_bytes: Memory that the scan may fill; by default `segthor.memory.scan_limit`.

    Raises:
      NiftiError: No such file, not NIfTI, not 3D, too large, truncated, at least one slice more
        than the header says, or a checksum that does not match.
    """
    with open_stream(path, digest) as (stream, capacity):
        header = _read_header(stream, path)
        shape = _shape_3d(header, path)
        grid, dtype = _grid(header, shape, path), _dtype(header, path)
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        _check_size(path, header, size, capacity, most_bytes)
        stream.read(_gap_bytes(header, path))
        buffer = np.empty(size, np.uint8)
        filled = fill(stream, buffer)
        surplus = 0
        while rest := stream.read(_PIECE_BYTES):  # to the end, where the stream checks the CRC
            surplus += len(rest)
    _check_voxels(path, shape, size, filled, surplus)
    array = _scale(buffer.view(dtype).reshape(shape, order="F"), header)
    return Volume(grid.to_zyx(array), grid)


def _dtype(header, path: str) -> np.dtype:
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        message = f"{path}: expected whole or real numbers, found voxels of {dtype}"
        raise NiftiError("file_type", message)
    return dtype


def _check_voxels(path: str, shape, size: int, filled: int, surplus: int) -> None:
    """Raises NiftiError for fewer than the header's `size` bytes of voxels, or a slice more."""
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


def read_grid(path: str) -> Grid:
    """Reads the grid from the header; raises NiftiError as `read` does."""
    with open_stream(path) as (stream, _):
        header = _read_header(stream, path)
    return _grid(header, _shape_3d(header, path), path)


def write(path: str, zyx: np.ndarray, grid: Grid, slope: float = 1.0) -> None:
    """Writes [Z, Y, X] on `grid`, atomically; compressed where the name ends in .gz.

    The same input gives the same bytes.

    Args:
      path: The file.
      zyx: The voxels; their dtype is that of the file.
      grid: The grid, whose affine, form codes and units the file gets. Texts and extensions of its
        header are left out.
      slope: Factor by which readers multiply the stored numbers.

    Raises:
      NiftiError: The grid has uneven planes, which NIfTI cannot hold.
      ValueError: `zyx` has another shape than the grid.
    """
    if grid.planes:
        steps = grid.planes.step_range
        message = f"{path}: expected planes at even steps for NIfTI, found steps of {steps}"
        raise NiftiError("series_uneven", message)
    if zyx.shape != grid.shape_zyx:
        raise ValueError(f"zyx: expected shape {grid.shape_zyx}, got {zyx.shape}")
    array = grid.to_file(zyx)
    header = _header_for(array, grid, slope)
    head = header.binaryblock
    head += bytes(int(header["vox_offset"]) - len(head))
    _write_stream(path, head, np.asarray(array, header.get_data_dtype()).tobytes(order="F"))


def _write_stream(path: str, *parts: bytes) -> None:
    """Writes the parts atomically; compressed where the name ends in .gz."""
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(files.atomic_write(path))
        if path.lower().endswith(".gz"):
            packed = igzip.IGzipFile("", "wb", compresslevel=2, fileobj=stream, mtime=0)
            stream = stack.enter_context(packed)
        for part in parts:
            stream.write(part)


def _header_for(array: np.ndarray, grid: Grid, slope: float):
    """The header of a file that holds this array in the file's order of axes."""
    header = _make_header(grid) if grid.header is None else grid.header.copy()
    header.set_data_shape(array.shape)
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(slope, 0)
    header["cal_min"] = header["cal_max"] = 0
    for text in _TEXTS & set(header.keys()):  # these may hold the patient's name
        header[text] = b""
    header.extensions.clear()
    header["vox_offset"] = (int(header["sizeof_hdr"]) + 4 + 15) // 16 * 16
    return header


def header_findings(grid: Grid):
    """Yields (code, message) where a file's header sets neither sform nor qform, or they differ."""
    if grid.header is None:
        return
    has_sform, has_qform = (bool(int(grid.header[code])) for code in ("sform_code", "qform_code"))
    if not has_sform and not has_qform:
        yield "no_orientation", "neither sform nor qform is set"
    elif np.array_equal(grid.affine, np.eye(4)):
        yield "affine_identity", "the affine is the identity; the scanner's was lost"
    if has_sform and has_qform:
        distance = _forms_distance_mm(grid)
        if not distance <= _FORMS_MM:
            apart = f"are up to {distance:.1f} mm apart" if distance < np.inf else "make no sense"
            yield "forms_disagree", f"sform and qform {apart}"


def _forms_distance_mm(grid: Grid) -> float:
    """Distance between sform and qform at the corners; NaN or infinite where one is invalid."""
    try:
        with np.errstate(all="ignore"):
            sform, qform = grid.header.get_sform(), grid.header.get_qform()
    except (ValueError, nibabel.spatialimages.HeaderDataError):
        return np.nan
    return corner_distance_mm(grid.shape, sform, qform)


def unit(grid: Grid) -> str:
    """The unit of length in the header: 'mm', 'meter', 'micron' or 'unknown'."""
    return grid.header.get_xyzt_units()[0] if grid.header is not None else "mm"


def _make_header(grid: Grid) -> nibabel.Nifti1Header:
    """A header for a grid without one: units mm, sform and qform both 'scanner'."""
    header = nibabel.Nifti1Header()
    header.set_data_shape(grid.shape)
    header.set_xyzt_units("mm", "sec")
    header.set_sform(grid.affine, code="scanner")
    header.set_qform(grid.affine, code="scanner", strip_shears=True)
    return header


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
    except Exception as error:  # nibabel raises many types for an invalid header
        message = f"{path}: the NIfTI header cannot be read ({error})"
        raise NiftiError("file_header", message) from error
    magic = bytes(header["magic"])
    if magic[:3] not in (b"n+1", b"n+2"):
        message = f"{path}: expected a single-file NIfTI (magic n+1), found {magic!r}"
        raise NiftiError("file_not_nifti", message)
    return header


def _gap_bytes(header, path: str) -> int:
    """Number of bytes between the header and the voxels."""
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
    with np.errstate(all="ignore"):  # even copying a signalling NaN warns
        affine = np.array(header.get_best_affine(), np.float64)
        affine[:3] *= _MM_PER_UNIT.get(header.get_xyzt_units()[0], 1.0)
    if not is_invertible(affine):
        message = f"{path}: the affine is not invertible: {affine[:3].tolist()}"
        raise NiftiError("file_affine", message)
    return Grid(shape, affine, header)


def _check_size(path: str, header, size: int, capacity: int, most_bytes: int | None) -> None:
    """Raises NiftiError where the voxels need too much memory or cannot be in the file.

    Called before memory is allocated. size: Bytes of the stored voxels. capacity: Largest number of
    bytes that the file can hold.
    """
    most_bytes = most_bytes or memory.scan_limit()
    scaled = header.get_slope_inter() not in ((None, None), (1.0, 0.0))
    # The stored numbers, and those scaled to at most float32, are in memory together.
    needed = size + (4 * size // header.get_data_dtype().itemsize if scaled else 0)
    if needed > most_bytes:
        message = f"{path}: the header promises {size} bytes of voxels, {needed / 1e9:.4g} GB in "
        message += f"memory; at most {most_bytes / 1e9:.4g} GB are read here"
        if size <= capacity:
            message += ", which --most_scan_gb of build and predict raises where there is room"
        else:
            message += ", and the file is too short to hold them: its header is damaged"
        raise NiftiError("file_too_large", message)
    if size > capacity:
        raise NiftiError(
            "file_truncated",
            f"{path}: truncated; the header promises {size} bytes of voxels, the file can hold "
            f"{capacity} at most; copy it again",
        )


def _scale(stored: np.ndarray, header) -> np.ndarray:
    """Applies slope and intercept; the result has native byte order."""
    slope, intercept = header.get_slope_inter()
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    if (slope, intercept) == (1.0, 0.0):
        return stored.astype(stored.dtype.newbyteorder("="), copy=False)
    return rescale.to_hu(stored, float(slope), float(intercept))
