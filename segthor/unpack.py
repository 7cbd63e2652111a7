"""Reads a scan's file as a stream: decompresses it, feeds a digest, names the kind of damage."""

import contextlib
import io

import numpy as np
from isal import igzip

from segthor import files
from segthor.errors import InputError, ReadError

_PIECE_BYTES, _BUFFER_BYTES = 1 << 20, 1 << 19
# The highest ratio of deflate, gzip's method: two bits can stand for 258 bytes (RFC 1951).
_MOST_RATIO = 1032


class NiftiError(ReadError):
    """A file that cannot be read as one NIfTI volume; `code` names the kind of damage.

    Codes: 'file_missing', 'file_not_nifti', 'file_header', 'file_not_3d', 'file_affine',
    'file_type', 'file_too_large', 'file_truncated', 'file_surplus', 'file_damaged'.
    """


@contextlib.contextmanager
def open_stream(path: str, digest=None):
    """Opens a file, decompressing gzip; yields (stream, largest number of bytes it can hold).

    digest: A hashlib object, updated with the bytes of the file.

    Raises:
      NiftiError: The file cannot be opened, or is damaged where the block reads it.
    """
    try:
        raw = files.open_read(path)
    except InputError as error:
        raise NiftiError("file_missing", str(error)) from error
    with raw, io.BufferedReader(_DigestingStream(raw, digest), _BUFFER_BYTES) as stored:
        try:
            size = getattr(raw, "size", None) or files.size(path)  # streams of URLs know their size
            if stored.peek(2)[:2] == b"\x1f\x8b":
                yield igzip.IGzipFile(fileobj=stored), size * _MOST_RATIO
            else:
                yield stored, size
        except EOFError as error:
            message = f"{path}: truncated; the compressed data end too soon; copy it again"
            raise NiftiError("file_truncated", message) from error
        except (OSError, igzip.isal_zlib.error) as error:
            message = f"{path}: damaged ({error}); copy it again"
            raise NiftiError("file_damaged", message) from error


def fill(stream, buffer: np.ndarray) -> int:
    """Reads from the stream until the buffer is full or the stream ends; returns the byte count.

    Memory is used only as bytes arrive, so a header that promises too much costs none.
    """
    view, filled = memoryview(buffer), 0
    while filled < buffer.size:
        # Pieces fit into a core's cache: gzip's `readinto` makes an intermediate copy of each.
        count = stream.readinto(view[filled : filled + _PIECE_BYTES])
        if not count:
            break
        filled += count
    return filled


class _DigestingStream(io.RawIOBase):
    """A stream that updates a digest with the bytes that are read."""

    def __init__(self, raw, digest):
        self._raw, self._digest = raw, digest

    def readable(self):
        return True

    def readinto(self, target):
        count = self._raw.readinto(target)
        if self._digest:
            self._digest.update(target[:count])
        return count
