"""From a structure set's contours to a label map on the grid of a stack of slices.

Contours are placed by geometry alone: the references to images that planning systems write along
with them are often wrong.
"""

from collections import Counter

import numpy as np

from segthor import contours, nesting
from segthor.dicom import DicomError, rois, segments
from segthor.dicom.rois import CLOSED_KINDS, INTERPOLATED, XOR, Roi
from segthor.dicom.series import Stack
from segthor.findings import Finding
from segthor.organs import Organs
from segthor.volume import LabelMap

_OFF_SLICE_MM, _OFF_SLICE_SHARE = 0.2, 0.1  # planning systems move contours by up to 0.12 mm
_MOST_OFF_MM, _MOST_OFF_SHARE = 1.0, 1 / 3  # beyond this part of a step, which slice is meant?
_BEYOND_PX = 1.0  # outside the outermost pixels' edges
_WORDS = {
    "structures_references": "refer to images of other slices than they lie on",
    "contour_nested": "lie inside another and are read as holes, or as islands in holes",
    "contour_crossing": "cross another on their slice and are united",
    "contour_self_crossing": "cross themselves and are filled where they go round an odd number of "
    "times",
    "contour_duplicate": "repeat another and are left out",
    "contour_interpolated": "are marked as interpolated and are read like drawn ones",
    "contour_commas": "have a decimal comma, which is read as a point",
    "contour_open": "are open, points or of no known kind and are left out",
    "contour_tiny": "hold no voxel's centre",
}


def read(path: str, stack: Stack, organs: Organs, roi_names=()) -> LabelMap:
    """Reads a structure set as a label map on the stack that it was drawn on.

    An organ that is not contoured has no voxels, which does not say that the patient has none.

    A voxel is an organ's where its centre is inside; inside two organs, it is that of the first in
    the table. roi_names: (organ, ROI name) instead of the table's synonyms; see `rois.match`.

    Raises:
      DicomError: 'file_missing', 'file_not_dicom', 'file_damaged'; 'structures_none': no structure
        set, or none of these organs in it; 'structures_other_frame'; 'roi_ambiguous';
        'contour_between_slices', 'contour_outside': where the CT has no voxels.
    """
    structures = rois.read(path)
    slices, labels = Slices(stack), np.zeros(stack.shape[::-1], np.uint8)
    matched = rois.match(structures, organs, roi_names)
    findings = _findings_of_set(structures, stack) + _unmatched_names(matched, roi_names)
    contoured, shared = [], 0
    frames = segments.Frames(path) if any(roi.is_segment for _, roi in matched) else None
    for organ, roi in matched:
        where = f"{path}: {organ.name}"
        _check_frame(where, roi, stack)
        found, held = Counter(), 0
        planes = frames.planes(where, roi.number, slices) if frames else None
        for k, plane in planes or _planes(where, roi, slices, found):
            free = plane & (labels[k] == 0)
            labels[k][free] = organ.label
            held += int(np.count_nonzero(free))
            shared += int(np.count_nonzero(plane)) - int(np.count_nonzero(free))
        findings += [
            (code, f"{organ.name}: {found[code]} contours {words}")
            for code, words in _WORDS.items()
            if found[code]
        ]
        if held:
            contoured.append(organ.name)
        else:
            message = "its ROI holds no voxel of its own; taken as not contoured"
            findings.append(("roi_empty", f"{organ.name}: {message}"))
    if not contoured:
        message = f"{path}: expected contours of {', '.join(organs.names)}; none of its"
        names = "".join(f"; {message}" for _, message in _unmatched_names(matched, roi_names))
        message = f"{message} {len(structures.rois)} ROIs holds any{names}"
        raise DicomError("structures_none", message)
    if shared:
        message = f"{shared} voxels lie in two organs; the table's first keeps them"
        findings.append(("organs_overlap", message))
    return LabelMap(
        stack.to_zyx(labels),
        stack.grid,
        organs,
        tuple(contoured),
        tuple(Finding.of(*finding) for finding in findings),
    )


def _findings_of_set(structures, stack) -> list[tuple[str, str]]:
    if structures.series_uids and stack.series_uid not in structures.series_uids:
        message = "the structure set refers to another series; its contours are placed by geometry"
        return [("structures_references", message)]
    return []


def _unmatched_names(matched, roi_names) -> list[tuple[str, str]]:
    """Organs whose names in --roi_names no ROI has."""
    names = {}
    for organ, name in roi_names:
        names.setdefault(organ, []).append(repr(name))
    for organ, _ in matched:
        names.pop(organ.name, None)
    return [
        ("roi_names_unmatched", f"{organ}: no ROI is called {' or '.join(own)}, as roi_names says")
        for organ, own in names.items()
    ]


def _check_frame(where: str, roi: Roi, stack: Stack) -> None:
    if not roi.frame_of_reference_uid or roi.frame_of_reference_uid != stack.frame_of_reference_uid:
        message = (
            f"{where}: expected contours in the CT's frame of reference, found another or none"
        )
        raise DicomError("structures_other_frame", message)


