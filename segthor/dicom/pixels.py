"""Reads the pixels of one DICOM file, in HU."""

import io

import numpy as np
import pydicom
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import UID_dictionary

from segthor import rescale
from segthor.dicom import DicomError, decoder, elements

_EXPLICIT, _IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_DEFLATED, _BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
SYNTAXES = (_EXPLICIT, _IMPLICIT, _DEFLATED, _BIG_ENDIAN, *decoder.SYNTAXES)


class Image:
    """One file with one or more frames.

    Raises:
      DicomError: 'file_not_dicom', 'file_damaged', 'file_truncated', 'file_too_large',
        'dicom_syntax'.
    """

    def __init__(self, content: bytes, path: str):
        self._path = path
        self._dataset = elements.open_dataset(io.BytesIO(content), path, pixels=True)
        self._syntax = self._transfer_syntax()

    def check(self, sop_instance_uid: str, size: tuple[int, int]) -> None:
        """Checks that the file is the image that was indexed. size: (rows, columns).

        Raises:
          DicomError: 'file_changed', or 'file_truncated' where nothing of it can be read.
        """
        uid = elements.text(self._dataset, "SOPInstanceUID")
        if not uid:  # pydicom returns no header if compressed pixels end too soon
            raise self._truncated("no end of the pixel data")
        if uid != sop_instance_uid or self._size() != size:
            message = f"{self._path}: changed after its header was read; repeat the command"
            raise DicomError("file_changed", message)

    def hu(self, frame: int | None) -> np.ndarray:
        """One frame in HU, [rows, columns] int16, int32 or float32.

        Raises:
          DicomError: 'file_damaged', 'file_truncated', 'series_no_rescale'.
        """
        slope, intercept = self._rescale(frame)
        try:
            return rescale.to_hu(self._stored(frame or 0), slope, intercept)
        except (DicomError, MemoryError):
            raise
        except Exception as error:
            # The messages of libraries may quote the header; that of our decoder does not.
            own = isinstance(error, decoder.DecodeError)
            reason = str(error) if own else type(error).__name__
            message = f"{self._path}: the pixels cannot be decoded ({reason})"
            raise DicomError("file_damaged", f"{message}; copy it again") from error

    @property
    def has_surplus(self) -> bool:
        """Whether uncompressed pixels are followed by more than the byte of padding."""
        if self._syntax in decoder.SYNTAXES or "PixelData" not in self._dataset:
            return False
        return len(self._dataset.PixelData) > get_expected_length(self._dataset) + 1

    def _transfer_syntax(self) -> str:
        syntax = str(self._dataset.file_meta.get("TransferSyntaxUID", ""))
        if not syntax:  # without a file meta header, pydicom guesses the encoding
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
            groups = elements.groups_of_frame(self._dataset, frame, keyword)
            holder = groups[0] if groups else pydicom.Dataset()
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
        bits = self._dataset.BitsStored
        if self._dataset.get("HighBit", bits - 1) != bits - 1:
            raise ValueError("bits at an unusual place")
        if self._syntax in decoder.SYNTAXES:
            return self._decompressed(frame)
        expected, length = get_expected_length(self._dataset), len(self._dataset.PixelData)
        if length < expected:
            raise self._truncated(f"{length} bytes of pixels instead of {expected}")
        array = get_decoder(self._syntax).as_array(self._dataset, index=frame, raw=True)[0]
        if array.shape != self._size():
            raise ValueError("several samples per pixel")
        return array

    def _decompressed(self, frame: int) -> np.ndarray:
        dataset = self._dataset
        count = int(dataset.get("NumberOfFrames") or 1)
        encoded = get_frame(dataset.PixelData, frame, number_of_frames=count)
        allocated, bits = dataset.BitsAllocated, dataset.BitsStored
        if self._syntax == decoder.RUN_LENGTH:  # states neither size nor bits
            codestream = decoder.Codestream(*self._size(), bits)
        else:
            codestream = decoder.Codestream.read(encoded)
        # Checked first, because decoders allocate memory for the size that the codestream claims.
        if codestream[:2] != self._size():
            raise ValueError("the compressed image has another size")
        is_usual = dataset.SamplesPerPixel == 1 and allocated in (8, 16, 32)
        if not is_usual or not 0 < bits <= allocated:
            raise ValueError("several samples per pixel, or bits of no kind")
        values = decoder.decode(self._syntax, encoded, codestream)
        if self._syntax == decoder.RUN_LENGTH and 8 * values.itemsize != allocated:
            raise ValueError("run lengths of values of another size")
        # The sign is the highest bit of a value. The data set may state more bits than JPEG-LS and
        # JPEG 2000 do. JPEG Lossless has no sign, and may state more bits than are used.
        if self._syntax not in decoder.JPEG_LOSSLESS:
            bits = min(bits, codestream.precision)
        kind = "i" if dataset.PixelRepresentation else "u"
        return _with_sign(values.astype(f"{kind}{allocated // 8}"), bits)

    def _truncated(self, content: str) -> DicomError:
        message = f"{self._path}: truncated, found {content}; copy it again"
        return DicomError("file_truncated", message)


def _with_sign(values: np.ndarray, bits: int) -> np.ndarray:
    """Keeps the lowest bits of each value; in a signed dtype the highest of them is the sign."""
    spare = max(0, 8 * values.itemsize - bits)
    return values << spare >> spare if spare else values
