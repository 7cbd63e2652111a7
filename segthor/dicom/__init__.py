"""DICOM: the only package that knows pydicom and highdicom."""

from segthor.errors import InputError


class DicomError(InputError):
    """DICOM that cannot be read or is refused; `code` names the kind, as in `segthor.audit`."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code
