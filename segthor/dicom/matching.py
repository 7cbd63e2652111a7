"""Which CT a structure set is of, and which of a patient's volumes is the one to work on."""

from dataclasses import dataclass

import numpy as np

from segthor import files
from segthor.dicom import DicomError
from segthor.dicom.elements import items, open_dataset, text
from segthor.dicom.headers import Header
from segthor.dicom.series import Stack
from segthor.dicom.stacks import is_same_geometry

_MOST_OFF = 0.2  # of a step; contours lie up to 0.12 mm off their slices in clinical data


@dataclass(frozen=True)
class Case:
    """What a patient comes to. problem: why there is no stack, or no structure set that fits."""

    stack: Stack | None = None
    structures: Header | None = None
    problem: DicomError | None = None


def case_of(volumes, structure_sets) -> Case:
    """The one volume to work on, and the structure set on it where there is any.

    volumes: all of the patient's, `Stack` or the error that says why it is none. structure_sets:
    the patient's. Problems: those of `stack_of` and `only_volume`; 'structures_ambiguous' where
    several structure sets fit.
    """
    if not structure_sets:
        try:
            return Case(only_volume(volumes))
        except DicomError as error:
            return Case(problem=error)
    fitting, problems = [], []
    for structures in structure_sets:
        try:
            fitting.append(Case(stack_of(structures, volumes), structures))
        except DicomError as error:
            problems.append(error)
    fitting = _without_copies(fitting)
    if not fitting:
        return Case(problem=problems[0])
    if len(fitting) > 1:
        names = ", ".join(case.structures.path for case in fitting)
        message = f"expected one structure set, found {names}; a CSV can say which"
        return Case(problem=DicomError("structures_ambiguous", message))
    return fitting[0]


def only_volume(volumes) -> Stack:
    """The patient's only volume.

    Raises:
      DicomError: none ('few_slices'), several ('series_several_volumes'; 'series_mixed' where
        these are of one series and differ in size, spacing or orientation), or what is wrong with
        the only one.
    """
    if not volumes:
        raise DicomError("few_slices", "expected the slices of a volume, found single images")
    if len(volumes) == 1:
        if isinstance(volumes[0], DicomError):
            raise volumes[0]
        return volumes[0]
    stacks = [volume for volume in volumes if isinstance(volume, Stack)]
    one_series = len(stacks) == len(volumes) and len({stack.series_uid for stack in stacks}) == 1
    mixed = one_series and not all(is_same_geometry(stacks[0], stack) for stack in stacks)
    code = "series_mixed" if mixed else "series_several_volumes"
    message = f"expected one volume, found {len(volumes)}: {_named(volumes)}; a CSV can say which"
    raise DicomError(code, message)


def stack_of(structures: Header, volumes) -> Stack:
    """The stack that a structure set was drawn on, always one of its own frame of reference.

    The referenced series, else the stack that holds the referenced images, else the only one on
    whose slices all closed contours lie.

    Raises:
      DicomError: 'structures_other_frame', 'structures_ambiguous', what is wrong with the volume
        or its series, or 'file_damaged' where the contours that must be looked at cannot be read.
    """
    path, referenced = structures.path, structures.references
    stacks = [volume for volume in volumes if isinstance(volume, Stack)]
    same_frame = [s for s in stacks if s.frame_of_reference_uid in referenced.frames]
    if not same_frame:
        for volume in volumes:
            if isinstance(volume, DicomError):
                raise volume
        raise DicomError(
            "structures_other_frame",
            f"{path}: no CT here has the structure set's frame of reference; expected the series "
            "that it was drawn on beside it",
        )
    candidates = same_frame
    for narrowed in (
        [s for s in same_frame if s.series_uid in referenced.series],
        [s for s in same_frame if {i.sop_instance_uid for i in s.instances} & {*referenced.images}],
    ):
        both = [stack for stack in candidates if stack in narrowed]
        if len(both) == 1:
            return both[0]
        candidates = both or candidates
    points = contour_points(path)
    lying = [stack for stack in candidates if _all_on_slices(points, stack)]
    if len(points) and len(lying) == 1:
        return lying[0]
    if not lying and len({stack.series_uid for stack in candidates}) == 1:
        return only_volume(candidates)  # raises: parts of a series, and contours on all of them
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
        closed = [c for c in contours if text(c, "ContourGeometricType").startswith("CLOSED")]
        points = [text(contour, "ContourData").split("\\", 3)[:3] for contour in closed]
        return np.array(points, np.float64).reshape(-1, 3)
    except Exception as error:  # pydicom and numpy raise many kinds
        message = f"{path}: the contours cannot be read ({type(error).__name__})"
        raise DicomError("file_damaged", f"{message}; export it again") from error


def _all_on_slices(points, stack: Stack) -> bool:
    normal = np.cross(stack.orientation[:3], stack.orientation[3:])
    slices = stack.positions_mm @ normal
    step = (slices[-1] - slices[0]) / (len(slices) - 1)
    off = np.abs((points @ normal)[:, None] - slices).min(1, initial=np.inf)
    return bool((off <= _MOST_OFF * step).all())


def _without_copies(cases) -> list[Case]:
    """A structure set that lies there twice, byte for byte, counts once."""
    kept = {}
    for case in cases:
        uid = case.structures.sop_instance_uid
        alike = [other for (known, _), other in kept.items() if known == uid]
        digest = files.sha256(case.structures.path) if len(cases) > 1 else ""
        if not alike or (uid, digest) not in kept:
            kept[uid, digest] = case
    return list(kept.values())


def _named(volumes) -> str:
    """For people: size and first file of each."""
    names = [
        f"{' x '.join(map(str, volume.shape))} from {volume.instances[0].path}"
        if isinstance(volume, Stack)
        else volume.code
        for volume in volumes
    ]
    return "; ".join(names[:6])
