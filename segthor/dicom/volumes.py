"""A patient's CT images to volumes, each with a name of its own."""

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

_FEWEST_SINGLE = 3  # images with a series UID each that may be one volume
_OWN_UIDS = ("series_uids", "each slice has a series UID of its own; they are read as one volume")


@dataclass(frozen=True, eq=False)
class Volume:
    """One volume, or images that should be one.

    name: That of its series; with a number where a series holds several volumes.
    series_uid: UID of its series.
    stack: Its slices, or the error that says why there is no volume.
    paths: All its files.
    traits: Those of its first image.
    second_images: Files of the series that are left out since another image has their position.
    """

    name: str
    series_uid: str
    stack: Stack | StackError
    paths: tuple[str, ...]
    traits: Traits
    second_images: tuple[str, ...] = ()

    @property
    def problem(self) -> StackError | None:
        """Why the images are no volume; None where they are."""
        return self.stack if isinstance(self.stack, StackError) else None


def series_name(uid: str) -> str:
    """What a series is called: nothing of its UID, which may hold a date, can be read from it."""
    return hashlib.sha256(uid.encode()).hexdigest()[:8]


def of_person(person: Person) -> tuple[list[Volume], list[tuple[str, str]]]:
    """All volumes of a patient, in the order of series and places; and (why, path) of the rest."""
    made, aside, single = defaultdict(list), [], []
    for series in person.series:
        findings = (CHANGES,) if series.changes_id else ()
        volumes = _stack(series.images, findings)
        made[series.uid] += _volumes(series.uid, series.images, volumes)
        aside += volumes.left_aside
        if volumes.left_aside and len(series.images) == 1 and not series.images[0].is_enhanced:
            single += series.images
    for images in _with_own_uids(single):
        volumes = _stack(images, (_OWN_UIDS,))
        used = {path for one in volumes.volumes for path in one.paths}
        uid = min(header.series_uid for header in images)
        made[uid] += _volumes(uid, images, volumes)
        aside = [(why, path) for why, path in aside if path not in used]
    return [volume for uid in sorted(made) for volume in _numbered(made[uid])], aside


def _stack(images, findings) -> stacks.Volumes:
    """As `stacks.of_series`; whatever it raises is these images' trouble alone."""
    try:
        return stacks.of_series(images, findings)
    except Exception as error:
        paths = tuple(header.path for header in images)
        trouble = guard.read_error(paths[0], error)
        return stacks.Volumes((StackError(trouble.code, str(trouble), paths),), ())


def _with_own_uids(single) -> list[list[Header]]:
    """Images that are the only one of their series, where those of a folder are one volume."""
    by_folder = defaultdict(list)
    for header in single:
        by_folder[files.parent(header.path)].append(header)
    return [
        images
        for images in by_folder.values()
        if len(images) >= _FEWEST_SINGLE and slices.fill_one_grid(images)
    ]


def _volumes(uid: str, images, made: stacks.Volumes) -> list[Volume]:
    traits, name = {header.path: header.traits for header in images}, series_name(uid)
    second = tuple(path for why, path in made.left_aside if why == SECOND_IMAGE)
    return [
        Volume(name, uid, stack, tuple(stack.paths), traits[stack.paths[0]], second)
        for stack in made.volumes
    ]


def _numbered(volumes: list[Volume]) -> list[Volume]:
    """The volumes of one series UID, with numbers in their names where there are several."""
    if len(volumes) == 1:
        return volumes
    return [replace(one, name=f"{one.name}-{k}") for k, one in enumerate(volumes, 1)]
