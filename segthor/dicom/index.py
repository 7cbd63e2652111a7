"""Sorts a folder of DICOM files into patients, their volumes and structure sets, by the headers.

The order of work: find all files below the folder; read their headers; group the CT images by
patient (`who`); make each patient's volumes (`volumes`); assign structure sets and damaged files to
patients (`matching`, `belongings`).

The name of a patient is that of the outermost folder below the root that holds all of its files and
no other patient's; where there is none, `patient-` and a hash of the PatientID, keyed with the UID
of its study, which cannot be reversed with a list of all PatientIDs alone. No other identifying
value is stored. If folders are named after patients, so is the output: give a CSV, or rename them.
"""

import hmac
import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

from segthor import files, guard
from segthor.dicom import DicomError, belongings, matching, volumes, who
from segthor.dicom.headers import CT, STRUCTURES, UNREADABLE, Header, read
from segthor.dicom.volumes import SeriesVolume, series_name
from segthor.errors import InputError
from segthor.layouts import PREDICTIONS

WITHOUT_CT = "structure set without a CT"  # why a file is left aside
_PARALLEL = 16  # requests at once to another file system
_MOST_CACHED = 1 << 15
_cache: dict[str, tuple[str, Header]] = {}  # path to stamp and header
# Names of serving.predict's own files, by subfolder; '' is the folder that holds PREDICTIONS.
_OUTPUTS = {
    "": re.compile(r".+(\.nii|\.nii\.gz|\.json|\.csv)$", re.IGNORECASE),
    "cases": re.compile(r".+\.json$"),
    "probabilities": re.compile(r".+\.nii\.gz$"),
    "dicom": re.compile(r".+_(rtstruct|seg|labelmap)\.dcm$"),
}


