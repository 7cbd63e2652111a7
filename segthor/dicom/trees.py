"""The patients of a DICOM tree, as `segthor.patients.Patient` of every volume to use."""

import hashlib
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, replace

from segthor import fields, files, json_files, layouts
from segthor.dicom import DicomError, belongings, index, matching, places
from segthor.dicom.headers import DAMAGED, DRAFT, SECONDARY, STRUCTURES, UNREADABLE
from segthor.dicom.matching import Case
from segthor.dicom.volumes import find_phases
from segthor.errors import InputError
from segthor.patients import Patient

DRAWN, EACH = "drawn", "each"  # which of a patient's volumes are used
FEWEST_SLICES = 8  # shorter volumes are skipped if the patient has longer ones
_VERSION = 3  # of the cache; increase it when the same tree gives other patients
_AMBIGUOUS = "structures_ambiguous"
_LOST = {
    DAMAGED: ("file_damaged", "a damaged DICOM file; copy it again or remove it"),
    UNREADABLE: ("file_damaged", "cannot be opened; copy it again or remove it"),
    index.WITHOUT_CT: ("file_missing", "a structure set without its CT; export both, or remove it"),
}


@dataclass(frozen=True)
class _Cache:
    """The cached patients of a tree.

    mark: Digest of the arguments and of the stamp of the tree.
    patients: The patients.
    """

    mark: str
    patients: tuple[Patient, ...]


def patients(root: str, contoured, cache: str = "", series: str | tuple = "") -> list[Patient]:
    """Finds all patients of a DICOM tree, with their CT and structure set, or a `fault`.

    A patient with several volumes to use becomes one patient for each, named <patient>_<volume>.

    Args:
      root: A tree of patients, or the place of one volume; see `segthor.dicom.places`.
      contoured: Names of the organs that a structure set may contain. Without any, contours are not
        needed, and problems of structure sets are no fault.
      cache: Path of a JSON file for the patients, or ''. It is used as long as no file of the tree
        has another path, size or time of change, so that no header needs to be read again.
      series: DRAWN, volumes with a structure set; EACH, all volumes; or (patient, volume) pairs. By
        default DRAWN if contours are needed, else EACH.

    Raises:
      InputError: There is no CT series.
    """
    folder, _ = places.parts(root)
    if not files.exists(folder):
        raise InputError(f"{root}: expected DICOM files, found no such folder or file")
    series = series or (DRAWN if contoured else EACH)
    arguments = repr((_VERSION, root, tuple(contoured), series, places.stamp(root)))
    digest = hashlib.sha256(arguments.encode(errors="surrogatepass")).hexdigest()
    cached = _read_cache(cache)
    if cached is None or cached.mark != digest:
        cached = _Cache(digest, tuple(_patients(root, contoured, series)))
        if cache:
            json_files.write(cache, asdict(cached), durable=False)
    return list(cached.patients)


def _read_cache(path: str) -> _Cache | None:
    """The cache, or None where there is none that can be read."""
    try:
        return fields.from_json(_Cache, json_files.read(path), path) if path else None
    except InputError:
        return None


def _patients(root: str, contoured, series) -> list[Patient]:
    folder, name = places.parts(root)
    tree = index.index_folder(folder)
    patients = [one for one in tree.patients if not name or one.volumes_named(name)]
    if not patients and name:
        raise InputError(f"{root}: expected the series {name}, found others; --list names them")
    if not patients:
        raise InputError(f"{root}: expected at least one scan, found none{_explain_none(tree)}")
    is_tree = files.is_dir(folder) and not name
    chosen = _choose(patients, series, root)
    contents = _Contents(tree)
    made = []
    for one in patients:
        phases = find_phases(one.volumes)
        cases = [one.case_named(name)] if name else _cases(one, contoured, chosen)
        for case in cases:
            place = contents.place(one, case) if is_tree else root
            made.append(_patient(one, case, len(cases) > 1, place, contoured))
            if len(cases) > 1 and case.volume and case.volume.name in phases:
                first, phase = phases[case.volume.name]
                made[-1] = replace(made[-1], phases=first, phase=phase)
            if is_tree and not made[-1].fault:
                made[-1] = replace(made[-1], ct_files=contents.own_files(case))
    return made + (_lost(tree) if is_tree else [])


def _choose(patients, series, root: str):
    """The volumes to use: DRAWN, EACH, or patient's name to names of volumes."""
    if isinstance(series, str):
        return series
    known = {one.name: {volume.name for volume in one.volumes} for one in patients}
    chosen = defaultdict(list)
    for patient, name in series:
        if name not in known.get(patient, ()):
            raise InputError(
                f"{root}: --series: expected a patient and a series of the tree, found {patient}, "
                f"{name}; --list names them"
            )
        chosen[patient].append(name)
    return dict(chosen)


def _cases(one: index.TreePatient, contoured, chosen) -> list[Case]:
    """The volumes of a patient to use. chosen: As from `_choose`."""
    if isinstance(chosen, dict):
        names = chosen.get(one.name, ())
        return [_case_of(one, v) for v in one.volumes if v.name in names]
    if chosen == EACH:
        return [_case_of(one, volume) for volume in predictable(one.volumes)] or one.cases
    if contoured or not one.cases[0].problem:
        return one.cases
    return [one.add_damage(matching.only_volume(one.volumes))]


def predictable(volumes) -> list:
    """The volumes without intensity projections and short ones, unless there are no others."""
    long = [v for v in volumes if v.problem or v.stack.shape[2] >= FEWEST_SLICES]
    direct = [volume for volume in long if not volume.traits.is_projection]
    return direct or long or list(volumes)


