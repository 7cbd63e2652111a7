"""Who the patients of a DICOM tree are, and what else lies in it."""

import hashlib
from dataclasses import asdict, dataclass, replace

from segthor import fields, files, json_files, layouts
from segthor.dicom import DicomError, index, matching, places, rois
from segthor.dicom.headers import DAMAGED, DRAFT, STRUCTURES, UNREADABLE
from segthor.errors import InputError
from segthor.organs import Organs
from segthor.patients import Patient

_VERSION = 1  # of what is kept of a tree; raised whenever the same tree gives other patients


@dataclass(frozen=True)
class _Found:
    """What `patients` found. mark: changes when a file of the tree or a question does."""

    mark: str
    patients: tuple[Patient, ...]


def patients(root: str, contoured, kept: str = "") -> list[Patient]:
    """Every patient at a place, each with its CT and its structure set, or why there is none.

    root: a place, or a tree of many patients. contoured: names of the organs that a structure set
    may hold; none: nobody asks for contours, and a patient is not refused for the structure sets.
    kept: a JSON file that keeps what was found, so that no header is read again before a file
    of the tree has another path, size or time of change.

    Raises InputError where there is no CT series.
    """
    folder, _ = places.parts(root)
    if not files.exists(folder):
        raise InputError(f"{root}: expected DICOM files, found no such folder or file")
    asked = repr((_VERSION, root, tuple(contoured), places.stamp(root)))
    mark = hashlib.sha256(asked.encode(errors="surrogatepass")).hexdigest()
    known = _read_kept(kept)
    if known is None or known.mark != mark:
        known = _Found(mark, tuple(_patients(root, contoured)))
        if kept:
            json_files.write(kept, asdict(known), durable=False)
    return list(known.patients)


def _read_kept(path: str) -> _Found | None:
    """None where there is none, or one that cannot be read."""
    try:
        return fields.from_json(_Found, json_files.read(path), path) if path else None
    except InputError:
        return None


def _patients(root: str, contoured) -> list[Patient]:
    folder, name = places.parts(root)
    found = index.of_folder(folder)
    held = [one for one in found.patients if name in ("", *(s.name for s in one.series))]
    if not held and name:
        raise InputError(f"{root}: expected the series {name}, found others; --list names them")
    if not held:
        aside = "; left aside: " + _counted(found) if found.left_aside else ""
        looked_for = f"looked for {layouts.LOOKED_FOR}"
        raise InputError(f"{root}: expected at least one scan, found none{aside}; {looked_for}")
    is_tree = files.is_dir(folder) and not name
    if not is_tree:
        return [_patient(one, contoured, name, root) for one in held]
    below = _below(found)
    return [_in_tree(one, contoured, below) for one in held] + _lost(found)


def drawn_on(root: str, scans) -> list[Patient]:
    """The structure sets of a tree, our own drafts too, each found by the CT it was drawn on.

    scans: patients with a CT elsewhere. Gives those of them that have a structure set, with it; its
    `fault` says why there is none to choose. A CT that cannot be read has none.
    """
    found = index.headers(index.find(root))
    structure_sets = [header for header in found if header.kind in (STRUCTURES, DRAFT)]
    found = []
    for scan in scans:
        try:
            volume = places.stack(scan.ct, scan.ct_files)
        except DicomError:  # told where the CT itself is read
            continue
        uid = volume.frame_of_reference_uid
        held = [header for header in structure_sets if uid in header.references.frames]
        case = matching.case_of([volume], held)
        drawn = replace(scan, labels="", masks="", label_values=())
        if case.problem:
            fault, code = str(case.problem), case.problem.code
            found.append(replace(drawn, fault=fault, fault_code=code))
        elif case.structures:
            found.append(replace(drawn, labels=case.structures.path))
    return found