@dataclass(frozen=True)
class TreePatient:
    """One patient of a tree.

    name: Name of the patient in every output.
    folder: The innermost folder that holds all images.
    person: Series and PatientIDs, and the reasons why they are one patient's.
    volumes: All volumes, including those that cannot be used.
    structure_sets: Headers of structure sets and SEGs.
    damaged: (path, series UID) of files that cannot be read; '' for an unknown series.
    """

    name: str
    folder: str
    person: who.Person
    volumes: tuple[SeriesVolume, ...]
    structure_sets: tuple[Header, ...]
    damaged: tuple[tuple[str, str], ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """All files of the patient, sorted."""
        images = [header.path for header in self.person.images]
        others = [one.path for one in self.structure_sets] + [path for path, _ in self.damaged]
        return tuple(sorted([*images, *others]))

    @cached_property
    def cases(self) -> list[matching.Case]:
        """The volumes that have a structure set; without any structure set, the only volume."""
        if self._damage(""):
            return [matching.Case(problem=self._damage(""))]
        try:
            cases = matching.cases_of(self.volumes, self.structure_sets)
        except Exception as error:  # one patient's error must not stop the others
            return [matching.Case(problem=guard.read_error(self.folder, error))]
        return [self.add_damage(case) for case in cases]

    def volumes_named(self, name: str) -> list[SeriesVolume]:
        """The volumes with this name, or of the series with this name; all for ''."""
        return [
            volume
            for volume in self.volumes
            if name in ("", volume.name, series_name(volume.series_uid))
        ]

    def case_named(self, name: str) -> matching.Case:
        """The volume with this name; of several, the only one with a structure set."""
        volumes = self.volumes_named(name)
        drawn = [case for case in self.cases if case.volume in volumes and not case.problem]
        return drawn[0] if len(drawn) == 1 else self.add_damage(matching.only_volume(volumes))

    def add_damage(self, case: matching.Case) -> matching.Case:
        """The case, with a problem if a damaged file may belong to its series."""
        if case.volume is None or case.problem:
            return case
        problem = self._damage("") or self._damage(case.volume.series_uid)
        return replace(case, problem=problem) if problem else case

    def _damage(self, series_uid: str) -> DicomError | None:
        for path, uid in self.damaged:
            if uid == series_uid:
                message = (
                    f"{path}: damaged, and maybe a slice or the structure set of the patient "
                    "whose files lie beside it; copy it again or remove it"
                )
                return DicomError("file_damaged", message)
        return None


@dataclass(frozen=True)
class Index:
    """All files of a folder.

    root: The folder.
    patients: The patients, sorted by name.
    left_aside: (reason, path) of every file that is not used.
    """

    root: str
    patients: tuple[TreePatient, ...]
    left_aside: tuple[tuple[str, str], ...]


def index_folder(root: str) -> Index:
    """Indexes a folder with all below it, or one file; InputError where it is missing."""
    paths = find(root)
    return index_headers(headers(paths), files.parent(root) if paths == [root] else root)


def headers(paths) -> list[Header]:
    """The headers of files; those of other file systems are read in parallel.

    Headers of local files are cached. If the stamp of one file has changed, all are read again: the
    clock of a file system is coarse, so others may have changed with the same stamp.
    """
    if any(map(files.is_url, paths)):
        with ThreadPoolExecutor(_PARALLEL) as pool:
            return [header for (header,) in pool.map(lambda path: _read_in_time([path]), paths)]
    stamps = {path: stamp(path) for path in paths}
    known = [path for path in paths if path in _cache]
    if len(_cache) > _MOST_CACHED or any(_cache[path][0] != stamps[path] for path in known):
        _cache.clear()
    missing = [path for path in stamps if path not in _cache]
    for path, header in zip(missing, _read_in_time(missing), strict=True):
        _cache[path] = stamps[path], header
    return [_cache[path][1] for path in paths]


def clear_cache() -> None:
    """Clears the cache of headers, for a process that runs for a long time."""
    _cache.clear()


def _read_in_time(paths) -> list[Header]:
    return guard.map_within(guard.SECONDS, read, paths, lambda path: Header(path, UNREADABLE))


def stamp(path: str) -> str:
    """As `files.stamp`; '' for a file that does not exist, such as the target of a broken link."""
    try:
        return files.stamp(path)
    except (InputError, OSError):
        return ""


def index_headers(read_headers, root: str) -> Index:
    """Indexes files by their headers; every file is in exactly one volume, set or `left_aside`."""
    ordered = sorted(read_headers, key=lambda header: header.path)
    images = [header for header in ordered if header.kind == CT]
    persons = who.group_patients(images, root)
    near = belongings.Neighbours({k: p.images for k, p in enumerate(persons)}, root)
    sets, aside = {k: [] for k in range(len(persons))}, []
    owners = {k: matching.Owner(p.numbers, p.images) for k, p in enumerate(persons)}
    for header in ordered:
        if header.kind == STRUCTURES:
            owner = matching.owner_of(header, owners, near.beside(header.path))
            if owner is None:
                aside.append((WITHOUT_CT, header.path))
            else:
                sets[owner].append(header)
        elif header.kind != CT:
            aside.append((header.kind, header.path))
    damaged, aside = belongings.share_damaged(aside, near, images)
    names = _names(persons, sets, root)
    patients = []
    for k, person in enumerate(persons):
        made, left = volumes.make_volumes(person)
        aside += left
        folder = common_folder(header.path for header in person.images)
        others = tuple(sets[k]), tuple(damaged.get(k, ()))
        patients.append(TreePatient(names[k], folder, person, tuple(made), *others))
    return Index(root, tuple(sorted(patients, key=lambda p: p.name)), tuple(sorted(aside)))


def find(root: str) -> list[str]:
    """All files below a folder, sorted, or a single file; InputError where there is neither.

    Follows links, each folder once. Leaves out hidden files and those that serving.predict wrote.
    """
    if files.exists(root) and not files.is_dir(root):
        return [root]
    paths, waiting, seen = [], [(root, None)], set()
    while waiting:
        folder, own_names = waiting.pop()  # own_names: names of serving.predict's files there
        real = folder if files.is_url(folder) else os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            names, folders = files.entries(folder)
        except (InputError, OSError):  # no permission, or a path that is too long
            if folder == root:
                raise
            paths.append(folder)  # `headers.read` reports that it cannot be opened
            continue
        is_output = PREDICTIONS in names
        own_names = _OUTPUTS[""] if is_output else own_names
        names = [name for name in names if not (own_names and own_names.match(name))]
        paths += [files.join(folder, name) for name in names]
        waiting += [
            (files.join(folder, n), _OUTPUTS.get(n) if is_output else None) for n in folders
        ]
    return sorted(paths)


def common_folder(paths) -> str:
    """The innermost folder that holds all of these files or URLs."""
    parts = [files.parent(path).split("/") for path in paths]
    return "/".join(os.path.commonprefix(parts)) or "/"


def relative(path: str, root: str) -> str:
    """A path relative to the root."""
    return path.removeprefix(root.rstrip("/") + "/").replace(os.sep, "/")


def _names(persons, sets, root: str) -> dict[int, str]:
    """Patient to its name: that of its own folder, else one that does not reveal the PatientID."""
    paths = {k: [h.path for h in (*p.images, *sets[k])] for k, p in enumerate(persons)}
    hidden = {k: _hidden_name(person) for k, person in enumerate(persons)}
    named = hidden | _folder_names(paths, root)
    counts = Counter(hidden.values())
    for k, name in hidden.items():  # several patients of one number and study
        if counts[name] > 1 and named[k] == name:
            first = min(header.sop_instance_uid for header in persons[k].images)
            named[k] = f"{name}-{series_name(first)}"
    return named


def _hidden_name(person: who.Person) -> str:
    """'patient-' and a keyed hash; see the docstring of this module."""
    key = min(header.study_uid or header.series_uid for header in person.images)
    digest = hmac.digest(key.encode(), person.numbers[0].encode(), "sha256").hex()
    return f"patient-{digest[:12]}"


def _folder_names(paths_of: dict[int, list[str]], root: str) -> dict[int, str]:
    """Patient to the name of its folder, for patients with a folder of their own."""
    folders = {
        patient: {tuple(relative(path, root).split("/")[:-1]) for path in paths}
        for patient, paths in paths_of.items()
    }
    prefixes = {
        patient: {folder[:depth] for folder in own for depth in range(len(folder) + 1)}
        for patient, own in folders.items()
    }
    holders = Counter(prefix for own in prefixes.values() for prefix in own)
    names = {}
    for patient, own in folders.items():
        common = tuple(os.path.commonprefix(list(own)))
        alone = [common[:d] for d in range(1, len(common) + 1) if holders[common[:d]] == 1]
        if alone:
            names[patient] = "_".join(alone[0])
        elif len(folders) == 1:
            names[patient] = files.name(files.absolute(root))
    counts = Counter(name.casefold() for name in names.values())
    return {p: name for p, name in names.items() if counts[name.casefold()] == 1}
