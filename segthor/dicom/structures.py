"""Converts a structure set's contours to a label map on the grid of a stack of slices.

The slice of a contour follows from its coordinates, not from its references to images, which are
often wrong.
"""

from collections import Counter

import numpy as np

from segthor import contours, nesting
from segthor.dicom import DicomError, rois, segments
from segthor.dicom.rois import CLOSED_KINDS, INTERPOLATED, XOR, Roi
from segthor.dicom.series import Stack
from segthor.dicom.slices import normal_of
from segthor.findings import Finding
from segthor.organs import Organs
from segthor.volume import LabelMap

# Allowed distance of a contour from its slice, in mm or as a share of the distance between slices,
# whichever is larger: planning systems move contours by up to 0.12 mm.
_OFF_SLICE_MM, _OFF_SLICE_SHARE = 0.2, 0.1
# Upper limits of this distance; beyond a third of a step the slice would be ambiguous.
_MOST_OFF_MM, _MOST_OFF_SHARE = 1.0, 1 / 3
_BEYOND_PX = 1.0  # allowed distance outside the edge of the image
_MOST_MISSING = 0.5  # largest share of contours where slices are missing
NO_SLICE = -1
_WORDS = {
    "structures_references": "refer to images of other slices than they lie on",
    "contour_nested": "lie inside another and are read as holes, or as islands in holes",
    "contour_crossing": "cross another on their slice and are united",
    "contour_self_crossing": "cross themselves and are filled by the even-odd rule",
    "contour_duplicate": "repeat another and are left out",
    "contour_interpolated": "are marked as interpolated and are read like drawn ones",
    "contour_commas": "have a decimal comma, which is read as a point",
    "contour_open": "are open, points or of no known kind and are left out",
    "contour_tiny": "contain no voxel's centre",
    "contour_without_slice": "lie where the series has no slice and are left out",
}


def read(path: str, stack: Stack, organs: Organs, roi_names=()) -> LabelMap:
    """Reads a structure set as a label map on the stack that it was drawn on.

    A voxel belongs to an organ if its centre is inside the contours; a voxel in several organs gets
    the label of the first one in the table. `contoured` of the result lists the organs with
    contours; nothing is known about the others.

    roi_names: (organ, ROI name) pairs instead of the table's synonyms; see `rois.match`.

    Raises:
      DicomError: 'file_missing', 'file_not_dicom', 'file_damaged', 'structures_other_frame',
        'roi_ambiguous'; 'structures_none' for no structure set, or one without these organs;
        'contour_between_slices' or 'contour_outside' for contours where the CT has no voxels.
    """
    structures = rois.read(path)
    matched = rois.match(structures, organs, roi_names)
    labels = np.zeros(stack.shape[::-1], np.uint8)
    contoured, findings = _draw_organs(path, matched, stack, labels)
    if not contoured:
        raise _no_contours(structures, matched, organs, roi_names)
    findings = [*_unmatched_names(matched, roi_names), *findings]
    if structures.series_uids and stack.series_uid not in structures.series_uids:
        message = "the structure set refers to another series; its contours are placed by geometry"
        findings.insert(0, ("structures_references", message))
    findings = tuple(Finding.of(*finding) for finding in findings)
    return LabelMap(stack.to_zyx(labels), stack.grid, organs, tuple(contoured), findings)


def _draw_organs(path: str, matched, stack: Stack, labels: np.ndarray):
    """Labels the voxels of all organs in [slice, row, column].

    Returns:
      The names of the organs that have a voxel, and (code, message) of findings.
    """
    slices, contoured, findings, shared = Slices(stack), [], [], 0
    frames = segments.Frames(path) if any(roi.is_segment for _, roi in matched) else None
    for organ, roi in matched:
        where, counts = f"{path}: {organ.name}", Counter()
        if roi.frame_of_reference_uid not in ({stack.frame_of_reference_uid} - {""}):
            message = "expected contours in the CT's frame of reference, found another or none"
            raise DicomError("structures_other_frame", f"{where}: {message}")
        planes = frames and frames.planes(where, roi.number, slices, counts)
        own, overlap = _fill(labels, organ.label, planes or _planes(where, roi, slices, counts))
        shared += overlap
        if own:
            contoured.append(organ.name)
        findings += _findings_of_organ(organ.name, counts, own)
    if shared:
        message = f"{shared} voxels lie in two organs; the table's first keeps them"
        findings.append(("organs_overlap", message))
    return contoured, findings


