"""A folder of DICOM files to patients, series, stacks and structure sets, by their headers.

Who a patient is: files with the same PatientID are one patient's (without a number, those of one
study). What a patient is called: the folder that holds all of its files and nobody else's, as seen
from the root; where there is none, `patient-` and a hash of the number, keyed with the UID of its
study: who has a list of the numbers, but not the images, cannot tell which name is whose. Nothing
else of the patient is kept. Who names folders after patients has these names in the output, and
should give a CSV or rename them.
"""

import hashlib
import hmac
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from segthor import files
from segthor.dicom import DicomError, matching, stacks
from segthor.dicom.headers import CT, DAMAGED, STRUCTURES, UNREADABLE, Header, read
from segthor.dicom.series import Stack
from segthor.layouts import PREDICTIONS

WITHOUT_CT = "structure set without a CT"  # why a file is left aside
_PARALLEL = 16  # where files lie behind a network


@dataclass(frozen=True)
class Series:
    """name: stands for the series UID, which may hold a date. volumes: as `stacks.of_series`.

    paths: of all its images, those that are left aside as well.
    """

    name: str
    uid: str
    paths: tuple[str, ...]
    volumes: tuple[Stack | DicomError, ...]


@dataclass(frozen=True)
class Patient:
    """One patient's CT series and the structure sets that go with them.

    folder: the innermost one that holds all images. damaged: files among the patient's own that
    may be a slice or a structure set.
    """

    name: str
    folder: str
    series: tuple[Series, ...]
    structure_sets: tuple[Header, ...]
    damaged: tuple[str, ...] = ()

    @property
    def volumes(self) -> list[Stack | DicomError]:
        """Those of all series."""
        return [volume for series in self.series for volume in series.volumes]

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file of the patient's that decides what is read, sorted."""
        images = [path for series in self.series for path in series.paths]
        return tuple(sorted([*images, *(s.path for s in self.structure_sets), *self.damaged]))

    @cached_property
    def case(self) -> matching.Case:
        """The volume to work on and its structure set, or why there is none."""
        if self.damaged:
            message = (
                f"{self.damaged[0]}: damaged, and maybe a slice or the structure set of the "
                "patient whose files lie beside it; copy it again or remove it"
            )
            return matching.Case(problem=DicomError("file_damaged", message))
        return matching.case_of(self.volumes, self.structure_sets)


@dataclass(frozen=True)
class Index:
    """patients: sorted by name. left_aside: (why, path) of every file that is not used."""

    root: str
    patients: tuple[Patient, ...]
    left_aside: tuple[tuple[str, str], ...]


def of_folder(root: str) -> Index:
    """Looks through a folder and all below it, or at one file; InputError where it is not there."""
    paths = find(root)
    return of_files(paths, files.parent(root) if paths == [root] else root)


def of_files(paths, root: str) -> Index:
    """The index of some files below a folder, or of all that `find` found there."""
    return of_headers(headers(paths), root)


def headers(paths) -> list[Header]:
    """Of each file; many at a time where they lie behind a network, which is what takes time."""
    with ThreadPoolExecutor(_PARALLEL) as pool:
        return list((pool.map if any(map(files.is_url, paths)) else map)(read, paths))


def of_headers(found, root: str) -> Index:
    """The index of files whose headers were read."""
    images, structure_sets, aside = {}, [], []
    for header in sorted(found, key=lambda header: header.path):
        if header.kind == CT:
            images.setdefault(header.patient, []).append(header)
        elif header.kind == STRUCTURES:
            structure_sets.append(header)
        else:
            aside.append((header.kind, header.path))
    owners = {h.frame_of_reference_uid: p for p, held in images.items() for h in held}
    owned = {patient: [] for patient in images}
    for header in structure_sets:
        frames = [owners[uid] for uid in header.references.frames if uid in owners]
        owner = header.patient if header.patient in owned else (frames or [None])[0]
        if owner is None:
            aside.append((WITHOUT_CT, header.path))
        else:
            owned[owner].append(header)
    hidden = {patient: _hidden_name(patient, held) for patient, held in images.items()}
    names = hidden | _names({p: [h.path for h in images[p] + owned[p]] for p in images}, root)
    folders = {p: {files.parent(h.path) for h in images[p] + owned[p]} for p in images}
    damaged = {patient: [] for patient in images}
    for path in [path for kind, path in aside if kind in (DAMAGED, UNREADABLE)]:
        damaged.get(_neighbour(path, folders), []).append(path)
    patients = []
    for patient, held in images.items():
        series, left = _series(held)
        aside += left
        files_of = tuple(owned[patient]), tuple(damaged[patient])
        folder = common_folder(header.path for header in held)
        patients.append(Patient(names[patient], folder, series, *files_of))
    return Index(root, tuple(sorted(patients, key=lambda p: p.name)), tuple(sorted(aside)))


