"""Reads received files for the node: their UIDs, and the attributes that its rules compare.

The texts of `Series` may contain the patient's name. They are compared with patterns and never
printed, written or used in a path.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from segthor.dicom import DicomError, elements, headers, pixels
from segthor.dicom.slices import heights_mm

_NAMES = "SOPClassUID SOPInstanceUID SeriesInstanceUID StudyInstanceUID PatientID".split()
_TEXTS = {
    "modality": "Modality",
    "description": "SeriesDescription",
    "protocol": "ProtocolName",
    "station": "StationName",
    "body_part": "BodyPartExamined",
    "kernel": "ConvolutionKernel",
}
_NAME_TAGS = [Tag(keyword) for keyword in _NAMES]
_TEXT_TAGS = [Tag(keyword) for keyword in _TEXTS.values()]
TEXTS = tuple(_TEXTS)

# SOP classes that a node accepts: CT, structure sets, and other objects that scanners send with a
# study. It discards these, but must accept them: senders may otherwise repeat the whole study.
_DOSE_REPORT = "1.2.840.10008.5.1.4.1.1.88.67"
CLASSES = (*headers.CT_CLASSES, headers.RTSTRUCT, headers.SECONDARY_CLASS, _DOSE_REPORT)
SYNTAXES = pixels.SYNTAXES


@dataclass(frozen=True, slots=True)
class Instance:
    """Identifiers of one instance, as sent: any of them may be any text."""

    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    patient_id: str


@dataclass(frozen=True)
class Series:
    """Attributes of a series that rules compare.

    texts: Each name of `TEXTS` to its value in the first image; never printed.
    slices: Number of CT slices, without localizers.
    spacing_mm: Median distance between slices; 0 where it is unknown.
    is_derived: Whether all slices are derived images or intensity projections.
    others: Number of files of each kind that are no CT slices.
    """

    texts: dict[str, str] = field(repr=False)
    slices: int
    spacing_mm: float
    is_derived: bool
    others: dict[str, int]


def read_instance(path: str) -> Instance:
    """Reads the identifiers of the instance in a file.

    Raises:
      DicomError: The header cannot be read, or the UID of the instance or series is missing.
    """
    dataset = elements.read_dataset(path, _NAME_TAGS)
    instance = Instance(*(elements.text(dataset, keyword) for keyword in _NAMES))
    if not instance.sop_instance_uid or not instance.series_uid:
        raise DicomError(
            "file_damaged", f"{path}: the UID of the instance or the series is missing"
        )
    return instance


def read_classes(path: str) -> tuple[str, str]:
    """Reads SOP class and transfer syntax of a file that this software wrote."""
    meta = elements.read_dataset(path, _NAME_TAGS).file_meta
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)


def make_count_query(path: str) -> Dataset:
    """Makes a query at series level for the number of instances of a file's series."""
    instance = read_instance(path)
    return elements.make_item(
        QueryRetrieveLevel="SERIES",
        StudyInstanceUID=instance.study_uid,
        SeriesInstanceUID=instance.series_uid,
        NumberOfSeriesRelatedInstances=None,
    )


def read_count(answer: Dataset) -> int:
    """Reads the number in an answer to `make_count_query`; 0 where there is none."""
    text = elements.text(answer, "NumberOfSeriesRelatedInstances")
    return int(text) if text.isascii() and text.isdecimal() else 0


def read_series(paths) -> Series:
    """Reads the attributes of a series from its files."""
    all_headers = [headers.read(path) for path in sorted(paths)]
    slices = [header for header in all_headers if header.kind == headers.CT]
    first = slices[0].path if slices else next((h.path for h in all_headers), "")
    derived = [header.is_derived or header.traits.is_projection for header in slices]
    others = Counter(header.kind for header in all_headers if header.kind != headers.CT)
    return Series(
        texts=_read_texts(first),
        slices=sum(len(header.planes) for header in slices),
        spacing_mm=_spacing_mm(slices),
        is_derived=bool(derived) and all(derived),
        others=dict(sorted(others.items())),
    )


def _read_texts(path: str) -> dict[str, str]:
    try:
        dataset = elements.read_dataset(path, _TEXT_TAGS)
    except Exception:  # the file is damaged; the prediction reports it
        return dict.fromkeys(_TEXTS, "")
    return {name: elements.text(dataset, keyword) for name, keyword in _TEXTS.items()}


def _spacing_mm(slices) -> float:
    """Median distance between neighbouring slices; 0 for fewer than two."""
    steps = np.diff(np.sort(heights_mm(slices)))
    return float(np.median(steps)) if len(steps) else 0.0
