"""DICOM: the only package that imports pydicom and highdicom."""

from segthor.errors import ReadError

# Formats of label maps: structure set, SEG of binary segments, SEG of the newer label map type.
RTSTRUCT, SEG, LABELMAP = "rtstruct", "seg", "labelmap"
FORMATS = (RTSTRUCT, SEG, LABELMAP)
SOFTWARE = "segthor"  # identifies our own objects


class DicomError(ReadError):
    """DICOM files that cannot be read or are refused."""
