"""Where a patient's CT lies among DICOM files, as one word: FOLDER, FOLDER#SERIES or FILE.dcm.

FOLDER alone where one volume lies below it; otherwise SERIES names one of its series, as the
listing does (`index.listing`). A place is all that later programs need to find the volume again.
"""

import functools
import hashlib

from segthor import files, layouts
from segthor.dicom import (
    RTSTRUCT,
    SEG,
    DicomError,
    index,
    matching,
    rois,
    series,
    structures,
)
from segthor.dicom.headers import DAMAGED, STRUCTURES, UNREADABLE
from segthor.dicom.headers import read as read_header
from segthor.dicom.origin import Origin
from segthor.dicom.series import Stack
from segthor.errors import InputError
from segthor.nifti import Scan
from segthor.organs import Organs
from segthor.patients import Patient

_SEPARATOR = "#"


def patients(root: str, contoured) -> list[Patient]:
    """Every patient at a place, each with its CT and its structure set, or why there is none.

    root: a place, or a tree of many patients. contoured: names of the organs that a structure set
    may hold; none: nobody asks for contours, and a patient is not refused for the structure sets.

    Raises InputError where there is no CT series.
    """
    folder, name = _parts(root)
    if not files.exists(folder):
        raise InputError(f"{root}: expected DICOM files, found no such folder or file")
    found = _index(folder, stamp(folder))
    held = [one for one in found.patients if name in ("", *(s.name for s in one.series))]
    if not held and name:
        raise InputError(f"{root}: expected the series {name}, found others; --list names them")
    if not held:
        aside = "; left aside: " + _counted(found) if found.left_aside else ""
        looked_for = f"looked for {layouts.LOOKED_FOR}"
        raise InputError(f"{root}: expected at least one scan, found none{aside}; {looked_for}")
    is_tree = files.is_dir(folder) and not name
    known = [_patient(one, found, contoured, name, "" if is_tree else root) for one in held]
    return known + (_lost(found) if is_tree else [])


def listing(root: str, organs: Organs, roi_names=()) -> str:
    """What lies in a tree and which ROI is which organ, for people; see `index.listing`."""
    found = _index(root, stamp(root))
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


def stack(place: str) -> Stack:
    """The volume at a place.

    Raises:
      DicomError: 'file_missing'; more than one volume there, or what is wrong with the only one.
    """
    folder, name = _parts(place)
    if not files.exists(folder):
        raise DicomError("file_missing", f"{folder}: no such folder; expected a CT series")
    found = _index(folder, stamp(folder))
    held = [(patient, _volumes(patient, name)) for patient in found.patients]
    held = [(patient, volumes) for patient, volumes in held if volumes]
    if not held:
        raise DicomError("file_missing", f"{place}: expected a CT series, found none")
    if len(held) > 1:
        message = f"{place}: expected one patient, found {len(held)}; name one FOLDER#SERIES"
        raise DicomError("series_several_volumes", message)
    patient, volumes = held[0]
    if patient.damaged:
        raise patient.case.problem
    drawn_on = patient.case.stack
    # Of several volumes, the one that the contours were drawn on.
    return drawn_on if drawn_on in volumes else matching.only_volume(volumes)


def read(place: str, digest=None, most_bytes: int | None = None) -> Scan:
    """The volume at a place, in HU; see `series.read_stack`. Raises as `stack` does, too."""
    return series.read_stack(stack(place), digest, most_bytes)


def read_contours(path: str, place: str, organs: Organs, roi_names=()) -> structures.Contoured:
    """A structure set on the volume at a place; see `structures.read`."""
    return structures.read(path, stack(place), organs, roi_names)


def drawn_on(root: str, cts: dict[str, str]) -> list[Patient]:
    """The structure sets of a tree, each found by the CT that it was drawn on.

    cts: patient's name to place. Gives a patient for each with a structure set; its `fault` says
    why there is none to choose. A CT that cannot be read has none.
    """
    headers = [read_header(path) for path in index.find(root)]
    structure_sets = [header for header in headers if header.kind == STRUCTURES]
    found = []
    for name, place in cts.items():
        try:
            volume = stack(place)
        except DicomError:  # told where the CT itself is read
            continue
        uid = volume.frame_of_reference_uid
        held = [header for header in structure_sets if uid in header.references.frames]
        case = matching.case_of([volume], held)
        if case.problem:
            fault, code = str(case.problem), case.problem.code
            found.append(Patient(name, place, fault=fault, fault_code=code))
        elif case.structures:
            found.append(Patient(name, place, case.structures.path))
    return found


