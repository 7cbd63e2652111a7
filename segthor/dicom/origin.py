"""What all DICOM objects that we write share: their origin, patient and study, and UIDs."""

import hashlib
import io
import uuid
from dataclasses import astuple, dataclass

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag

from segthor import files
from segthor.dicom import SOFTWARE, elements
from segthor.dicom.series import Stack
from segthor.organs import Organ

DRAFT = "Draft, not reviewed"
_MOST_NAME = 16  # characters; the limit of planning systems
# Attributes of patient and study that are copied from the scan, and are empty where it has none.
_REQUIRED = (
    "PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime StudyID "
    "AccessionNumber ReferringPhysicianName"
).split()
# Attributes that are copied only where the scan has them.
_OPTIONAL = (
    "SpecificCharacterSet IssuerOfPatientID PatientIdentityRemoved DeidentificationMethod "
    "StudyDescription TimezoneOffsetFromUTC"
).split()
_CODES = "DeidentificationMethodCodeSequence"
_OF_CODE = "CodeValue CodingSchemeDesignator CodingSchemeVersion CodeMeaning LongCodeValue".split()
_MOST_CODES, _MOST_BYTES = 100, 1024  # limits for what is copied from a file


@dataclass(frozen=True)
class Origin:
    """The origin of an object.

    version: Version of this software; at most 64 characters.
    model: Digest of the model, or another name of what made the contours; at most 64 characters.
    date, time: YYYYMMDD and HHMMSS of the prediction job, so that repeating it gives the same
      bytes.
    doubt: Text about implausible contours, from the audit; '' for none.
    """

    version: str
    model: str
    date: str
    time: str
    doubt: str = ""

    @property
    def description(self) -> str:
        """A description with at most 1024 characters, the limit of a short text."""
        doubt = f" IMPLAUSIBLE: {self.doubt}" if self.doubt else ""
        return f"{SOFTWARE} {self.version}, model {self.model}. {DRAFT}.{doubt}"[:1024]

    @property
    def label(self) -> str:
        """A label of at most 16 characters that are allowed in a code string."""
        return "DRAFT SUSPECT" if self.doubt else "DRAFT"

    def uid(self, stack: Stack, kind: str, *content: bytes) -> str:
        """A UID that is a function of origin, kind of object, images and content."""
        made_by = astuple(self) if self.doubt else astuple(self)[:-1]
        digest = hashlib.sha256("\0".join((kind, *made_by)).encode())
        digest.update(f"\0{stack.study_uid}\0{stack.series_uid}".encode())
        for instance in stack.instances:
            digest.update(f"\0{instance.sop_instance_uid}\0{instance.frame}".encode())
        for part in content:
            digest.update(hashlib.sha256(part).digest())
        return uid_of(digest.hexdigest())


def uid_of(text: str) -> str:
    """A UID that is a function of the text."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, text).int}"


def make_image_items(stack: Stack) -> list[Dataset]:
    """References to the files of a scan, one for each file."""
    classes = {one.sop_instance_uid: one.sop_class_uid for one in stack.instances}
    return [
        elements.make_item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=uid)
        for uid, sop_class in classes.items()
    ]


def roi_name(organ: Organ) -> str:
    """Name of an organ's ROI or segment: its TG-263 name, or its own in at most 16 characters."""
    if organ.tg263 or len(organ.name) <= _MOST_NAME:
        return organ.tg263 or organ.name
    ending = f"_{organ.label}"  # makes shortened names unique
    return organ.name[: _MOST_NAME - len(ending)] + ending


def copy_patient(header: Dataset, study_uid: str) -> Dataset:
    """Makes a data set with patient, study and character set of an image's header."""
    dataset = Dataset()
    _copy_texts(header, dataset, (*_REQUIRED, *_OPTIONAL))
    for keyword in _REQUIRED:
        if keyword not in dataset:
            setattr(dataset, keyword, "")
    codes = []
    for item in elements.items(header, _CODES)[:_MOST_CODES]:
        codes.append(Dataset())
        _copy_texts(item, codes[-1], _OF_CODE)
    if codes:
        setattr(dataset, _CODES, codes)
    dataset.StudyInstanceUID = study_uid
    return dataset


def _copy_texts(source: Dataset, target: Dataset, keywords) -> None:
    """Copies elements byte for byte, except sequences and texts that are too long."""
    for keyword in keywords:
        element = source.get_item(Tag(keyword))
        kind = dictionary_VR(keyword)
        is_text = isinstance(element, RawDataElement) and element.VR in (None, "UN", kind)
        if is_text and len(element.value or b"") <= _MOST_BYTES:
            target[keyword] = element._replace(VR=kind)
        elif isinstance(element, DataElement) and element.VR == kind:
            target[keyword] = element


def write(path: str, dataset: Dataset, transfer_syntax: str, encoded: bytes = b"") -> None:
    """Writes an object as a file, atomically; equal objects give equal bytes.

    encoded: Encoded elements to append to the data set.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax
    meta.ImplementationClassUID = uid_of(SOFTWARE)
    meta.ImplementationVersionName = SOFTWARE.upper()
    dataset.file_meta, dataset.preamble = meta, bytes(128)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    with files.atomic_write(path) as stream:
        stream.write(buffer.getbuffer())
        stream.write(encoded)
