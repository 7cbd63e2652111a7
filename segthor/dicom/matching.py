"""Finds the patient that a structure set belongs to, and the volume that it was drawn on.

The patient is the one whose series or images the set refers to. If it refers to none in the tree,
folder, PatientID, study and frame of reference are weighed. The frame of reference alone never
decides, because some anonymizers write the same one for all patients.

The volume always has the frame of reference of the set.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from segthor import files
from segthor.dicom import DicomError
from segthor.dicom.elements import items, read_dataset, report_damage, text
from segthor.dicom.headers import RTSTRUCT, Header
from segthor.dicom.rois import CLOSED_KINDS
from segthor.dicom.series import Stack
from segthor.dicom.slices import is_same_geometry
from segthor.dicom.volumes import SeriesVolume

_MOST_OFF = 0.2  # of the distance between slices; clinical contours lie up to 0.12 mm off a slice
_ENOUGH = 3  # required `Owner.evidence`


@dataclass(frozen=True)
class Case:
    """One volume of a patient with its structure set.

    volume: The volume; None where it is not known which one.
    structures: Header of the structure set that was drawn on it, if any.
    problem: Why the volume, or its structure set, cannot be used; None if they can.
    """

    volume: SeriesVolume | None = None
    structures: Header | None = None
    problem: DicomError | None = None

    @property
    def stack(self) -> Stack | None:
        """The volume's slices; None where it cannot be used."""
        return self.volume.stack if self.volume and not self.problem else None


class Owner:
    """The values of one patient that a structure set may share."""

    def __init__(self, numbers, images):
        """Collects the values. numbers: Hashes of PatientIDs. images: Headers of the CT."""
        self.numbers = {*numbers}
        self.series = {header.series_uid for header in images} - {""}
        self.images = {header.sop_instance_uid for header in images} - {""}
        self.studies = {header.study_uid for header in images} - {""}
        self.frames = {header.frame_of_reference_uid for header in images} - {""}

    def is_referenced(self, structures: Header) -> bool:
        """Whether the set refers to one of the patient's series or images."""
        images, series = structures.references.images, structures.references.series
        return not (self.series.isdisjoint(series) and self.images.isdisjoint(images))

    def evidence(self, structures: Header, beside: int) -> int:
        """A score for the other values that the set shares with the patient.

        beside: 2 if the set lies among this patient's files only, 1 among those of several
          patients, 0 among none, -2 among another patient's.
        """
        return (
            beside
            + ((structures.patient or structures.study_uid) in self.numbers)
            + (structures.study_uid in self.studies)
            + (not self.frames.isdisjoint(structures.references.frames))
        )


def owner_of(structures: Header, owners: dict, beside, enough: int = _ENOUGH) -> object | None:
    """The key of the patient that a structure set belongs to; None for none or several.

    Args:
      structures: Header of the structure set.
      owners: Key to `Owner`.
      beside: Keys of the patients with files in the set's folder.
      enough: Evidence that is required if the set refers to no images of these patients.
    """

    def weigh(key) -> int:
        near = (2 if len(beside) == 1 else 1) if key in beside else -2 if len(beside) == 1 else 0
        return owners[key].evidence(structures, near)

    referenced = [key for key, owner in owners.items() if owner.is_referenced(structures)]
    weights = {key: weigh(key) for key in referenced or owners}
    if not referenced:
        weights = {key: weight for key, weight in weights.items() if weight >= enough}
    best = [key for key, weight in weights.items() if weight == max(weights.values())]
    return best[0] if len(best) == 1 else None


def cases_of(volumes, structure_sets) -> list[Case]:
    """The volumes that have a structure set, with it; without any structure set, the only volume.

    A structure set is preferred to a SEG. Problems are those of `volume_of` and `only_volume`, and
    'structures_ambiguous' where several sets of one type fit one volume.
    """
    if not structure_sets:
        return [only_volume(volumes)]
    fitting, problems = defaultdict(list), []
    for structures in structure_sets:
        try:
            fitting[volume_of(structures, volumes)].append(structures)
        except DicomError as error:
            problems.append(error)
    if not fitting:
        return [Case(problem=problems[0])]
    return [_case(volume, fitting[volume]) for volume in volumes if volume in fitting]


def _case(volume: SeriesVolume, structure_sets) -> Case:
    if volume.problem:
        return Case(volume, problem=volume.problem)
    own = [one for one in structure_sets if one.sop_class_uid in ("", RTSTRUCT)] or structure_sets
    own = _without_copies(own)
    if len(own) == 1:
        return Case(volume, own[0])
    names = ", ".join(one.path for one in own)
    message = f"expected one structure set, found {names}; name one in a CSV"
    return Case(volume, problem=DicomError("structures_ambiguous", message))


