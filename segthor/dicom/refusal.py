"""Writes a short document (Basic Text SR) that states why a series has no structure set."""

import hashlib

from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage, ExplicitVRLittleEndian

from segthor.dicom import SOFTWARE, elements
from segthor.dicom.elements import make_code, make_item
from segthor.dicom.origin import copy_patient, uid_of, write

_TITLE = ("18748-4", "LN", "Diagnostic imaging report")
_HEADING = ("121071", "DCM", "Finding")
_DESCRIPTION = f"{SOFTWARE}: no result"


def write_refusal(path: str, image: str, text: str, version: str, date: str, time: str) -> str:
    """Writes the document atomically, and returns its SOPInstanceUID.

    The same arguments give the same bytes.

    Args:
      path: The file to write.
      image: An image of the series; patient and study are copied from it.
      text: The reason. Other than ASCII characters are escaped.
      version: Version of this software.
      date, time: Of the document, YYYYMMDD and HHMMSS.

    Raises:
      DicomError: The header of the image cannot be read.
    """
    header = elements.read_dataset(image)
    content = elements.text(header, "SeriesInstanceUID"), text, version, date, time
    dataset = copy_patient(header, elements.text(header, "StudyInstanceUID"))
    dataset.SOPInstanceUID = _uid("document", *content)
    dataset.SeriesInstanceUID = _uid("series", *content)
    _set_attributes(dataset, version, date, time)
    finding = make_item(
        RelationshipType="CONTAINS",
        ValueType="TEXT",
        ConceptNameCodeSequence=[make_code(*_HEADING)],
        TextValue=text.encode("ascii", "backslashreplace").decode(),
    )
    dataset.ContentSequence = [finding]
    write(path, dataset, ExplicitVRLittleEndian)
    return dataset.SOPInstanceUID


def _set_attributes(dataset: Dataset, version: str, date: str, time: str) -> None:
    """Sets the attributes of the document, except its content and its own UIDs."""
    dataset.SOPClassUID = BasicTextSRStorage
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
    dataset.ConceptNameCodeSequence = [make_code(*_TITLE)]


def _uid(*parts: str) -> str:
    return uid_of(hashlib.sha256("\0".join(("refusal", *parts)).encode()).hexdigest())
