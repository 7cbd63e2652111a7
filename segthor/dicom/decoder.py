"""Decompresses frames of pixels (JPEG Lossless, JPEG-LS, JPEG 2000, RLE) in a child process.

The decoders are C libraries, and files may come from anyone: a damaged frame may crash the process
that decodes it, or run foreign code in it. A child process therefore decodes, with limits of memory
and time and without the right to open or write files. A child decodes many frames. It ends after a
frame that it cannot decode, because its memory may be damaged; the next frame gets a new child.

The child imports this module and calls `serve`. This module imports neither pydicom nor TensorFlow,
so that a child starts in a fraction of a second.
"""

import atexit
import contextlib
import functools
import importlib.util
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
from multiprocessing.connection import Connection, Pipe
from typing import NamedTuple

import numpy as np

if importlib.util.find_spec("imagecodecs") is None:  # only the child imports it
    raise ModuleNotFoundError("no imagecodecs", name="imagecodecs")

FRAME_SECONDS = 60  # the largest frame that is accepted takes about 10 s
_MOST_CHILDREN = 2  # per process; each needs about 40 MB
_MEMORY_BYTES, _MEMORY_BYTES_PER_PIXEL = 1 << 28, 64  # limits, in addition to the child's start
_REQUEST = struct.Struct("<64sII")  # transfer syntax, rows, columns
_DTYPES = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4")
_GRACE_SECONDS = 10

JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
RUN_LENGTH = "1.2.840.10008.1.2.5"
SYNTAXES = (*JPEG_LOSSLESS, *JPEG_LS, *JPEG_2000, RUN_LENGTH)


class DecodeError(Exception):
    """A frame cannot be decoded. The message contains nothing of the frame."""


class Codestream(NamedTuple):
    """The header of a codestream.

    rows, columns: Size of the image.
    precision: Bits per value.
    """

    rows: int
    columns: int
    precision: int

    @classmethod
    def read(cls, frame: bytes) -> "Codestream":
        """Reads the header of a JPEG, JPEG-LS or JPEG 2000 image; raises DecodeError."""
        try:
            if frame[:2] != b"\xff\xd8":
                at = frame.index(b"\xff\x4f\xff\x51")  # JPEG 2000, maybe after a JP2 file's boxes
                right, bottom, left, top = struct.unpack_from(">IIII", frame, at + 8)
                return cls(bottom - top, right - left, (frame[at + 42] & 0x7F) + 1)
            at = 2
            while frame[at] == 0xFF:
                marker, length = frame[at + 1], struct.unpack_from(">H", frame, at + 2)[0]
                is_start = 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
                if is_start or marker == 0xF7:  # 0xF7 is JPEG-LS
                    precision, rows, columns = struct.unpack_from(">BHH", frame, at + 4)
                    return cls(rows, columns, precision)
                at += 2 + length
        except (ValueError, IndexError, struct.error):
            pass
        raise DecodeError("no header of a compressed image")


def decode(syntax: str, frame: bytes, codestream: Codestream) -> np.ndarray:
    """Decodes one frame; returns [rows, columns] in the dtype of the decoder.

    Args:
      syntax: The transfer syntax, one of SYNTAXES.
      frame: The compressed image.
      codestream: Its header, which the caller has compared with the data set.

    Raises:
      DecodeError: The decoder refuses the frame, needs too much memory or time, or crashes.
    """
    for attempt in range(2):
        with _children.borrowed() as child:
            try:
                return child.decode(syntax, frame, codestream)
            except _ChildDied as error:
                # Try again: the system may have killed the child for another reason.
                if attempt:
                    raise DecodeError(str(error)) from None


class _ChildDied(Exception):
    pass


