"""A folder of DICOM files to patients, their volumes and structure sets, by the headers alone.

Straight down: every file below the folder; its header; the patients (`who`); each one's volumes
(`volumes`); which structure sets and which damaged files are whose (`matching`, `belongings`).

What a patient is called: the outermost folder below the root that holds all of its files and
nobody else's; where there is none, `patient-` and a hash of the PatientID, keyed with the UID of
its study: who has a list of the numbers, but not the images, cannot tell which name is whose.
Nothing else of the patient is kept. Who names folders after patients has these names in the
output, and should give a CSV or rename them.
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
from segthor.dicom.volumes import Volume, series_name
from segthor.errors import InputError
from segthor.layouts import OUTPUT_FOLDERS, PREDICTIONS
from segthor.nifti import is_nifti

WITHOUT_CT = "structure set without a CT"  # why a file is left aside
_PARALLEL = 16  # where files lie behind a network
_MOST_KEPT = 1 << 15
_read_before: dict[str, tuple[str, Header]] = {}  # path to stamp and header
_OBJECT = re.compile(r".+_(rtstruct|seg|labelmap)\.dcm$")  # as serving.predict names them


@dataclass(frozen=True)
class Patient:
    """One patient of a tree.

    name: What the patient is called in every output.
    folder: The innermost folder that holds all images.
    person: Series and PatientIDs, and why they are one patient's.
    volumes: All of them, also those that cannot be used.
    structure_sets: Headers of structure sets and SEG.
    damaged: (path, series UID) of the patient's files that cannot be read; '' where it is not
      known of which series such a file may be a slice.
    """

    name: str
    folder: str
    person: who.Person
    volumes: tuple[Volume, ...]
    structure_sets: tuple[Header, ...]
    damaged: tuple[tuple[str, str], ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file that decides what is read of the patient, sorted."""
        images = [header.path for header in self.person.images]
        others = [one.path for one in self.structure_sets] + [path for path, _ in self.damaged]
        return tuple(sorted([*images, *others]))

    @cached_property
    def cases(self) -> list[matching.Case]:
        """The volumes that were drawn on; without a structure set, the only volume."""
        if self._damage(""):
            return [matching.Case(problem=self._damage(""))]
        try:
            cases = matching.cases_of(self.volumes, self.structure_sets)
        except Exception as error:  # whatever it is, the other patients must not suffer
            return [matching.Case(problem=guard.read_error(self.folder, error))]
        return [self.checked(case) for case in cases]

    @property
    def case(self) -> matching.Case:
        """The only case, or the first one."""
        return self.cases[0]

    @cached_property
    def drawn_on(self) -> dict[str, Header]:
        """Name of a volume to its structure set, for volumes that were drawn on."""
        return {case.volume.name: case.structures for case in self.cases if case.structures}

    def checked(self, case: matching.Case) -> matching.Case:
        """The case, with the damage that keeps it from being used, if any."""
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
    """patients: sorted by name. left_aside: (why, path) of every file that is not used."""

    root: str
    patients: tuple[Patient, ...]
    left_aside: tuple[tuple[str, str], ...]


def of_folder(root: str) -> Index:
    """The index of a folder and all below it, or of one file; InputError where it is missing."""
    paths = find(root)
    return of_files(paths, files.parent(root) if paths == [root] else root)


def of_files(paths, root: str) -> Index:
    """The index of some files below a folder, or of all that `find` gives for it."""
    return of_headers(headers(paths), root)


def headers(paths) -> list[Header]:
    """The header of each file; many at a time behind a network, where waiting takes the time.

    Local headers are read once in a process. Where one of the files changed, all are read anew:
    size and time of change may miss what was done to the others at the same moment.
    """
    if any(map(files.is_url, paths)):
        with ThreadPoolExecutor(_PARALLEL) as pool:
            return list(pool.map(_read_in_time, paths))
    stamps = {path: _stamp(path) for path in paths}
    known = [path for path in paths if path in _read_before]
    if len(_read_before) > _MOST_KEPT or any(_read_before[p][0] != stamps[p] for p in known):
        _read_before.clear()
    for path, stamp in stamps.items():
        if path not in _read_before:
            _read_before[path] = stamp, _read_in_time(path)
    return [_read_before[path][1] for path in paths]


