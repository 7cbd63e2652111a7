"""Reads data sets from files, and plain values from data sets with any content."""

import contextlib
import functools
import logging
import math
import types
import warnings
import zlib

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag

from segthor import files
from segthor.dicom import DicomError
from segthor.errors import InputError

# pydicom's messages quote values, which may be patients' names.
logging.getLogger("pydicom").propagate = False
warnings.filterwarnings("ignore", module=r"pydicom\.")
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

_MOST_INFLATED_BYTES = 1 << 28  # of a deflated file; 3 MB can hold 3 GB of zeros
_PIXELS, _UNDEFINED = 0x7FE00010, 0xFFFFFFFF  # a tag, a length
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")  # first bytes of files without a preamble


def _inflate(content: bytes, wbits: int) -> bytes:
    """`zlib.decompress` with a limit, which pydicom lacks."""
    inflater = zlib.decompressobj(wbits)
    inflated = inflater.decompress(content, _MOST_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        most = f"expected at most {_MOST_INFLATED_BYTES >> 20} MB once inflated, found more"
        message = f"deflated; {most}; convert it, for example with gdcmconv --raw"
        raise DicomError("file_too_large", message)
    if not inflater.eof:
        raise EOFError
    return inflated


pydicom.filereader.zlib = types.SimpleNamespace(decompress=_inflate, MAX_WBITS=zlib.MAX_WBITS)


@contextlib.contextmanager
def report_damage(message: str, advice: str):
    """Converts exceptions of the block to a DicomError 'file_damaged' of one line.

    pydicom converts values lazily and raises many types, whose messages may quote the patient's
    name.
    """
    try:
        yield
    except (DicomError, MemoryError):
        raise
    except Exception as error:
        text = f"{message} ({type(error).__name__}); {advice}"
        raise DicomError("file_damaged", text) from error


def read_dataset(path: str, tags=None, pixels: bool = False) -> pydicom.Dataset:
    """Reads the data set in a file; arguments and errors as `open_dataset`, and 'file_missing'."""
    try:
        stream = files.open_read(path)
    except InputError as error:
        raise DicomError("file_missing", str(error)) from error
    with stream:
        return open_dataset(stream, path, tags, pixels)


def open_dataset(stream, path: str, tags=None, pixels: bool = False) -> pydicom.Dataset:
    """Reads the data set in a binary stream that can seek.

    tags: Keywords or tags of the elements to read; None for all. pixels: Whether to read the pixel
    data.

    Raises:
      DicomError: 'file_not_dicom', 'file_damaged', 'file_too_large', or 'file_truncated' where the
        file ends within one of these elements; `pixels.Image` checks the pixel data.
    """
    start = stream.read(132)
    if start[128:] != b"DICM" and start[:2] not in _FIRST_GROUPS:
        raise DicomError("file_not_dicom", f"{path}: expected a DICOM file, found something else")
    stream.seek(0)
    options = {"stop_before_pixels": not pixels, "specific_tags": tags}
    with report_damage(f"{path}: the DICOM header cannot be read", "copy it again"):
        try:
            dataset = pydicom.dcmread(stream, force=True, **options)
        except DicomError as error:  # of `_inflate`
            raise DicomError(error.code, f"{path}: {error}") from None
        elements = [dataset.get_item(tag) for tag in dataset.keys() if tag != _PIXELS]
    if any(map(_is_short, elements)):
        raise DicomError("file_truncated", f"{path}: truncated; copy it again")
    return dataset


def _is_short(element) -> bool:
    """Whether the file ends within the element, which pydicom does not report."""
    is_raw = isinstance(element, RawDataElement) and isinstance(element.value, bytes)
    return is_raw and element.length != _UNDEFINED and len(element.value) < element.length


@functools.cache  # pydicom searches its dictionary at each use of a keyword
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)


def text(dataset, keyword: str) -> str:
    """The text of an element without padding; '' where there is none.

    Several values are separated by backslashes. Avoids pydicom's conversion, which is slow and
    warns.
    """
    tag = _tag(keyword)
    if tag not in dataset.keys():
        return ""
    value = dataset.get_item(tag).value
    if isinstance(value, bytes):
        return value.decode("latin-1").strip(" \0\t\r\n")
    if value is None:
        return ""
    values = value if isinstance(value, list | tuple | pydicom.multival.MultiValue) else [value]
    return "\\".join(map(str, values)).strip()


def numbers(dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """The `count` finite numbers of an element; None where it holds anything else.

    A decimal comma is read as a point.
    """
    try:
        values = tuple(float(part) for part in text(dataset, keyword).replace(",", ".").split("\\"))
    except ValueError:
        return None
    return values if len(values) == count and all(map(math.isfinite, values)) else None


def items(dataset, *keywords: str) -> list:
    """All items of the innermost of nested sequences, named from the outermost; may be empty."""
    inner = [dataset]
    for keyword in keywords:
        inner = [item for outer in inner for item in (outer.get(keyword) or ())]
    return inner


def groups_of_frame(dataset, frame: int, keyword: str) -> list:
    """The functional group items of one frame of an enhanced file, else those of all frames."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    own = items(per_frame[frame], keyword) if frame < len(per_frame) else []
    return own or items(dataset, "SharedFunctionalGroupsSequence", keyword)


def make_item(**attributes) -> pydicom.Dataset:
    """A data set with these elements, keyword to value."""
    item = pydicom.Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def make_code(value: str, scheme: str, meaning: str) -> pydicom.Dataset:
    """The item of a coded concept."""
    return make_item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def whole(dataset, keyword: str) -> int:
    """An unsigned 16-bit number; 0 where there is none."""
    tag = _tag(keyword)
    value = dataset[tag].value if tag in dataset.keys() else 0
    return value if isinstance(value, int) else 0
