"""Finds the patients whose files lie in a folder, and the patient of a damaged file."""

import re
from collections import defaultdict

from segthor import files
from segthor.dicom.headers import DAMAGED, NOT_DICOM, UNREADABLE

_HEAD_BYTES = 1 << 16


def folders_above(path: str, root: str):
    """Yields the folders that hold `path`, from the innermost one to `root`."""
    root, folder = root.rstrip("/") or "/", files.parent(path)
    yield folder
    while folder not in (root, files.parent(folder)):
        folder = files.parent(folder)
        yield folder


class Neighbours:
    """The patients that have CT images in a folder or below it."""

    def __init__(self, images_of: dict, root: str):
        """Indexes the folders of CT images.

        images_of: Patient to headers of its CT. root: The outermost folder.
        """
        self._root = root.rstrip("/") or "/"
        self._patients = defaultdict(set)
        for patient, images in images_of.items():
            # One image of each folder is enough.
            for path in {files.parent(header.path): header.path for header in images}.values():
                for folder in folders_above(path, root):
                    self._patients[folder].add(patient)

    def beside(self, path: str) -> set:
        """The patients in the innermost folder around a file that has any CT images.

        The root counts only for files directly in it: a file in a separate folder does not belong
        to a patient just because the patient's folder is also below the root.
        """
        for folder in folders_above(path, self._root):
            if folder in self._patients:
                is_apart = folder == self._root and folder != files.parent(path)
                return set() if is_apart else self._patients[folder]
        return set()


def share_damaged(left_aside, near: Neighbours, images) -> tuple[dict, list[tuple[str, str]]]:
    """Finds the patients that damaged files may belong to.

    A file of no known kind counts as damaged if CT images in its folder have names like it.

    left_aside: (kind, path) of files that are not used. images: Headers of all CT images.

    Returns:
      Patient to (path, series UID) of damaged files, '' for an unknown series; and `left_aside`,
      with the kinds of damaged files.
    """
    series = defaultdict(set)  # pattern of the file names in a folder, to their series
    by_folder = defaultdict(set)
    for header in images:
        series[_pattern(header.path)].add(header.series_uid)
        by_folder[files.parent(header.path)].add(header.series_uid)
    damaged, aside = defaultdict(list), []
    for kind, path in left_aside:
        has_number = any(character.isdecimal() for character in files.name(path))
        if kind == NOT_DICOM and has_number and _pattern(path) in series:
            kind = DAMAGED
        aside.append((kind, path))
        patients = near.beside(path) if kind in (DAMAGED, UNREADABLE) else ()
        if len(patients) == 1:
            alike = [series[_pattern(path)], by_folder[files.parent(path)]]
            uid = next((next(iter(uids)) for uids in alike if len(uids) == 1), "")
            damaged[next(iter(patients))].append((path, _named_series(path, alike[1]) or uid))
    return damaged, aside


def _named_series(path: str, uids) -> str:
    """The series whose UID the start of a damaged file contains; '' for none or several."""
    try:
        with files.open_read(path) as stream:
            content = stream.read(_HEAD_BYTES)
    except (files.InputError, OSError):
        return ""
    named = [uid for uid in uids if re.search(re.escape(uid.encode()) + rb"(?![0-9.])", content)]
    return named[0] if len(named) == 1 else ""


def _pattern(path: str) -> str:
    """A path with '#' for the last number in its name, in which the slices of a series differ."""
    name = files.name(path)
    return files.join(files.parent(path), re.sub(r"\d+(?=\D*$)", "#", name))