def _fill(labels: np.ndarray, label: int, planes) -> tuple[int, int]:
    """Labels the pixels of (k, bool [Y, X]) that have no label yet; counts them and the others."""
    own = shared = 0
    for k, plane in planes:
        free = plane & (labels[k] == 0)
        labels[k][free] = label
        own += int(np.count_nonzero(free))
        shared += int(np.count_nonzero(plane)) - int(np.count_nonzero(free))
    return own, shared


def _findings_of_organ(name: str, counts: Counter, num_voxels: int):
    """Yields (code, message) for an organ's contours."""
    for code, words in _WORDS.items():
        if counts[code]:
            yield code, f"{name}: {counts[code]} contours {words}"
    if not num_voxels:
        yield "roi_empty", f"{name}: its ROI holds no voxel of its own; taken as not contoured"


def _no_contours(structures, matched, organs: Organs, roi_names) -> DicomError:
    message = f"{structures.path}: expected contours of {', '.join(organs.names)}; none of its"
    message += f" {len(structures.rois)} ROIs holds any"
    message += "".join(f"; {text}" for _, text in _unmatched_names(matched, roi_names))
    return DicomError("structures_none", message)


def _unmatched_names(matched, roi_names) -> list[tuple[str, str]]:
    """Findings for organs whose names in --roi_names no ROI has."""
    names = {}
    for organ, name in roi_names:
        names.setdefault(organ, []).append(repr(name))
    for organ, _ in matched:
        names.pop(organ.name, None)
    return [
        ("roi_names_unmatched", f"{organ}: no ROI has the name {' or '.join(own)} of --roi_names")
        for organ, own in names.items()
    ]


class Slices:
    """The slices of a stack, for finding the slice and pixel of points in LPS mm."""

    def __init__(self, stack: Stack):
        along_x, along_y = np.array(stack.orientation, np.float64).reshape(2, 3)
        row_mm, column_mm = stack.pixel_spacing_mm
        self.shape = stack.shape[:2]
        self.uids = [{instance.sop_instance_uid} for instance in stack.instances]
        for k, instance in stack.duplicates:
            self.uids[k].add(instance.sop_instance_uid)
        self._normal = normal_of(stack.orientation)
        self._to_px = np.linalg.pinv(np.stack([along_x * column_mm, along_y * row_mm], 1)).T
        self._origins = np.asarray(stack.positions_mm, np.float64)
        self._heights = self._origins @ self._normal  # ascending, as `stacks` orders slices
        step = float(np.diff(self._heights).min())
        usual = max(_OFF_SLICE_MM, min(_OFF_SLICE_SHARE * step, _MOST_OFF_MM))
        self._tolerance_mm = min(usual, _MOST_OFF_SHARE * step)
        # At uneven steps, contours may have been drawn on slices that are missing now.
        self._missing_mm = np.inf if stack.offsets_mm is None else step / 2

    def place(self, where: str, points: np.ndarray, counts: np.ndarray):
        """Finds the slice k of each contour, and its points (x, y) in pixels, float64 [N, 2].

        points: LPS mm [N, 3], of all contours. counts: Number of points of each contour.

        k is NO_SLICE for contours in a gap or in a long step of an uneven series, half the shortest
        step or more away from every slice.

        Raises:
          DicomError: 'contour_between_slices', 'contour_outside'.
        """
        starts = np.cumsum(counts) - counts
        height = points @ self._normal
        low, high = np.minimum.reduceat(height, starts), np.maximum.reduceat(height, starts)
        middles = (self._heights[1:] + self._heights[:-1]) / 2
        k = np.searchsorted(middles, (low + high) / 2)
        off_mm = np.maximum(high - self._heights[k], self._heights[k] - low)
        is_inside = (low > self._heights[0]) & (high < self._heights[-1])
        is_missing = is_inside & (off_mm >= self._missing_mm)
        if len(counts) > 1 and is_missing.mean() > _MOST_MISSING:
            is_missing[:] = False  # probably drawn on another CT: an error
        if (off_mm > self._tolerance_mm)[~is_missing].any():
            raise self._between(where, low, high, k, off_mm)
        px = self._pixels(where, points, np.repeat(k, counts))
        return np.where(is_missing, NO_SLICE, k), px

    def _pixels(self, where: str, points: np.ndarray, k: np.ndarray) -> np.ndarray:
        """Points in pixels (x, y) of their slices k, [N, 2]; DicomError beyond a slice's edge."""
        px = (points - self._origins[k]) @ self._to_px
        limit = np.array(self.shape) - 0.5 + _BEYOND_PX
        outside = ~((px >= -0.5 - _BEYOND_PX) & (px <= limit)).all(1)
        if outside.any():
            message = f"{where}: expected contours on the CT, found one beyond the edge of slice"
            raise DicomError("contour_outside", f"{message} {int(k[np.argmax(outside)]) + 1}")
        return px

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


