"""The patients of a DICOM tree as every program takes them: one per volume to work on."""

import hashlib
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, replace

from segthor import fields, files, json_files, layouts
from segthor.dicom import DicomError, index, matching, places
from segthor.dicom.headers import DAMAGED, DRAFT, SECONDARY, STRUCTURES, UNREADABLE
from segthor.dicom.matching import Case
from segthor.errors import InputError
from segthor.patients import Patient

DRAWN, EACH = "drawn", "each"  # which of a patient's volumes are taken
FEWEST_SLICES = 8  # volumes of fewer are passed over where a patient has longer ones
_VERSION = 2  # of what is kept of a tree; raised whenever the same tree gives other patients
_LOST = {
    DAMAGED: ("file_damaged", "a damaged DICOM file; copy it again or remove it"),
    UNREADABLE: ("file_damaged", "cannot be opened; copy it again or remove it"),
    index.WITHOUT_CT: ("file_missing", "a structure set without its CT; export both, or remove it"),
}


@dataclass(frozen=True)
class _Kept:
    """Patients of a tree. mark: changes when a file of the tree or a question does."""

    mark: str
    patients: tuple[Patient, ...]


def patients(root: str, contoured, kept: str = "", series: str | tuple = "") -> list[Patient]:
    """Every patient at a place, each with its CT and its structure set, or why there is none.

    A patient of several volumes in use gives one for each, named <patient>_<volume>.

    Args:
      root: A place, or a tree of many patients.
      contoured: Names of the organs that a structure set may hold; none: contours are not wanted,
        and a patient is not refused for the structure sets.
      kept: A JSON file that keeps the patients, so that no header is read again before a file of
        the tree has another path, size or time of change.
      series: DRAWN, the volumes that were drawn on; EACH, all of them; or (patient, volume) pairs.
        By default DRAWN where contours are wanted, else EACH.

    Raises InputError where there is no CT series.
    """
    folder, _ = places.parts(root)
    if not files.exists(folder):
        raise InputError(f"{root}: expected DICOM files, found no such folder or file")
    series = series or (DRAWN if contoured else EACH)
    asked = repr((_VERSION, root, tuple(contoured), series, places.stamp(root)))
    mark = hashlib.sha256(asked.encode(errors="surrogatepass")).hexdigest()
    known = _read_kept(kept)
    if known is None or known.mark != mark:
        known = _Kept(mark, tuple(_patients(root, contoured, series)))
        if kept:
            json_files.write(kept, asdict(known), durable=False)
    return list(known.patients)


def _read_kept(path: str) -> _Kept | None:
    """None where there is none, or one that cannot be read."""
    try:
        return fields.from_json(_Kept, json_files.read(path), path) if path else None
    except InputError:
        return None


def _patients(root: str, contoured, series) -> list[Patient]:
    folder, name = places.parts(root)
    tree = index.of_folder(folder)
    held = [one for one in tree.patients if not name or places.volumes_of(one, name)]
    if not held and name:
        raise InputError(f"{root}: expected the series {name}, found others; --list names them")
    if not held:
        raise InputError(f"{root}: expected at least one scan, found none{_why_none(tree)}")
    is_tree = files.is_dir(folder) and not name
    chosen = _choose(held, series, root)
    below = _Below(tree)
    made = []
    for one in held:
        cases = _named_case(one, name, contoured) if name else _cases(one, contoured, chosen)
        for case in cases:
            at = below.place(one, case) if is_tree else root
            made.append(_patient(one, case, len(cases) > 1, at, contoured))
            if is_tree and not made[-1].fault:
                made[-1] = replace(made[-1], ct_files=below.own_files(case))
    return made + (_lost(tree) if is_tree else [])


def _choose(held, series, root: str):
    """DRAWN, EACH, or patient to the names of its volumes."""
    if isinstance(series, str):
        return series
    known = {one.name: {volume.name for volume in one.volumes} for one in held}
    chosen = defaultdict(list)
    for patient, name in series:
        if name not in known.get(patient, ()):
            raise InputError(
                f"{root}: --series: expected a patient and a series of the tree, found {patient}, "
                f"{name}; --list names them"
            )
        chosen[patient].append(name)
    return dict(chosen)


def _cases(one: index.Patient, contoured, chosen) -> list[Case]:
    """What is used of a patient. chosen: as `_choose` gives it."""
    if isinstance(chosen, dict):
        names = chosen.get(one.name, ())
        return [_case_of(one, v) for v in one.volumes if v.name in names]
    if chosen == EACH:
        volumes = predictable(one.volumes)
        return [_case_of(one, volume) for volume in volumes] or one.cases
    if contoured or not one.cases[0].problem:
        return one.cases
    return [one.checked(matching.only_volume(one.volumes))]


def predictable(volumes) -> list:
    """All volumes but intensity projections and short ones; these too where there are no others."""
    long = [v for v in volumes if v.problem or v.stack.shape[2] >= FEWEST_SLICES]
    direct = [volume for volume in long if not volume.traits.is_projection]
    return direct or long or list(volumes)


def _case_of(one: index.Patient, volume) -> Case:
    """A volume with the structure set on it, if any."""
    drawn = next((case for case in one.cases if case.volume is volume), None)
    return one.checked(drawn or Case(volume, problem=volume.problem))


