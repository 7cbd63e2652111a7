"""Whose files lie in a folder, and whose a damaged file may be."""

import re
from collections import defaultdict

from segthor import files
from segthor.dicom.headers import DAMAGED, NOT_DICOM, UNREADABLE

_HEAD_BYTES = 1 << 16


class Neighbours:
    """Which patients have CT images in a folder or below it."""

    def __init__(self, images_of: dict, root: str):
        """images_of: patient to headers of its CT. root: no folder above it is looked at."""
        self._root = root.rstrip("/") or "/"
        self._patients = defaultdict(set)
        for patient, images in images_of.items():
            for folder in {files.parent(header.path) for header in images}:
                while folder not in self._patients or patient not in self._patients[folder]:
                    self._patients[folder].add(patient)
                    if folder == self._root or folder == files.parent(folder):
                        break
                    folder = files.parent(folder)

    def beside(self, path: str) -> set:
        """Patients in the innermost folder about a file where any has images.

        The root counts for files that lie in it directly: what lies in a folder of its own is not
        a patient's only because all others' folders lie beside it.
        """
        folder = files.parent(path)
        while folder not in self._patients:
            if len(folder) <= len(self._root) or folder == files.parent(folder):
                return set()
            folder = files.parent(folder)
        is_around = folder == self._root and folder != files.parent(path)
        return set() if is_around else self._patients[folder]


def share_damaged(left_aside, near: Neighbours, images) -> tuple[dict, list[tuple[str, str]]]:
    """Patient to (path, series UID) of damaged files that may be its own; and what is left aside.

    Files of no known kind are damaged, too, where CT images beside them are named like them.
    images: headers of all CT. The series is '' where it cannot be told.
    """
    series = defaultdict(set)  # how the files of a folder are named, to their series
    by_folder = defaultdict(set)
    for header in images:
        series[_pattern(header.path)].add(header.series_uid)
        by_folder[files.parent(header.path)].add(header.series_uid)
    damaged, aside = defaultdict(list), []
    for kind, path in left_aside:
        if kind == NOT_DICOM and _pattern(path) in series and _has_number(path):
            kind = DAMAGED
        aside.append((kind, path))
        patients = near.beside(path) if kind in (DAMAGED, UNREADABLE) else ()
        if len(patients) == 1:
            alike = [series[_pattern(path)], by_folder[files.parent(path)]]
            uid = next((next(iter(uids)) for uids in alike if len(uids) == 1), "")
            damaged[next(iter(patients))].append((path, _named_series(path, alike[1]) or uid))
    return damaged, aside


def _named_series(path: str, uids) -> str:
    """The series whose UID stands in what is left of a damaged file; '' for none."""
    try:
        with files.open_read(path) as stream:
            content = stream.read(_HEAD_BYTES)
    except (files.InputError, OSError):
        return ""
    named = [uid for uid in uids if re.search(re.escape(uid.encode()) + rb"(?![0-9.])", content)]
    return named[0] if len(named) == 1 else ""


def _pattern(path: str) -> str:
    """A path without the last number in its name, in which the slices of a series differ."""
    name = files.name(path)
    return files.join(files.parent(path), re.sub(r"\d+(?=\D*$)", "#", name))


def _has_number(path: str) -> bool:
    return any(character.isdecimal() for character in files.name(path))