class _Child:
    """One child process and the connection to it."""

    def __init__(self):
        ours, theirs = Pipe()
        # The child gets the import path of this process.
        code = f"import sys; sys.path[:] = {sys.path!r}; from segthor.dicom import decoder; "
        code += f"decoder.serve({theirs.fileno()})"
        # Decoders print messages about frames.
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                **streams,
                pass_fds=[theirs.fileno()],
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        self._connection = ours
        self.alive = True

    def decode(self, syntax: str, frame: bytes, codestream: Codestream) -> np.ndarray:
        """See `decode`; raises _ChildDied as well."""
        pixels = codestream.rows * codestream.columns
        self.alive = False  # until the complete reply has arrived
        try:
            self._connection.send_bytes(_REQUEST.pack(syntax.encode(), *codestream[:2]))
            self._connection.send_bytes(frame)
            if not self._connection.poll(FRAME_SECONDS):
                raise DecodeError(f"took longer than {FRAME_SECONDS} s")
            kind = self._connection.recv_bytes(100).decode("ascii", "replace")
            if kind not in _DTYPES:
                raise DecodeError(kind)
            dtype = np.dtype(kind)
            values = self._connection.recv_bytes(pixels * dtype.itemsize)
        except (EOFError, OSError):
            raise _ChildDied(self._ending()) from None
        if len(values) != pixels * dtype.itemsize:
            raise DecodeError("another number of pixels")
        self.alive = True
        return np.frombuffer(values, dtype).reshape(codestream.rows, codestream.columns)

    def close(self) -> None:
        """Kills the child."""
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        """Closes the connection in a forked process, without ending the parent's child."""
        self._connection.close()
        self._process.returncode = 0  # so that `Popen` does not wait for another process's child

    def _ending(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self._process.wait(_GRACE_SECONDS)
            if status < 0:
                return f"the decoder was ended by {signal.Signals(-status).name}"
        return "the decoder ended"


class _Children:
    """The idle children of this process; at most _MOST_CHILDREN exist."""

    def __init__(self):
        self._idle, self._free = [], threading.Semaphore(_MOST_CHILDREN)

    @contextlib.contextmanager
    def borrowed(self):
        """Yields an idle or new child, for use by one thread."""
        with self._free:
            try:
                child = self._idle.pop()
            except IndexError:
                child = _Child()
            try:
                yield child
            finally:
                if child.alive:
                    self._idle.append(child)
                else:
                    child.close()

    def close(self) -> None:
        """Kills the idle children."""
        while self._idle:
            self._idle.pop().close()

    def forget(self) -> None:
        """Drops the children in a forked process, since they belong to the parent."""
        for child in self._idle:
            child.forget()
        self.__init__()


_children = _Children()
atexit.register(_children.close)
os.register_at_fork(after_in_child=lambda: _children.forget())


def serve(descriptor: int) -> None:
    """The main function of a child: decodes until the parent ends or a frame cannot be decoded."""
    connection, decoders, before = Connection(descriptor), _decoders(), _address_space()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
        resource.setrlimit(limit, (0, 0))
    with contextlib.suppress(EOFError, ConnectionError):  # the parent has ended
        while True:
            syntax, rows, columns = _REQUEST.unpack(connection.recv_bytes())
            frame = connection.recv_bytes()
            most = before + _MEMORY_BYTES + _MEMORY_BYTES_PER_PIXEL * rows * columns
            with contextlib.suppress(ValueError, OSError):  # not every system has this limit
                resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
            signal.alarm(FRAME_SECONDS + _GRACE_SECONDS)  # also where the parent has ended
            try:
                values = decoders[syntax.rstrip(b"\0").decode()](frame)
                # The parent takes no more bytes, and would wait for the end of this process.
                if values.size != rows * columns:
                    raise DecodeError("another number of pixels")
                values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
                kind = values.dtype.str
            except BaseException as error:
                reason = str(error) if isinstance(error, DecodeError) else type(error).__name__
                connection.send_bytes(reason.encode("ascii", "replace")[:100])
                return
            signal.alarm(0)
            connection.send_bytes(kind.encode())
            connection.send_bytes(values.data.cast("B"))


def _decoders() -> dict:
    """Transfer syntax to a function that decodes a codestream.

    One damaged frame in 100 crashes GDCM, which decodes all of these, too; none of 38 000 crashed
    the libraries of imagecodecs (libjpeg-turbo, CharLS, OpenJPEG).
    """
    import imagecodecs

    return (
        dict.fromkeys(JPEG_LOSSLESS, imagecodecs.jpeg8_decode)
        | dict.fromkeys(JPEG_LS, imagecodecs.jpegls_decode)
        | dict.fromkeys(JPEG_2000, imagecodecs.jpeg2k_decode)
        | {RUN_LENGTH: functools.partial(_decode_run_lengths, imagecodecs.dicomrle_decode)}
    )


def _decode_run_lengths(decode, frame: bytes):
    """Decodes RLE; the frame starts with its number of segments, one for each byte of a value."""
    dtype = f"<u{int.from_bytes(frame[:4], 'little')}"
    return np.frombuffer(decode(frame, dtype), dtype)


def _address_space() -> int:
    """Bytes of address space that this process uses; 0 on systems without /proc."""
    try:
        with open("/proc/self/statm") as stream:
            return int(stream.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0