def _named_case(one: index.Patient, name: str, contoured) -> list[Case]:
    """The volume that was asked for; of a series of several, the one that was drawn on."""
    volumes = places.volumes_of(one, name)
    drawn = [case for case in one.cases if case.volume in volumes and not case.problem]
    if len(drawn) == 1:
        return drawn
    return [one.checked(matching.only_volume(volumes))]


def _patient(one: index.Patient, case: Case, is_several: bool, at: str, contoured) -> Patient:
    """at: where its CT lies."""
    volume = case.volume.name if case.volume else ""
    name = f"{one.name}_{volume}" if is_several else one.name
    if case.problem and (contoured or _keeps_out(case)):
        code, fault = case.problem.code, str(case.problem)
        return Patient(name, at, organs=(), fault=fault, fault_code=code, series=volume)
    labels = case.structures.path if case.structures and contoured else ""
    return Patient(name, at, labels, organs=tuple(contoured), series=volume)


def _keeps_out(case: Case) -> bool:
    """Whether a volume cannot be used even where its structure sets do not matter."""
    return case.volume is None or case.problem.code != "structures_ambiguous"


class _Below:
    """Files and volumes at or below every folder of a tree."""

    def __init__(self, tree: index.Index):
        self._top = tree.root.rstrip("/")
        self._files, self._volumes = Counter(), defaultdict(set)
        paths = [path for one in tree.patients for path in one.paths]
        paths += [path for _, path in tree.left_aside]
        for path in set(paths):
            self._files.update(self._about(path))
        for one in tree.patients:
            for volume in one.volumes:
                for folder in {folder for path in volume.paths for folder in self._about(path)}:
                    self._volumes[folder].add(volume)

    def _about(self, path: str):
        """The folders that hold a file, up to the tree's root."""
        folder = files.parent(path)
        while folder and len(folder) >= len(self._top):
            yield folder
            folder = files.parent(folder) if folder not in (self._top, "/") else ""

    def place(self, one: index.Patient, case: Case) -> str:
        """Where the volume of a case lies; the patient's folder where it is not known which."""
        if case.volume is None or not case.volume.paths:
            return one.folder
        folder = index.common_folder(case.volume.paths)
        if self._volumes[folder] == {case.volume}:
            return folder
        return f"{folder}{places.SEPARATOR}{case.volume.name}"

    def own_files(self, case: Case) -> tuple[str, ...]:
        """The files of a case, where others lie below their folder; else none."""
        folder = index.common_folder(case.volume.paths)
        own = {*case.volume.paths, *case.volume.second_images}
        own |= {case.structures.path} if case.structures else set()
        inside = [path for path in own if path.startswith(folder.rstrip("/") + "/")]
        return () if self._files[folder] == len(inside) else tuple(sorted(own))


def drawn_on(root: str, scans) -> list[Patient]:
    """The structure sets of a tree, our own drafts too, each with the CT that it was drawn on.

    scans: patients with a CT elsewhere. Gives those of them that have a structure set, with it; its
    `fault` says why there is none to choose. A CT that cannot be read has none.
    """
    sets = [
        header for header in index.headers(index.find(root)) if header.kind in (STRUCTURES, DRAFT)
    ]
    volumes, owners = {}, {}
    for scan in scans:
        try:
            patient, volume = places.find_volume(scan.ct, scan.ct_files)
        except DicomError:  # reported where the CT itself is read
            continue
        volumes[scan.name] = volume
        images = [header for header in patient.person.images if header.path in volume.paths]
        owners[scan.name] = matching.Owner(patient.person.numbers, images)
    held = defaultdict(list)
    for header in sets:
        enough = 3 if header.references.series else 2
        held[matching.owner_of(header, owners, (), enough)].append(header)
    found = []
    for scan in scans:
        if scan.name in held:
            (case,) = matching.cases_of([volumes[scan.name]], held[scan.name])
            drawn = replace(scan, labels="", masks="", label_values=())
            if case.problem:
                fault, code = str(case.problem), case.problem.code
                found.append(replace(drawn, fault=fault, fault_code=code))
            else:
                found.append(replace(drawn, labels=case.structures.path))
    return found


def _lost(tree: index.Index) -> list[Patient]:
    """Files in folders where no patient has any: they may be all that is left of one."""
    held = {f"{one.folder}/" for one in tree.patients}
    held |= {files.parent(s.path) + "/" for one in tree.patients for s in one.structure_sets}
    known = {path for one in tree.patients for path, _ in one.damaged}
    lost, root = {}, tree.root.rstrip("/")
    for kind, path in tree.left_aside:
        if kind not in _LOST or path in known:
            continue
        folders = [part for part in files.parent(path).removeprefix(root).split("/") if part]
        for depth in range(1, len(folders) + 1):
            folder = "/".join([root, *folders[:depth]])
            if not any(other.startswith(f"{folder}/") for other in held):
                code, why = _LOST[kind]
                name = "_".join(folders[:depth])
                lost[name] = Patient(
                    name, folder, organs=(), fault=f"{path}: {why}", fault_code=code
                )
                break
    return list(lost.values())


def _why_none(tree: index.Index) -> str:
    counts = Counter(why for why, _ in tree.left_aside)
    parts = [", ".join(f"{count} {why}" for why, count in sorted(counts.items()))]
    text = f"; left aside: {parts[0]}" if counts else ""
    if SECONDARY in counts:
        text += (
            "; secondary captures are pictures without positions and HU: export the original CT "
            "images"
        )
    return f"{text}; looked for {layouts.LOOKED_FOR}"
