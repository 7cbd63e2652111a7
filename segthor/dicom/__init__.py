"""DICOM: the only package that knows pydicom and highdicom."""

from segthor.errors import ReadError

# What is written of a label map: a structure set, a SEG of segments, a SEG of the newer kind.
RTSTRUCT, SEG, LABELMAP = "rtstruct", "seg", "labelmap"
FORMATS = (RTSTRUCT, SEG, LABELMAP)
SOFTWARE = "segthor"  # how our own objects are told from others'


class DicomError(ReadError):
    """DICOM that cannot be read or is refused."""