def listing(root: str, organs: Organs, roi_names=()) -> str:
    """What lies in a tree and which ROI is which organ, for people; see `index.listing`."""
    found = index.of_folder(root)
    lines = [index.listing(found)]
    for patient in found.patients:
        if patient.case.structures:
            drawn = _organs_of(patient.case.structures.path, organs, roi_names)
            lines.append(f"organs of {patient.name}: {drawn}")
    return "\n".join(lines)


def _organs_of(path: str, organs: Organs, roi_names) -> str:
    """Which ROI is which organ. The names of other ROIs are nobody's business."""
    try:
        structures = rois.read(path)
        matched = rois.match(structures, organs, roi_names)
    except DicomError as error:
        return f"refused, {error.code}: {error}"
    names = {organ.name: roi.name for organ, roi in matched}
    lacking = [name for name in organs.names if name not in names]
    parts = [", ".join(f"{organ} ({name})" for organ, name in names.items()) or "none"]
    parts += [f"no ROI for {', '.join(lacking)}"] if lacking else []
    others = len(structures.rois) - len(names)
    return "; ".join(parts + ([f"{others} other ROIs"] if others else []))


def _in_tree(one: index.Patient, contoured, below) -> Patient:
    """below: as `_below` gives it."""
    case = _case(one, contoured)
    folder = one.folder if case.problem else index.common_folder(case.stack.paths)
    held = below.get(folder, set())
    shared = {name for name, _ in held} - {one.name}
    place = folder
    if not case.problem and {uid for _, uid in held} != {case.stack.series_uid}:
        place += places.SEPARATOR + index.series_name(case.stack.series_uid)
    return replace(_patient(one, contoured, "", place), ct_files=one.paths if shared else ())


def _patient(one: index.Patient, contoured, name: str, at: str) -> Patient:
    """name: of the series that was asked for, or ''. at: where its CT lies."""
    case = _case(one, contoured, name)
    if case.problem:
        code, fault = case.problem.code, str(case.problem)
        return Patient(one.name, at, organs=(), fault=fault, fault_code=code)
    labels = case.structures.path if case.structures and contoured else ""
    return Patient(one.name, at, labels, organs=tuple(contoured))


def _below(found: index.Index) -> dict[str, set[tuple[str, str]]]:
    """Every folder to (patient, series' UID) of what lies in it or below it."""
    below, top = {}, found.root.rstrip("/")
    for patient in found.patients:
        for one in patient.series:
            for folder in {files.parent(path) for path in one.paths}:
                while folder and len(folder) >= len(top):
                    below.setdefault(folder, set()).add((patient.name, one.uid))
                    folder = files.parent(folder) if folder not in (top, "/") else ""
    return below


_LOST = {
    DAMAGED: ("file_damaged", "a damaged DICOM file; copy it again or remove it"),
    UNREADABLE: ("file_damaged", "cannot be opened; copy it again or remove it"),
    index.WITHOUT_CT: ("file_missing", "a structure set without its CT; export both, or remove it"),
}


def _lost(found: index.Index) -> list[Patient]:
    """Files in folders where no patient has any: maybe all that is left of one."""
    held = {f"{one.folder}/" for one in found.patients}
    held |= {files.parent(s.path) + "/" for one in found.patients for s in one.structure_sets}
    known = {path for one in found.patients for path in one.damaged}
    lost, root = {}, found.root.rstrip("/")
    for kind, path in found.left_aside:
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


def _case(one: index.Patient, contoured, name: str = "") -> matching.Case:
    """name: of the series that is wanted, whoever drew on which; '' where any will do."""
    volumes = places.volumes_of(one, name)
    fits = one.case.stack in volumes if name else contoured or not one.case.problem
    if one.damaged or fits:
        return one.case
    try:
        return matching.Case(matching.only_volume(volumes))
    except DicomError as error:
        return matching.Case(problem=error)


def _counted(found: index.Index) -> str:
    counts = {}
    for why, _ in found.left_aside:
        counts[why] = counts.get(why, 0) + 1
    return ", ".join(f"{count} {why}" for why, count in sorted(counts.items()))
