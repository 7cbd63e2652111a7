"""Decides which CT images of a tree belong to one patient, from their headers.

The PatientID is not enough: anonymizers write one PatientID for all patients, and some archives
have two in one series.

1. Images with one series UID are one series, even if the PatientID changes, provided that they fill
   one grid of slices. If they cover the same positions twice, several series have this UID.
2. Series with one PatientID are one patient's if they share a study, or a folder below the root.
   Series with one PatientID, but in separate studies and folders, are several patients'.
3. Without a PatientID, the images of one study are one patient's.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from segthor import files
from segthor.dicom import slices
from segthor.dicom.headers import Header

_FEW = 0.1  # share of positions that two parts of one series may have in common
CHANGES = (
    "series_patient_ids",
    "the PatientID changes within the series; its images are read as one patient's",
)


@dataclass(frozen=True)
class Series:
    """CT images with one series UID and of one patient.

    uid: The series UID.
    images: Headers of the images.
    changes_id: Whether their PatientID changes.
    """

    uid: str
    images: tuple[Header, ...]
    changes_id: bool


@dataclass(frozen=True)
class Person:
    """All series of one patient.

    series: The series, sorted by UID.
    numbers: Hashes of the PatientIDs, or UID of the study where there is none; sorted.
    reasons: Texts that say why these series are one patient's.
    """

    series: tuple[Series, ...]
    numbers: tuple[str, ...]
    reasons: tuple[str, ...]

    @property
    def images(self) -> list[Header]:
        """The headers of all series."""
        return [header for one in self.series for header in one.images]


def group_patients(images, root: str) -> list[Person]:
    """Groups CT images of a folder by patient."""
    by_uid = defaultdict(list)
    for header in sorted(images, key=lambda header: header.path):
        by_uid[header.series_uid].append(header)
    series = [one for uid in sorted(by_uid) for one in _split_series(uid, by_uid[uid])]
    groups = _group_series(series, root)
    holders = defaultdict(int)  # number of patients with each PatientID
    for group in groups:
        for number in {number for one in group for number in _numbers(one)}:
            holders[number] += 1
    return [_person(group, holders) for group in groups]


def _person(group, holders) -> Person:
    numbers = sorted({number for one in group for number in _numbers(one)})
    studies = {header.study_uid for one in group for header in one.images}
    unnamed = any(not header.patient for one in group for header in one.images)
    reasons = ["no PatientID: the images of one study" if unnamed else "one PatientID"]
    if len(numbers) > 1:
        reasons = [f"{len(numbers)} PatientIDs within one series"]
    if len(studies) > 1:
        reasons.append(f"{len(studies)} studies")
    others = max(holders[number] for number in numbers) - 1
    if others:
        reasons.append(
            f"{others} more with this PatientID, in other folders and studies; where these are "
            "visits of one patient, put them into one folder"
        )
    return Person(tuple(group), tuple(numbers), tuple(reasons))


def _number(header: Header) -> str:
    return header.patient or header.study_uid or header.series_uid


def _numbers(series: Series) -> set[str]:
    return {_number(header) for header in series.images}


def _split_series(uid: str, images) -> list[Series]:
    """Splits the images with one series UID by patient."""
    parts = defaultdict(list)
    for header in images:
        parts[_number(header), header.study_uid, header.frame_of_reference_uid].append(header)
    merged = []
    for _, part in sorted(parts.items()):
        same = next((other for other in merged if _are_one_series(other, part)), None)
        if same is None:
            merged.append([*part])
        else:
            same += part
    return [
        Series(uid, tuple(part), len({_number(header) for header in part}) > 1) for part in merged
    ]


def _are_one_series(one, other) -> bool:
    """Whether two parts that differ in PatientID, study or frame are slices of one scan."""
    same_folder = {files.parent(h.path) for h in one} & {files.parent(h.path) for h in other}
    low, high = (slices.heights_mm(part) for part in (one, other))
    if not len(low) or not len(high):
        return bool(same_folder)
    shared = np.isin(np.rint(low * 10), np.rint(high * 10)).sum()
    if shared > max(1, _FEW * min(len(low), len(high))):
        return False
    apart = low.max() < high.min() or high.max() < low.min()
    return (bool(same_folder) and apart) or slices.fill_one_grid([*one, *other])


def _group_series(series: list[Series], root: str) -> list[list[Series]]:
    """Groups series by patient (rules 2 and 3), with a union-find over their indices."""
    owner = list(range(len(series)))

    def first(k: int) -> int:
        while owner[k] != k:
            owner[k] = owner[owner[k]]
            k = owner[k]
        return k

    seen = {}  # (PatientID, study or folder) to the first series that has both
    for k, one in enumerate(series):
        for header in one.images:
            for shared in (("study", header.study_uid), ("folder", _top(header.path, root))):
                other = seen.setdefault((_number(header), shared), k)
                owner[first(k)] = first(other)
    groups = defaultdict(list)
    for k, one in enumerate(series):
        groups[first(k)].append(one)
    return list(groups.values())


def _top(path: str, root: str) -> str:
    """Name of the folder directly below the root that holds a file; '' for a file in the root."""
    inner = path.removeprefix(root.rstrip("/") + "/")
    return inner.partition("/")[0] if "/" in inner else ""