def write(place: str, labels, organs: Organs, paths: dict, made: dict, margin=None) -> dict:
    """Writes a label map as DICOM objects that refer to the images of its scan.

    Args:
      place: The scan.
      labels: uint8 [X, Y, Z] on the scan's grid.
      organs: What to write.
      made: What made them, and when: the fields of `Origin`.
      paths: Format, one of `segthor.dicom.FORMATS`, to file.
      margin: (organ, slice) -> float [X, Y]; see `structure_writer.outlines`.

    Returns:
      Format to the file's path; None for a structure set that would hold no contour.

    Raises DicomError as `stack` does.
    """
    from segthor.dicom import segmentation, structure_writer  # a second; only who writes needs it

    volume, origin, written = stack(place), Origin(**made), dict(paths)
    for kind, path in paths.items():
        if kind != RTSTRUCT:
            kind = segmentation.BINARY if kind == SEG else segmentation.LABELMAP
            segmentation.write_segmentation(path, volume, labels, organs, origin, kind)
            continue
        drawn = structure_writer.outlines(labels, organs, margin)
        if drawn:
            structure_writer.write_structures(path, volume, drawn, origin)
        else:
            written[kind] = None
    return written


def stamp(place: str) -> str:
    """A mark that changes when a file below the place's folder does.

    Raises OSError where there is no such folder.
    """
    folder, _ = _parts(place)
    if not files.exists(folder):
        raise FileNotFoundError(f"{folder}: no such folder")
    marks = [f"{path} {_stamp_of_file(path)}" for path in index.find(folder)]
    return hashlib.sha256("\n".join(marks).encode(errors="surrogatepass")).hexdigest()[:32]


def _stamp_of_file(path: str) -> str:
    try:
        return files.stamp(path)
    except OSError:  # a link to nothing, which the index reports
        return ""


def size(place: str) -> int:
    """Bytes of all files below the place's folder."""
    found = index.find(_parts(place)[0])
    return sum(files.size(path) for path in found if files.exists(path))


def exists(place: str) -> bool:
    """Whether the place's folder is there."""
    return files.exists(_parts(place)[0])


def _parts(place: str) -> tuple[str, str]:
    """Folder and series' name; a folder's own name may hold the separator."""
    folder, separator, name = place.rpartition(_SEPARATOR)
    return (place, "") if not separator or files.exists(place) else (folder, name)


@functools.lru_cache(maxsize=4)
def _index(folder: str, mark: str) -> index.Index:
    """mark: the folder's stamp, so that what was read before a change is not taken for it."""
    del mark
    return index.of_folder(folder)


def _patient(one: index.Patient, found: index.Index, contoured, name: str, at: str) -> Patient:
    """name, at: the series and the place that were asked for, if it was no tree."""
    case = _case(one, contoured, name)
    if case.problem:
        code, fault = case.problem.code, str(case.problem)
        return Patient(one.name, at or one.folder, organs=(), fault=fault, fault_code=code)
    labels = case.structures.path if case.structures and contoured else ""
    return Patient(one.name, at or _place(case.stack, found), labels, organs=tuple(contoured))


def _lost(found: index.Index) -> list[Patient]:
    """Damaged files in folders where no patient has any: maybe all that is left of one."""
    held = {f"{one.folder}/" for one in found.patients}
    held |= {files.parent(s.path) + "/" for one in found.patients for s in one.structure_sets}
    known = {path for one in found.patients for path in one.damaged}
    lost, root = {}, found.root.rstrip("/")
    for kind, path in found.left_aside:
        if kind not in (DAMAGED, UNREADABLE) or path in known:
            continue
        folders = [part for part in files.parent(path).removeprefix(root).split("/") if part]
        for depth in range(1, len(folders) + 1):
            folder = "/".join([root, *folders[:depth]])
            if not any(other.startswith(f"{folder}/") for other in held):
                fault = f"{path}: a damaged DICOM file; copy it again or remove it"
                name, code = "_".join(folders[:depth]), "file_damaged"
                lost[name] = Patient(name, folder, organs=(), fault=fault, fault_code=code)
                break
    return list(lost.values())


def _case(one: index.Patient, contoured, name: str) -> matching.Case:
    """name: of the series that is wanted, whoever drew on which; '' where any will do."""
    volumes = _volumes(one, name)
    drawn_on = one.case.stack in volumes if name else contoured or not one.case.problem
    if one.damaged or drawn_on:
        return one.case
    try:
        return matching.Case(matching.only_volume(volumes))
    except DicomError as error:
        return matching.Case(problem=error)


def _volumes(one: index.Patient, name: str) -> list:
    return [v for s in one.series if name in ("", s.name) for v in s.volumes]


def _place(volume: Stack, found: index.Index) -> str:
    folder = index.common_folder(volume.paths)
    below = folder.rstrip("/") + "/"
    others = {
        one.uid
        for patient in found.patients
        for one in patient.series
        if any(path.startswith(below) for path in one.paths)
    } - {volume.series_uid}
    name = index.series_name(volume.series_uid)
    return f"{folder}{_SEPARATOR}{name}" if others else folder


def _counted(found: index.Index) -> str:
    counts = {}
    for why, _ in found.left_aside:
        counts[why] = counts.get(why, 0) + 1
    return ", ".join(f"{count} {why}" for why, count in sorted(counts.items()))