def only_volume(volumes) -> Case:
    """The only volume of a patient, or a problem.

    Problems are that of the volume, 'few_slices' for no volume, 'series_several_volumes', and
    'series_mixed' for volumes of one series that differ in size, spacing or orientation.
    """
    if not volumes:
        message = "expected the slices of a volume, found single images"
        return Case(problem=DicomError("few_slices", message))
    if len(volumes) == 1:
        return Case(volumes[0], problem=volumes[0].problem)
    stacks = [volume.stack for volume in volumes if not volume.problem]
    one_series = len(stacks) == len(volumes) and len({stack.series_uid for stack in stacks}) == 1
    mixed = one_series and not all(is_same_geometry(stacks[0], stack) for stack in stacks)
    code = "series_mixed" if mixed else "series_several_volumes"
    message = f"expected one volume, found {len(volumes)}: {_describe(volumes)}; name one in a CSV"
    return Case(problem=DicomError(code, message))


def volume_of(structures: Header, volumes) -> SeriesVolume:
    """The volume that a structure set was drawn on, among those with its frame of reference.

    It is that of the referenced series, else the one with the referenced images, else the only one
    on whose slices all closed contours lie. A referenced series without a volume is returned with
    its problem.

    Raises:
      DicomError: 'structures_other_frame', 'structures_ambiguous', the problem of a volume, or
        'file_damaged' where the contours cannot be read.
    """
    referenced = structures.references
    usable = [volume for volume in volumes if not volume.problem]
    candidates = [one for one in usable if one.stack.frame_of_reference_uid in referenced.frames]
    of_series = [volume for volume in candidates if volume.series_uid in referenced.series]
    broken = [one for one in volumes if one.problem and one.series_uid in referenced.series]
    if broken and not of_series:
        return broken[0]
    if not candidates:
        raise _no_volume(structures, volumes)
    # References are often wrong: those that fit no candidate do not count.
    of_images = [volume for volume in candidates if _has_images(volume, referenced.images)]
    for referenced_volumes in (of_series, of_images):
        both = [volume for volume in candidates if volume in referenced_volumes]
        if len(both) == 1:
            return both[0]
        candidates = both or candidates
    return _volume_by_contours(structures, candidates)


def _no_volume(structures: Header, volumes) -> DicomError:
    """Why no volume has the structure set's frame of reference."""
    problems = [volume.problem for volume in volumes if volume.problem]
    if problems:
        return problems[0]
    message = f"{structures.path}: no CT here has the structure set's frame of reference"
    expected = "expected the series that it was drawn on beside it"
    return DicomError("structures_other_frame", f"{message}; {expected}")


def _volume_by_contours(structures: Header, candidates) -> SeriesVolume:
    """The only candidate on whose slices all closed contours lie."""
    path = structures.path
    points = contour_points(path) if structures.sop_class_uid in ("", RTSTRUCT) else []
    fitting = [one for one in candidates if len(points) and _all_on_slices(points, one.stack)]
    if len(fitting) == 1 or (len(candidates) == 1 and not len(points)):
        return (fitting or candidates)[0]
    if not fitting and len({volume.series_uid for volume in candidates}) == 1:
        case = only_volume(candidates)  # the contours lie on several parts of one series
        if case.problem:
            raise case.problem
        return case.volume
    raise DicomError(
        "structures_ambiguous",
        f"{path}: expected one series on whose slices its contours lie, found {len(fitting)} among "
        f"those of its frame of reference: {_describe(candidates)}; name one in a CSV",
    )


def contour_points(path: str) -> np.ndarray:
    """The first point of each closed contour of a structure set, LPS mm [N, 3]."""
    dataset = read_dataset(path, ["ROIContourSequence"])
    with report_damage(f"{path}: the contours cannot be read", "export it again"):
        contours = items(dataset, "ROIContourSequence", "ContourSequence")
        closed = [c for c in contours if text(c, "ContourGeometricType") in CLOSED_KINDS]
        points = [
            text(contour, "ContourData").replace(",", ".").split("\\", 3)[:3] for contour in closed
        ]
        return np.array(points, np.float64).reshape(-1, 3)


def _has_images(volume: SeriesVolume, images) -> bool:
    own = {instance.sop_instance_uid for instance in volume.stack.instances}
    return not own.isdisjoint(images)


def _all_on_slices(points, stack: Stack) -> bool:
    normal = np.cross(stack.orientation[:3], stack.orientation[3:])
    slices = stack.positions_mm @ normal
    step = (slices[-1] - slices[0]) / (len(slices) - 1)
    off = np.abs((points @ normal)[:, None] - slices).min(1, initial=np.inf)
    return bool((off <= _MOST_OFF * step).all())


def _without_copies(structure_sets) -> list[Header]:
    """The structure sets without copies that are equal byte for byte."""
    if len(structure_sets) == 1:
        return structure_sets
    by_content = {}
    for one in structure_sets:
        by_content.setdefault((one.sop_instance_uid, files.sha256(one.path)), one)
    return list(by_content.values())


def _describe(volumes) -> str:
    """Size and first file of each volume, for messages."""
    names = [
        volume.problem.code
        if volume.problem
        else f"{' x '.join(map(str, volume.stack.shape))} from {volume.stack.instances[0].path}"
        for volume in volumes
    ]
    return "; ".join(names[:6])
