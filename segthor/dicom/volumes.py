"""A patient's CT images to volumes, each with a name of its own."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass

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
    volumes, aside, single = [], [], []
    for series in person.series:
        findings = (CHANGES,) if series.changes_id else ()
        made = _stack(series.images, findings)
        volumes += _named(series.uid, series.images, made)
        aside += made.left_aside
        if made.left_aside and len(series.images) == 1 and not series.images[0].is_enhanced:
            single += series.images
    for images in _with_own_uids(single):
        made = _stack(images, (_OWN_UIDS,))
        used = {path for one in made.volumes for path in one.paths}
        volumes += _named(min(header.series_uid for header in images), images, made)
        aside = [(why, path) for why, path in aside if path not in used]
    return volumes, aside


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


def _named(uid: str, images, made: stacks.Volumes) -> list[Volume]:
    traits, name = {header.path: header.traits for header in images}, series_name(uid)
    several = len(made.volumes) > 1
    second = tuple(path for why, path in made.left_aside if why == SECOND_IMAGE)
    return [
        Volume(
            f"{name}-{number}" if several else name,
            uid,
            stack,
            tuple(stack.paths),
            traits[stack.paths[0]],
            second,
        )
        for number, stack in enumerate(made.volumes, 1)
    ]