def _planes(where: str, roi: Roi, slices: Slices, counts: Counter):
    """Yields (k, bool [Y, X]) for each slice k with contours of an ROI.

    counts: Code of `_WORDS` to number of contours; increased.
    """
    drawn = [contour for item in roi.contours for contour in item]
    closed = [contour for contour in drawn if contour.kind in CLOSED_KINDS and contour.data]
    counts["contour_open"] += sum(contour.kind not in CLOSED_KINDS for contour in drawn)
    counts["contour_interpolated"] += sum(contour.kind == INTERPOLATED for contour in drawn)
    counts["contour_tiny"] += len(drawn) - len(closed) - counts["contour_open"]
    counts["contour_commas"] += sum(b"," in contour.data for contour in closed)
    if not closed:
        return
    points, lengths = _points(where, closed)
    k, px = slices.place(where, points, lengths)
    rings = np.split(px, np.cumsum(lengths)[:-1])
    counts["contour_without_slice"] += np.count_nonzero(k == NO_SLICE)
    for index in np.unique(k[k != NO_SLICE]):
        here = np.flatnonzero(k == index)
        counts["structures_references"] += sum(
            bool(closed[i].images) and slices.uids[index].isdisjoint(closed[i].images) for i in here
        )
        is_xor = any(closed[i].kind == XOR for i in here)
        location = f"{where}: slice {index + 1}"
        yield index, _fill_rings(location, [rings[i] for i in here], slices.shape, is_xor, counts).T


def _fill_rings(where: str, rings, shape, is_xor: bool, counts: Counter) -> np.ndarray:
    """bool [X, Y]: the rings of one organ on one slice, filled."""
    if is_xor:  # CLOSEDPLANAR_XOR states the even-odd rule
        return contours.fill(rings, shape)
    try:
        mask, ring_counts = contours.combine(rings, shape)
    except nesting.TooManyRings as error:
        message = f"{where}: {len(rings)} contours overlap, too many to find which are holes"
        raise DicomError("contour_too_many", f"{message}; draw or export it again") from error
    counts.update(ring_counts)
    return mask


def _points(where: str, closed) -> tuple[np.ndarray, np.ndarray]:
    """The points of contours, float64 [N, 3], and the number of points of each."""
    data = [contour.data for contour in closed]
    counts = np.array([text.count(b"\\") + 1 for text in data])
    stated = [contour.count.lstrip("+0") for contour in closed]
    numbers = _numbers(b" ".join(data).replace(b",", b".").replace(b"\\", b" "))
    are_triples = len(numbers) == counts.sum() and not (counts % 3).any()
    are_stated = all(n in ("", str(k // 3)) for n, k in zip(stated, counts, strict=True))
    if not (are_triples and are_stated and np.isfinite(numbers).all()):
        message = f"{where}: expected three numbers for each of a contour's points, found others"
        raise DicomError("file_damaged", f"{message}; export it again")
    return numbers.reshape(-1, 3), counts // 3


def _numbers(text: bytes) -> np.ndarray:
    """The numbers in a text, separated by blanks, float64; empty for any other text."""
    try:
        return np.fromstring(text, np.float64, sep=" ")
    except ValueError:
        return np.zeros(0)