def _read_in_time(path: str) -> Header:
    try:
        return guard.within(guard.SECONDS, path, read, path)
    except InputError:
        return Header(path, UNREADABLE)


def _stamp(path: str) -> str:
    try:
        return files.stamp(path)
    except (InputError, OSError):  # a link to nothing
        return ""


def of_headers(read_headers, root: str) -> Index:
    """The index of files whose headers were read; every file is in exactly one place of it."""
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
        held, left = volumes.of_person(person)
        aside += left
        folder = common_folder(header.path for header in person.images)
        files_of = tuple(sets[k]), tuple(damaged.get(k, ()))
        patients.append(Patient(names[k], folder, person, tuple(held), *files_of))
    return Index(root, tuple(sorted(patients, key=lambda p: p.name)), tuple(sorted(aside)))


def find(root: str) -> list[str]:
    """Every file below a folder, sorted; links are followed once. Of a file, the file itself.

    Hidden files are left out, and so is what serving.predict wrote, wherever it lies.
    Raises InputError where there is neither.
    """
    if files.exists(root) and not files.is_dir(root):
        return [root]
    paths, waiting, seen = [], [(root, False)], set()
    while waiting:
        folder, has_objects = waiting.pop()
        real = folder if files.is_url(folder) else os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            names, folders = files.entries(folder)
        except (InputError, OSError):  # a closed folder, or a path that is too long
            if folder == root:
                raise
            paths.append(folder)  # `headers.read` says that it cannot be opened
            continue
        is_output = PREDICTIONS in names
        if is_output:
            names = [n for n in names if not is_nifti(n) and not n.endswith((".json", ".csv"))]
            folders = [name for name in folders if name not in OUTPUT_FOLDERS or name == "dicom"]
        if has_objects:
            names = [name for name in names if not _OBJECT.match(name)]
        paths += [files.join(folder, name) for name in names]
        waiting += [(files.join(folder, name), is_output and name == "dicom") for name in folders]
    return sorted(paths)


def common_folder(paths) -> str:
    """The innermost folder of files, of URLs too."""
    parts = [files.parent(path).split("/") for path in paths]
    return "/".join(os.path.commonprefix(parts)) or "/"


def relative(path: str, root: str) -> str:
    """A path as seen from the root, for people."""
    return path.removeprefix(root.rstrip("/") + "/").replace(os.sep, "/")


def _names(persons, sets, root: str) -> dict[int, str]:
    """Patient to its name: the folder of its own, else one that no PatientID follows from."""
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
    """person.numbers are hashes of the PatientID; see the top of this module."""
    key = min(header.study_uid or header.series_uid for header in person.images)
    digest = hmac.digest(key.encode(), person.numbers[0].encode(), "sha256").hex()
    return f"patient-{digest[:12]}"


def _folder_names(paths_of: dict[int, list[str]], root: str) -> dict[int, str]:
    """Patient to the name of its folder, for those that have one of their own."""
    folders = {
        patient: {tuple(relative(path, root).split("/")[:-1]) for path in paths}
        for patient, paths in paths_of.items()
    }
    prefixes = {
        patient: {folder[:depth] for folder in held for depth in range(len(folder) + 1)}
        for patient, held in folders.items()
    }
    holders = Counter(prefix for own in prefixes.values() for prefix in own)
    names = {}
    for patient, held in folders.items():
        common = tuple(os.path.commonprefix(list(held)))
        own = [common[:d] for d in range(1, len(common) + 1) if holders[common[:d]] == 1]
        if own:
            names[patient] = "_".join(own[0])
        elif len(folders) == 1:
            names[patient] = files.name(files.absolute(root))
    counts = Counter(name.casefold() for name in names.values())
    return {p: name for p, name in names.items() if counts[name.casefold()] == 1}
