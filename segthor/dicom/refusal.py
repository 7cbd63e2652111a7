"""Writes a short document (Basic Text SR) that states why a series has no structure set."""

import hashlib
import uuid

from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage, ExplicitVRLittleEndian

from segthor import files
from segthor.dicom import SOFTWARE, elements
from segthor.dicom.origin import copy_patient, write

_TITLE = ("18748-4", "LN", "Diagnostic imaging report")
_HEADING = ("121071", "DCM", "Finding")
_DESCRIPTION = f"{SOFTWARE}: no result"


def write_refusal(path: str, image: str, text: str, version: str, date: str, time: str) -> str:
    """Writes the document atomically; the same arguments give the same bytes.

    Args:
      path: The file to write.
      image: An image of the series; patient and study are copied from it.
      text: The reason. Other than ASCII characters are escaped.
      version: Version of this software.
      date: Date of the document, YYYYMMDD.
      time: Time of the document, HHMMSS.

    Returns:
      The SOPInstanceUID of the document.

    Raises:
      DicomError: The header of the image cannot be read.
    """
    with files.open_read(image) as stream:
        header = elements.open_dataset(stream, image)
    series_uid = elements.text(header, "SeriesInstanceUID")
    dataset = copy_patient(header, elements.text(header, "StudyInstanceUID"))
    dataset.SOPClassUID = BasicTextSRStorage
    dataset.SOPInstanceUID = _uid("document", series_uid, text, version, date, time)
    dataset.SeriesInstanceUID = _uid("series", series_uid, text, version, date, time)
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "SR", 1, 1
    dataset.SeriesDescription = _DESCRIPTION
    dataset.Manufacturer = dataset.ManufacturerModelName = SOFTWARE
    dataset.DeviceSerialNumber = dataset.SoftwareVersions = version
    dataset.InstanceCreationDate = dataset.ContentDate = dataset.SeriesDate = date
    dataset.InstanceCreationTime = dataset.ContentTime = dataset.SeriesTime = time
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.PerformedProcedureCodeSequence = []
    dataset.ValueType, dataset.ContinuityOfContent = "CONTAINER", "SEPARATE"
    dataset.ConceptNameCodeSequence = [_code(_TITLE)]
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "TEXT"
    item.ConceptNameCodeSequence = [_code(_HEADING)]
    item.TextValue = text.encode("ascii", "backslashreplace").decode()
    dataset.ContentSequence = [item]
    write(path, dataset, ExplicitVRLittleEndian)
    return dataset.SOPInstanceUID


def _uid(*parts: str) -> str:
    digest = hashlib.sha256("\0".join(("refusal", *parts)).encode()).hexdigest()
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, digest).int}"


def _code(value: tuple[str, str, str]) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value
    return code
