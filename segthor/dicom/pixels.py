"""The pixels of one DICOM file, in HU."""

import io
import struct

import numpy as np
import pydicom
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import UID_dictionary

from segthor.dicom import DicomError, elements

# Transfer syntax: the decoder that is tried first, where there is a choice.
SYNTAXES = {
    "1.2.840.10008.1.2": "",  # implicit little endian
    "1.2.840.10008.1.2.1": "",  # explicit little endian
    "1.2.840.10008.1.2.1.99": "",  # deflated
    "1.2.840.10008.1.2.2": "",  # explicit big endian
    "1.2.840.10008.1.2.5": "pylibjpeg",  # RLE
    "1.2.840.10008.1.2.4.57": "gdcm",  # JPEG Lossless
    "1.2.840.10008.1.2.4.70": "gdcm",  # JPEG Lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": "gdcm",  # JPEG-LS
    "1.2.840.10008.1.2.4.81": "gdcm",  # JPEG-LS, near-lossless
    "1.2.840.10008.1.2.4.90": "gdcm",  # JPEG 2000, lossless
    "1.2.840.10008.1.2.4.91": "gdcm",  # JPEG 2000
}
_IMPLICIT, _EXPLICIT, _BIG_ENDIAN = list(SYNTAXES)[:2] + ["1.2.840.10008.1.2.2"]


