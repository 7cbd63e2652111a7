"""Which patient a structure set belongs to, and which of the patient's volumes it was drawn on.

Patients: the one whose series or images the set refers to. Where it refers to none of a tree, the
folder, PatientID, study and frame of reference are weighed; the frame alone never decides, since
anonymizers give one to everybody.

Volumes: always one of the set's own frame of reference.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from segthor import files
from segthor.dicom import DicomError
from segthor.dicom.elements import items, open_dataset, text
from segthor.dicom.headers import RTSTRUCT, Header
from segthor.dicom.rois import CLOSED_KINDS
from segthor.dicom.series import Stack
from segthor.dicom.slices import is_same_geometry
from segthor.dicom.volumes import Volume

_MOST_OFF = 0.2  # of a step; contours lie up to 0.12 mm off their slices in clinical data
_ENOUGH = 3  # evidence, see `Owner.evidence`


@dataclass(frozen=True)
class Case:
    """One volume to work on.

    volume: The volume; None where it is not known which.
    structures: The structure set that was drawn on it, if any.
    problem: Why the volume cannot be used, or which structure set is meant.
    """

    volume: Volume | None = None
    structures: Header | None = None
    problem: DicomError | None = None

    @property
    def stack(self) -> Stack | None:
        """The volume's slices, where they can be used."""
        return self.volume.stack if self.volume and not self.problem else None


class Owner:
    """What a structure set may have in common with one patient."""

    def __init__(self, numbers, images):
        """numbers: hashes of the PatientID. images: headers of the patient's CT."""
        self.numbers = {*numbers}
        self.series = {header.series_uid for header in images} - {""}
        self.images = {header.sop_instance_uid for header in images} - {""}
        self.studies = {header.study_uid for header in images} - {""}
        self.frames = {header.frame_of_reference_uid for header in images} - {""}

    def is_named_by(self, structures: Header) -> bool:
        """Whether the set refers to one of the patient's series or images."""
        named = structures.references
        return not (self.series.isdisjoint(named.series) and self.images.isdisjoint(named.images))

    def evidence(self, structures: Header, beside: int) -> int:
        """How much else speaks for the patient.

        beside: 2 where the set lies with this patient's files alone, 1 with several patients', 0
        with nobody's, -2 with another patient's.
        """
        return (
            beside
            + ((structures.patient or structures.study_uid) in self.numbers)
            + (structures.study_uid in self.studies)
            + (not self.frames.isdisjoint(structures.references.frames))
        )


def owner_of(structures: Header, owners: dict, beside, enough: int = _ENOUGH) -> object | None:
    """The key of the patient that a structure set belongs to; None for none, or for several.

    owners: Key to `Owner`. beside: Keys of those whose files lie in the set's folder. enough: The
    evidence that is needed where the set refers to no images of these patients.
    """

    def weigh(key) -> int:
        near = (2 if len(beside) == 1 else 1) if key in beside else -2 if len(beside) == 1 else 0
        return owners[key].evidence(structures, near)

    named = [key for key, owner in owners.items() if owner.is_named_by(structures)]
    weights = {key: weigh(key) for key in named or owners}
    if not named:
        weights = {key: weight for key, weight in weights.items() if weight >= enough}
    best = [key for key, weight in weights.items() if weight == max(weights.values())]
    return best[0] if len(best) == 1 else None


def cases_of(volumes, structure_sets) -> list[Case]:
    """The volumes that were drawn on, with their structure sets; without any, the only volume.

    Problems: those of `volume_of` and `only_volume`; 'structures_ambiguous' where several sets of
    one kind fit one volume. A structure set is preferred to a SEG.
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


def _case(volume: Volume, structure_sets) -> Case:
    if volume.problem:
        return Case(volume, problem=volume.problem)
    own = [one for one in structure_sets if one.sop_class_uid in ("", RTSTRUCT)] or structure_sets
    own = _without_copies(own)
    if len(own) == 1:
        return Case(volume, own[0])
    names = ", ".join(one.path for one in own)
    message = f"expected one structure set, found {names}; a CSV can say which"
    return Case(volume, problem=DicomError("structures_ambiguous", message))


def only_volume(volumes) -> Case:
    """The only volume.

    Problems: none ('few_slices'), several ('series_several_volumes'; 'series_mixed' where these
    are of one series and differ in size, spacing or orientation), or what is wrong with the only
    one.
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
    message = f"expected one volume, found {len(volumes)}: {_named(volumes)}; a CSV can say which"
    return Case(problem=DicomError(code, message))


