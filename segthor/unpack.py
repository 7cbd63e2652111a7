"""A scan's file as a stream of bytes: decompressed, digested, its damage named."""

import contextlib
import io

import numpy as np
from isal import igzip

from segthor import files
from segthor.errors import InputError, ReadError

_PIECE_BYTES, _BUFFER_BYTES = 1 << 20, 1 << 19
# Of deflate, which gzip files hold: two bits stand for 258 bytes at best (RFC 1951).
_MOST_RATIO = 1032


class NiftiError(ReadError):
    """A file that cannot be read as one NIfTI volume; `code` names the kind of damage.

    Codes: 'file_missing', 'file_not_nifti', 'file_header', 'file_not_3d', 'file_affine',
    'file_type', 'file_too_large', 'file_truncated', 'file_surplus', 'file_damaged'.
    """


@contextlib.contextmanager
def opened(path: str, digest=None):
    """Yields (stream, how many bytes it can give at most); decompressed where it starts like gzip.

    digest: a hashlib object, fed with the file's own bytes. Damage met while the block reads ends
    in NiftiError.
    """
    try:
        raw = files.open_read(path)
    except InputError as error:
        raise NiftiError("file_missing", str(error)) from error
    with raw, io.BufferedReader(_Fed(raw, digest), _BUFFER_BYTES) as stored:
        try:
            size = getattr(raw, "size", None) or files.size(path)  # a URL's was asked for already
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
    """Fills the buffer as far as the stream goes; returns the number of bytes.

    Memory is touched only as the bytes arrive.
    """
    view, filled = memoryview(buffer), 0
    while filled < buffer.size:
        # In pieces that a core's cache holds: gzip's readinto goes through a copy of its own.
        count = stream.readinto(view[filled : filled + _PIECE_BYTES])
        if not count:
            break
        filled += count
    return filled


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