def find(root: str) -> list[str]:
    """Every file below a folder, sorted; links are followed once. Of a file, the file itself.

    Hidden files are left out, and so are folders of our own predictions: they hold structure sets.
    Raises InputError where there is neither.
    """
    if files.exists(root) and not files.is_dir(root):
        return [root]
    found, waiting, seen = [], [root], set()
    while waiting:
        folder = waiting.pop()
        real = folder if files.is_url(folder) else os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        names, folders = files.entries(folder)
        if PREDICTIONS not in names:
            found += [files.join(folder, name) for name in names]
            waiting += [files.join(folder, name) for name in folders]
    return sorted(found)


def common_folder(paths) -> str:
    """The innermost folder of files, of URLs too."""
    parts = [files.parent(path).split("/") for path in paths]
    return "/".join(os.path.commonprefix(parts)) or "/"


def listing(index: Index) -> str:
    """What was found, in plain text, without anything that tells who a patient is."""
    lines = [f"{len(index.patients)} patients in {index.root}"]
    for patient in index.patients:
        lines.append(patient.name)
        for series in patient.series:
            for volume in series.volumes:
                lines += [f"  series {series.name}: {line}" for line in _described(volume)]
        for structures in patient.structure_sets:
            lines.append(f"  structure set {_relative(structures.path, index.root)}")
        lines.append(f"  {_outcome(patient.case, index.root)}")
    counts = Counter(why for why, _ in index.left_aside)
    lines += ["left aside"] if counts else []
    for why, count in sorted(counts.items()):
        paths = [_relative(path, index.root) for kind, path in index.left_aside if kind == why]
        more = ", ..." if count > 3 else ""
        lines.append(f"  {count} {why}: {', '.join(paths[:3])}{more}")
    return "\n".join(lines)


def _described(volume):
    if isinstance(volume, DicomError):
        yield f"refused, {volume.code}: {volume}"
        return
    voxels = " x ".join(map(str, volume.shape))
    step_mm = sum(float(mm) ** 2 for mm in volume.affine[:3, 2]) ** 0.5
    spacing = " x ".join(f"{mm:.3g}" for mm in (*volume.pixel_spacing_mm[::-1], step_mm))
    yield f"{voxels} voxels of {spacing} mm, {len(volume.paths)} files"
    for code, message in volume.findings:
        yield f"warned, {code}: {message}"


def _outcome(case: matching.Case, root: str) -> str:
    if case.problem:
        return f"refused, {case.problem.code}: {case.problem}"
    drawn = _relative(case.structures.path, root) if case.structures else "no structure set"
    return f"used: series {series_name(case.stack.series_uid)}, {drawn}"


def _series(images) -> tuple[tuple[Series, ...], list[tuple[str, str]]]:
    """A patient's images by series, and what belongs to no volume."""
    by_uid, aside, found = {}, [], []
    for header in images:
        by_uid.setdefault(header.series_uid, []).append(header)
    for uid, held in sorted(by_uid.items()):
        volumes = stacks.of_series(held)
        aside += volumes.left_aside
        if volumes.volumes:
            paths = tuple(header.path for header in held)
            found.append(Series(series_name(uid), uid, paths, volumes.volumes))
    return tuple(found), aside


def series_name(uid: str) -> str:
    """What a series is called: nothing of its UID can be read from it."""
    return hashlib.sha256(uid.encode()).hexdigest()[:8]


def _hidden_name(patient: str, images) -> str:
    """patient: the hash of the number; see the top of this module."""
    key = min(header.study_uid or header.series_uid for header in images)
    return f"patient-{hmac.digest(key.encode(), patient.encode(), 'sha256').hex()[:12]}"


def _names(paths_of: dict[str, list[str]], root: str) -> dict[str, str]:
    """Patient to the name of its folder, for those that have one of their own."""
    folders = {
        patient: {tuple(_relative(path, root).split("/")[:-1]) for path in paths}
        for patient, paths in paths_of.items()
    }
    names = {}
    for patient, held in folders.items():
        common = tuple(os.path.commonprefix(list(held)))
        others = [folder for other in folders if other != patient for folder in folders[other]]
        own = [
            common[:depth]
            for depth in range(1, len(common) + 1)
            if not any(folder[:depth] == common[:depth] for folder in others)
        ]
        if own:
            names[patient] = "_".join(own[0])
        elif not others:
            names[patient] = files.name(files.absolute(root))
    counts = Counter(name.casefold() for name in names.values())
    return {p: name for p, name in names.items() if counts[name.casefold()] == 1}


def _neighbour(path: str, folders: dict[str, set[str]]) -> str | None:
    """The patient that alone has files in the innermost folder about a path where anyone has."""
    folder, near = path, []
    while folders and not near and folder != files.parent(folder):
        folder = files.parent(folder)
        below = folder.rstrip("/") + "/"
        near = [p for p, own in folders.items() if any(f"{f}/".startswith(below) for f in own)]
    return near[0] if len(near) == 1 else None


def _relative(path: str, root: str) -> str:
    return path.removeprefix(root.rstrip("/") + "/").replace(os.sep, "/")