class Slices:
    """Where points of the patient (LPS mm) lie among a stack's slices."""

    def __init__(self, stack: Stack):
        along_x, along_y = np.array(stack.orientation, np.float64).reshape(2, 3)
        row_mm, column_mm = stack.pixel_spacing_mm
        self.shape = stack.shape[:2]
        self.uids = [{instance.sop_instance_uid} for instance in stack.instances]
        for k, instance in stack.duplicates:
            self.uids[k].add(instance.sop_instance_uid)
        normal = np.cross(along_x, along_y)
        self._normal = normal / np.linalg.norm(normal)
        self._to_px = np.linalg.pinv(np.stack([along_x * column_mm, along_y * row_mm], 1)).T
        self._origins = np.asarray(stack.positions_mm, np.float64)
        self._heights = self._origins @ self._normal  # ascending, as `stacks` orders slices
        step = float(np.diff(self._heights).min())
        usual = max(_OFF_SLICE_MM, min(_OFF_SLICE_SHARE * step, _MOST_OFF_MM))
        self._tolerance_mm = min(usual, _MOST_OFF_SHARE * step)

    def place(self, where: str, points: np.ndarray, counts: np.ndarray):
        """The slice k of each contour, and all points as pixels [N, 2] (x, y) of their slices.

        Raises:
          DicomError: 'contour_between_slices', 'contour_outside'.
        """
        starts = np.cumsum(counts) - counts
        height = points @ self._normal
        low, high = np.minimum.reduceat(height, starts), np.maximum.reduceat(height, starts)
        middles = (self._heights[1:] + self._heights[:-1]) / 2
        k = np.searchsorted(middles, (low + high) / 2)
        off_mm = np.maximum(high - self._heights[k], self._heights[k] - low)
        if (off_mm > self._tolerance_mm).any():
            raise self._between(where, low, high, k, off_mm)
        k_of_point = np.repeat(k, counts)
        px = (points - self._origins[k_of_point]) @ self._to_px
        limit = np.array(self.shape) - 0.5 + _BEYOND_PX
        outside = ~((px >= -0.5 - _BEYOND_PX) & (px <= limit)).all(1)
        if outside.any():
            number = int(k_of_point[np.argmax(outside)]) + 1
            message = f"{where}: expected contours on the CT, found one beyond the edge of slice"
            raise DicomError("contour_outside", f"{message} {number}")
        return k, px

    def _between(self, where, low, high, k, off_mm) -> DicomError:
        first, last = self._heights[[0, -1]] + [-self._tolerance_mm, self._tolerance_mm]
        beyond = int(np.count_nonzero((low < first) | (high > last)))
        if beyond:
            message = f"{where}: expected contours on the CT, found {beyond} above or below it"
            return DicomError("contour_outside", message)
        worst = int(np.argmax(off_mm))
        return DicomError(
            "contour_between_slices",
            f"{where}: expected contours at most {self._tolerance_mm:.2f} mm off a slice, found "
            f"{int((off_mm > self._tolerance_mm).sum())} farther away, one {off_mm[worst]:.2f} mm "
            f"off slice {int(k[worst]) + 1}; was the CT resampled?",
        )


def _planes(where: str, roi: Roi, slices: Slices, found: Counter):
    """Yields (k, bool [Y, X]) of each slice that one organ touches; counts what was met."""
    drawn = [contour for item in roi.contours for contour in item]
    closed = [contour for contour in drawn if contour.kind in CLOSED_KINDS and contour.data]
    found["contour_open"] += sum(contour.kind not in CLOSED_KINDS for contour in drawn)
    found["contour_interpolated"] += sum(contour.kind == INTERPOLATED for contour in drawn)
    found["contour_tiny"] += len(drawn) - len(closed) - found["contour_open"]
    found["contour_commas"] += sum(b"," in contour.data for contour in closed)
    if not closed:
        return
    points, counts = _points(where, closed)
    k, px = slices.place(where, points, counts)
    rings = np.split(px, np.cumsum(counts)[:-1])
    for index in np.unique(k):
        here = np.flatnonzero(k == index)
        images = [closed[i].images for i in here]
        found["structures_references"] += sum(
            bool(uids) and slices.uids[index].isdisjoint(uids) for uids in images
        )
        plane = [rings[i] for i in here]
        if any(closed[i].kind == XOR for i in here):
            mask = contours.fill(plane, slices.shape)
        else:
            try:
                mask, met = contours.combine(plane, slices.shape)
            except nesting.TooManyRings as error:
                message = f"{where}: {len(plane)} contours on slice {index + 1} overlap; expected"
                message += " so few that they can be told apart; draw or export it again"
                raise DicomError("contour_too_many", message) from error
            found.update(met)
        yield index, mask.T


def _points(where: str, closed) -> tuple[np.ndarray, np.ndarray]:
    """All points of contours that have some, float64 [N, 3], and how many each has."""
    data = [contour.data for contour in closed]
    counts = np.array([text.count(b"\\") + 1 for text in data])
    told = [contour.count.lstrip("+0") for contour in closed]
    numbers = _numbers(b" ".join(data).replace(b",", b".").replace(b"\\", b" "))
    if (
        len(numbers) != counts.sum()
        or not np.isfinite(numbers).all()
        or (counts % 3).any()
        or any(n not in ("", str(count // 3)) for n, count in zip(told, counts, strict=True))
    ):
        message = f"{where}: expected three numbers for each of a contour's points, found others"
        raise DicomError("file_damaged", f"{message}; export it again")
    return numbers.reshape(-1, 3), counts // 3


def _numbers(text: bytes) -> np.ndarray:
    """Decimals between blanks, float64; none at all where they are anything else."""
    try:
        return np.fromstring(text, np.float64, sep=" ")
    except ValueError:
        return np.zeros(0)
