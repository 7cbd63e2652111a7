"""Makes volumes of a patient's CT images, and gives each a name."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass, replace

from segthor import files, guard
from segthor.dicom import slices, stacks
from segthor.dicom.headers import Header
from segthor.dicom.series import Stack
from segthor.dicom.stacks import SECOND_IMAGE, StackError
from segthor.dicom.traits import Traits
from segthor.dicom.who import CHANGES, Person

_FEWEST_SINGLE = 3  # images with different series UIDs that can be one volume
_SAME_DECIMALS = 2  # of mm, in the affines of phases
_FEWEST_PHASES = 3  # fewest volumes that are phases of a 4D CT though they name no phase
_OWN_UIDS = ("series_uids", "each slice has a series UID of its own; they are read as one volume")


@dataclass(frozen=True, eq=False)
class SeriesVolume:
    """One volume, or images of which no volume can be made.

    name: Name of its series, with a number if the series has several volumes.
    series_uid: UID of its series.
    stack: Its slices, or the error that says why there is no volume.
    paths: All its files.
    traits: Traits of its first image.
    second_images: Files that are left out because another image has the same position.
    """

    name: str
    series_uid: str
    stack: Stack | StackError
    paths: tuple[str, ...]
    traits: Traits
    second_images: tuple[str, ...] = ()

    @property
    def problem(self) -> StackError | None:
        """Why the images are no volume; None for a volume."""
        return self.stack if isinstance(self.stack, StackError) else None


def series_name(uid: str) -> str:
    """The name of a series: a hash of its UID, which may contain a date."""
    return hashlib.sha256(uid.encode()).hexdigest()[:8]


def make_volumes(person: Person) -> tuple[list[SeriesVolume], list[tuple[str, str]]]:
    """A patient's volumes, sorted by series and position, and (reason, path) of other files."""
    made, aside, single = defaultdict(list), [], []
    for series in person.series:
        findings = (CHANGES,) if series.changes_id else ()
        result = _make_stacks(series.images, findings)
        made[series.uid] += _volumes(series.uid, series.images, result)
        aside += result.left_aside
        if result.left_aside and len(series.images) == 1 and not series.images[0].is_enhanced:
            single += series.images
    for images in _with_own_uids(single):
        result = _make_stacks(images, (_OWN_UIDS,))
        used = {path for stack in result.stacks for path in stack.paths}
        uid = min(header.series_uid for header in images)
        made[uid] += _volumes(uid, images, result)
        aside = [(reason, path) for reason, path in aside if path not in used]
    return [volume for uid in sorted(made) for volume in _number(made[uid])], aside


def _make_stacks(images, findings) -> stacks.SeriesStacks:
    """As `stacks.make_stacks`, with an unexpected exception as the error of these images."""
    try:
        return stacks.make_stacks(images, findings)
    except Exception as error:
        paths = tuple(header.path for header in images)
        error = guard.read_error(paths[0], error)
        return stacks.SeriesStacks((StackError(error.code, str(error), paths),), ())


def _with_own_uids(single) -> list[list[Header]]:
    """Groups of single images, one per series, of which those of a folder make one volume."""
    by_folder = defaultdict(list)
    for header in single:
        by_folder[files.parent(header.path)].append(header)
    return [
        images
        for images in by_folder.values()
        if len(images) >= _FEWEST_SINGLE and slices.fill_one_grid(images)
    ]


def _volumes(uid: str, images, result: stacks.SeriesStacks) -> list[SeriesVolume]:
    traits, name = {header.path: header.traits for header in images}, series_name(uid)
    second = tuple(path for reason, path in result.left_aside if reason == SECOND_IMAGE)
    return [
        SeriesVolume(name, uid, stack, tuple(stack.paths), traits[stack.paths[0]], second)
        for stack in result.stacks
    ]


def find_phases(volumes) -> dict[str, tuple[str, str]]:
    """Finds the volumes that are phases of a 4D CT.

    Phases have one study, frame of reference, grid, kernel and contrast. Either each names another
    phase in percent, or there are three or more that name none.

    Returns:
      Name of each such volume to the name of the first phase and its own phase ('30 %', '3 of 10').
    """
    alike = defaultdict(list)
    for volume in volumes:
        if not volume.problem and not volume.traits.is_projection:
            alike[_shared_by_phases(volume)].append(volume)
    phases = {}
    for group in alike.values():
        percents = [volume.traits.phase_percent for volume in group]
        if all(percents) and len(set(percents)) == len(group) > 1:
            ordered = sorted(group, key=lambda volume: int(volume.traits.phase_percent))
            labels = [f"{volume.traits.phase_percent} %" for volume in ordered]
        elif not any(percents) and len(group) >= _FEWEST_PHASES:
            ordered = sorted(group, key=lambda volume: (volume.traits.acquired, volume.name))
            labels = [f"{number} of {len(group)}" for number in range(1, len(group) + 1)]
        else:
            continue
        names = [volume.name for volume in ordered]
        phases |= {name: (names[0], label) for name, label in zip(names, labels, strict=True)}
    return phases


def _shared_by_phases(volume: SeriesVolume) -> tuple:
    """What all phases of a 4D CT have in common."""
    stack, traits = volume.stack, volume.traits
    affine = stack.affine.round(_SAME_DECIMALS) + 0.0
    grid = stack.shape, affine.tobytes(), stack.offsets_mm
    uids = stack.study_uid, stack.frame_of_reference_uid
    return uids, grid, traits.kernel, traits.has_contrast


def _number(volumes: list[SeriesVolume]) -> list[SeriesVolume]:
    """Adds numbers to the names of the volumes of one series, if there are several."""
    if len(volumes) == 1:
        return volumes
    return [replace(one, name=f"{one.name}-{k}") for k, one in enumerate(volumes, 1)]