def _case_of(one: index.TreePatient, volume) -> Case:
    """A volume with its structure set, if any."""
    drawn = next((case for case in one.cases if case.volume is volume), None)
    return one.add_damage(drawn or Case(volume, problem=volume.problem))


def _patient(
    one: index.TreePatient, case: Case, is_several: bool, place: str, contoured
) -> Patient:
    volume = case.volume.name if case.volume else ""
    name = f"{one.name}_{volume}" if is_several else one.name
    # Which structure set is meant matters only where contours are needed.
    is_ambiguous = bool(case.volume and case.problem and case.problem.code == _AMBIGUOUS)
    if case.problem and (contoured or not is_ambiguous):
        code, fault = case.problem.code, str(case.problem)
        return Patient(name, place, organs=(), fault=fault, fault_code=code, series=volume)
    labels = case.structures.path if case.structures and contoured else ""
    return Patient(name, place, labels, organs=tuple(contoured), series=volume)


class _Contents:
    """The number of files and the volumes in each folder of a tree and below it."""

    def __init__(self, tree: index.Index):
        self._num_files, self._volumes = Counter(), defaultdict(set)
        paths = {path for one in tree.patients for path in one.paths}
        for path in paths | {path for _, path in tree.left_aside}:
            self._num_files.update(belongings.folders_above(path, tree.root))
        for one in tree.patients:
            for volume in one.volumes:
                for path in volume.paths:
                    for folder in belongings.folders_above(path, tree.root):
                        self._volumes[folder].add(volume)

    def place(self, one: index.TreePatient, case: Case) -> str:
        """The place of a case's volume; the patient's folder if the volume is not known."""
        if case.volume is None or not case.volume.paths:
            return one.folder
        folder = index.common_folder(case.volume.paths)
        if self._volumes[folder] == {case.volume}:
            return folder
        return f"{folder}{places.SEPARATOR}{case.volume.name}"

    def own_files(self, case: Case) -> tuple[str, ...]:
        """The files of a case if other files lie below their folder, else ()."""
        folder = index.common_folder(case.volume.paths)
        own = {*case.volume.paths, *case.volume.second_images}
        own |= {case.structures.path} if case.structures else set()
        inside = [path for path in own if path.startswith(folder.rstrip("/") + "/")]
        return () if self._num_files[folder] == len(inside) else tuple(sorted(own))


def drawn_on(root: str, scans) -> list[Patient]:
    """Finds the structure sets of given scans in a tree, including our own drafts.

    scans: Patients with a CT, which may lie elsewhere.

    Returns:
      The patients that have a structure set, with its path in `labels`, or with a `fault` if none
      can be chosen. A patient whose CT cannot be read has none.
    """
    volumes, owners = {}, {}
    for scan in scans:
        try:
            patient, volume = places.find_volume(scan.ct, scan.ct_files)
        except DicomError:  # reported when the CT is read
            continue
        volumes[scan.name] = volume
        images = [header for header in patient.person.images if header.path in volume.paths]
        owners[scan.name] = matching.Owner(patient.person.numbers, images)
    sets = defaultdict(list)  # name of the scan to headers of its structure sets
    for header in index.headers(index.find(root)):
        if header.kind in (STRUCTURES, DRAFT):
            enough = 3 if header.references.series else 2
            sets[matching.owner_of(header, owners, (), enough)].append(header)
    names = [scan for scan in scans if scan.name in sets]
    return [_with_structures(scan, volumes[scan.name], sets[scan.name]) for scan in names]


def _with_structures(scan: Patient, volume, structure_sets) -> Patient:
    """The patient with the structure set of its volume, or a fault."""
    (case,) = matching.cases_of([volume], structure_sets)
    scan = replace(scan, labels="", masks="", label_values=())
    if case.problem:
        return replace(scan, fault=str(case.problem), fault_code=case.problem.code)
    return replace(scan, labels=case.structures.path)


def _lost(tree: index.Index) -> list[Patient]:
    """Patients with a fault for unusable files in folders without a patient's files.

    Such files may be all that is left of a patient, which must not disappear in silence.
    """
    used = {f"{one.folder}/" for one in tree.patients}
    used |= {files.parent(s.path) + "/" for one in tree.patients for s in one.structure_sets}
    known = {path for one in tree.patients for path, _ in one.damaged}
    lost, root = {}, tree.root.rstrip("/")
    for kind, path in tree.left_aside:
        if kind not in _LOST or path in known:
            continue
        folders = [part for part in files.parent(path).removeprefix(root).split("/") if part]
        for depth in range(1, len(folders) + 1):
            folder = "/".join([root, *folders[:depth]])
            if not any(other.startswith(f"{folder}/") for other in used):
                code, reason = _LOST[kind]
                name, fault = "_".join(folders[:depth]), f"{path}: {reason}"
                lost[name] = Patient(name, folder, organs=(), fault=fault, fault_code=code)
                break
    return list(lost.values())


def _explain_none(tree: index.Index) -> str:
    """The end of the message about a tree without a scan."""
    counts = Counter(reason for reason, _ in tree.left_aside)
    kinds = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    text = f"; left aside: {kinds}" if counts else ""
    if SECONDARY in counts:
        text += (
            "; secondary captures are pictures without positions and HU: export the original CT "
            "images"
        )
    return f"{text}; looked for {layouts.LOOKED_FOR}"