def volume_of(structures: Header, volumes) -> Volume:
    """The volume that a structure set was drawn on, always one of its own frame of reference.

    The referenced series, else the volume that holds the referenced images, else the only one on
    whose slices all closed contours lie. A referenced series that is no volume is given with its
    problem.

    Raises:
      DicomError: 'structures_other_frame', 'structures_ambiguous', what is wrong with the volume
        or its series, or 'file_damaged' where the contours that must be looked at cannot be read.
    """
    path, referenced = structures.path, structures.references
    same_frame = [
        volume
        for volume in volumes
        if not volume.problem and volume.stack.frame_of_reference_uid in referenced.frames
    ]
    of_series = [volume for volume in same_frame if volume.series_uid in referenced.series]
    broken = [one for one in volumes if one.problem and one.series_uid in referenced.series]
    if broken and not of_series:
        return broken[0]
    if not same_frame:
        for volume in volumes:
            if volume.problem:
                raise volume.problem
        raise DicomError(
            "structures_other_frame",
            f"{path}: no CT here has the structure set's frame of reference; expected the series "
            "that it was drawn on beside it",
        )
    candidates = same_frame
    of_images = [volume for volume in same_frame if _holds(volume, referenced.images)]
    for narrowed in (of_series, of_images):
        both = [volume for volume in candidates if volume in narrowed]
        if len(both) == 1:
            return both[0]
        candidates = both or candidates
    return _by_places(structures, candidates)


def _by_places(structures: Header, candidates) -> Volume:
    path = structures.path
    points = contour_points(path) if structures.sop_class_uid in ("", RTSTRUCT) else []
    lying = [one for one in candidates if len(points) and _all_on_slices(points, one.stack)]
    if len(lying) == 1 or (len(candidates) == 1 and not len(points)):
        return (lying or candidates)[0]
    if not lying and len({volume.series_uid for volume in candidates}) == 1:
        case = only_volume(candidates)  # parts of a series, and contours on all of them
        if case.problem:
            raise case.problem
        return case.volume
    raise DicomError(
        "structures_ambiguous",
        f"{path}: expected one series on whose slices its contours lie, found {len(lying)} among "
        f"those of its frame of reference: {_named(candidates)}; a CSV can say which",
    )


def contour_points(path: str) -> np.ndarray:
    """A point [N, 3] of each closed contour of a structure set, LPS mm."""
    with files.open_read(path) as stream:
        dataset = open_dataset(stream, path, ["ROIContourSequence"])
    try:
        contours = items(dataset, "ROIContourSequence", "ContourSequence")
        closed = [c for c in contours if text(c, "ContourGeometricType") in CLOSED_KINDS]
        points = [
            text(contour, "ContourData").replace(",", ".").split("\\", 3)[:3] for contour in closed
        ]
        return np.array(points, np.float64).reshape(-1, 3)
    except Exception as error:  # pydicom and numpy raise many kinds
        message = f"{path}: the contours cannot be read ({type(error).__name__})"
        raise DicomError("file_damaged", f"{message}; export it again") from error


def _holds(volume: Volume, images) -> bool:
    held = {instance.sop_instance_uid for instance in volume.stack.instances}
    return not held.isdisjoint(images)


def _all_on_slices(points, stack: Stack) -> bool:
    normal = np.cross(stack.orientation[:3], stack.orientation[3:])
    slices = stack.positions_mm @ normal
    step = (slices[-1] - slices[0]) / (len(slices) - 1)
    off = np.abs((points @ normal)[:, None] - slices).min(1, initial=np.inf)
    return bool((off <= _MOST_OFF * step).all())


def _without_copies(structure_sets) -> list[Header]:
    """A structure set that lies there twice, byte for byte, counts once."""
    if len(structure_sets) == 1:
        return structure_sets
    by_content = {}
    for one in structure_sets:
        by_content.setdefault((one.sop_instance_uid, files.sha256(one.path)), one)
    return list(by_content.values())


def _named(volumes) -> str:
    """Size and first file of each volume, for messages."""
    names = [
        volume.problem.code
        if volume.problem
        else f"{' x '.join(map(str, volume.stack.shape))} from {volume.stack.instances[0].path}"
        for volume in volumes
    ]
    return "; ".join(names[:6])