class Image:
    """One file, one or many frames.

    Raises:
      DicomError: 'file_not_dicom', 'file_damaged', 'file_truncated', 'dicom_syntax'.
    """

    def __init__(self, content: bytes, path: str):
        self._path = path
        self._dataset = elements.open_dataset(io.BytesIO(content), path, pixels=True)
        self._syntax = self._transfer_syntax()

    def check(self, sop_instance_uid: str, size: tuple[int, int]) -> None:
        """Holds that it is the image that was indexed; size: rows, columns.

        Raises:
          DicomError: 'file_changed', or 'file_truncated' where nothing of it can be read.
        """
        found = elements.text(self._dataset, "SOPInstanceUID")
        if not found:  # pydicom forgets the header where compressed pixels end too soon
            raise self._truncated("no end of the pixel data")
        if found != sop_instance_uid or self._size() != size:
            message = f"{self._path}: not the image that lay there before; start again"
            raise DicomError("file_changed", message)

    def hu(self, frame: int | None) -> np.ndarray:
        """A frame in HU, [rows, columns] int16, int32 or float32.

        Raises:
          DicomError: 'file_damaged', 'file_truncated', 'series_no_rescale'.
        """
        slope, intercept = self._rescale(frame)
        try:
            return _scaled(self._stored(frame or 0), slope, intercept)
        except (DicomError, MemoryError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # many kinds: a panic of Rust's is no Exception
            message = f"{self._path}: the pixels cannot be decoded ({type(error).__name__})"
            raise DicomError("file_damaged", f"{message}; copy it again") from error

    def _transfer_syntax(self) -> str:
        syntax = str(self._dataset.file_meta.get("TransferSyntaxUID", ""))
        if not syntax:  # a file without its first part: what pydicom found is all there is to know
            implicit, little = self._dataset.original_encoding
            syntax = _IMPLICIT if implicit else _EXPLICIT if little else _BIG_ENDIAN
        if syntax not in SYNTAXES:
            named = UID_dictionary.get(syntax, ("an unknown one",))[0]
            raise DicomError(
                "dicom_syntax",
                f"{self._path}: expected pixels uncompressed, RLE, JPEG Lossless, JPEG-LS or "
                f"JPEG 2000; found the transfer syntax {named}; convert the series, for example "
                "with gdcmconv --raw",
            )
        return syntax

    def _size(self) -> tuple[int, int]:
        return elements.whole(self._dataset, "Rows"), elements.whole(self._dataset, "Columns")

    def _rescale(self, frame: int | None) -> tuple[float, float]:
        holder = self._dataset
        if frame is not None:
            keyword = "PixelValueTransformationSequence"
            found = elements.groups_of_frame(self._dataset, frame, keyword)
            holder = found[0] if found else pydicom.Dataset()
        slope = elements.numbers(holder, "RescaleSlope", 1)
        intercept = elements.numbers(holder, "RescaleIntercept", 1)
        if not slope or not slope[0] or not intercept:
            raise DicomError(
                "series_no_rescale",
                f"{self._path}: expected a rescale slope and intercept, which turn stored values "
                "into HU; found none; export the series again",
            )
        return slope[0], intercept[0]

    def _stored(self, frame: int) -> np.ndarray:
        if "PixelData" not in self._dataset:
            raise self._truncated("no pixel data")
        decoder = get_decoder(self._syntax)
        if decoder.is_native:
            expected, found = get_expected_length(self._dataset), len(self._dataset.PixelData)
            if found < expected:
                raise self._truncated(f"{found} bytes of pixels instead of {expected}")
        else:
            self._check_codestream(frame)
        plugin = SYNTAXES[self._syntax]
        usable = plugin if plugin in decoder.available_plugins else ""
        options = {"decoding_plugin": usable, "raw": True}
        array = decoder.as_array(self._dataset, index=frame, **options)[0]
        if array.shape != self._size():
            raise ValueError("several samples per pixel")
        bits = self._dataset.BitsStored
        if self._dataset.get("HighBit", bits - 1) != bits - 1:
            raise ValueError("bits at an unusual place")
        # A codestream of 16 bits may hold signed values of fewer: their sign is the highest stored
        # bit, which pydicom looks at in uncompressed pixels alone.
        spare = 0 if decoder.is_native else max(0, 8 * array.itemsize - bits)
        return array << spare >> spare if spare else array

    def _check_codestream(self, frame: int) -> None:
        """Raises where the compressed image claims another size: decoders make room for it."""
        count = int(self._dataset.get("NumberOfFrames") or 1)
        encoded = get_frame(self._dataset.PixelData, frame, number_of_frames=count)
        size = _codestream_size(encoded) if self._syntax.startswith(_JPEG) else self._size()
        if size != self._size():
            raise ValueError("the compressed image has another size")

    def _truncated(self, found: str) -> DicomError:
        message = f"{self._path}: truncated, found {found}; copy it again"
        return DicomError("file_truncated", message)


_JPEG = "1.2.840.10008.1.2.4."


def _codestream_size(encoded: bytes) -> tuple[int, int]:
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 image says of itself."""
    if encoded[:2] == b"\xff\xd8":
        at = 2
        while encoded[at : at + 1] == b"\xff":
            marker, length = encoded[at + 1], struct.unpack_from(">H", encoded, at + 2)[0]
            is_start = 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
            if is_start or marker == 0xF7:  # 0xF7: of JPEG-LS
                return struct.unpack_from(">HH", encoded, at + 5)
            at += 2 + length
        raise ValueError("no start of frame")
    at = encoded.index(b"\xff\x4f\xff\x51")  # JPEG 2000; a JP2 file's boxes may come before
    right, bottom, left, top = struct.unpack_from(">IIII", encoded, at + 8)
    return bottom - top, right - left


def _scaled(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Stored values to HU in the smallest of int16, int32 and float32 that holds them."""
    if slope.is_integer() and intercept.is_integer():
        slope, intercept = int(slope), int(intercept)
        bounds = [int(bound) * slope + intercept for bound in (stored.min(), stored.max())]
        for dtype in (np.dtype(np.int16), np.dtype(np.int32)):
            limits = np.iinfo(dtype)
            if limits.min <= min(bounds) and max(bounds) <= limits.max:
                # Integers wrap around, so steps that overflow still end in the right result.
                factor, offset = (_wrapped(number, dtype) for number in (slope, intercept))
                return stored.astype(dtype) * factor + offset
    with np.errstate(all="ignore"):  # what is not finite is for the audit to find
        return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _wrapped(number: int, dtype: np.dtype) -> np.ndarray:
    """The number's last bits, as a 0-dimensional array: those wrap around without a warning."""
    bits = 8 * dtype.itemsize
    return np.array((number + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1), dtype)
