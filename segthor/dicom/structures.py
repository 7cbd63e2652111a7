"""From a structure set's contours to a label map on the grid of a stack of slices.

Contours are placed by geometry alone: the references to images that planning systems write along
with them are often wrong.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from segthor import contours
from segthor.dicom import DicomError
from segthor.dicom.rois import StructureSet, match

CLOSED, XOR = "CLOSED_PLANAR", "CLOSEDPLANAR_XOR"
_OFF_SLICE_MM, _OFF_SLICE_SHARE = 0.2, 0.1  # planning systems move contours by up to 0.12 mm
_MOST_OFF_SHARE = 1 / 3  # of the step: beyond it, one cannot say which slice is meant
_BEYOND_PX = 1.0  # outside the outermost pixels' edges
_WORDS = {
    "contour_nested": "inside another, read as holes (or islands in them)",
    "contour_crossing": "that cross another on their slice, united",
    "contour_duplicate": "that repeat another, left out",
    "contour_open": "that are open, points or of no known kind, left out",
    "contour_tiny": "that hold no voxel's centre",
}


@dataclass(frozen=True)
class Contoured:
    """labels: uint8 [X, Y, Z] on the stack's grid. organs: names of those that have contours.

    findings: (code, message), all of them warnings. overlap_voxels: voxels inside two organs, which
    the one named first keeps.
    """

    labels: np.ndarray
    organs: tuple[str, ...]
    findings: tuple[tuple[str, str], ...]
    overlap_voxels: int


def label_map(structures: StructureSet, stack, organs, names=()) -> Contoured:
    """The organs' contours as labels on a stack's grid.

    Args:
      stack: a `segthor.dicom.series.Stack`.
      organs: each with `name`, `label` and `synonyms`; see `match`.
      names: (organ, ROI name) beyond the synonyms; see `match`.

    Raises:
      DicomError: 'structures_none', 'structures_other_frame', 'roi_ambiguous', 'file_damaged',
        'contour_between_slices', 'contour_outside'.
    """
    path, slices, findings = structures.path, _Slices(stack), _set_findings(structures, stack)
    labels = np.zeros(stack.shape[::-1], np.uint8)
    contoured, overlap = [], 0
    for organ, roi in match(structures, organs, names):
        _check_frame(path, organ.name, roi, stack)
        drawn, found, held = _Drawn(path, organ.name, roi), Counter(), False
        for k, plane in drawn.planes(slices, stack, found):
            free, held = labels[k] == 0, held or plane.any()
            overlap += int(np.count_nonzero(plane & ~free))
            labels[k][plane & free] = organ.label
        findings += [
            (code, f"{organ.name}: {found[code]} contours {_WORDS[code]}")
            for code in _WORDS
            if found[code]
        ]
        if found["off_reference"]:
            message = f"{found['off_reference']} contours refer to images of other slices"
            findings.append(("structures_references", f"{organ.name}: {message}"))
        if held:
            contoured.append(organ.name)
        else:
            message = "no closed contour of its ROI holds a voxel; taken as not contoured"
            findings.append(("roi_empty", f"{organ.name}: {message}"))
    if not contoured:
        wanted = ", ".join(organ.name for organ in organs)
        message = f"{path}: none of its {len(structures.rois)} ROIs holds a voxel of {wanted}"
        raise DicomError("structures_none", message)
    return Contoured(labels.T, tuple(contoured), tuple(findings), overlap)


def _set_findings(structures, stack) -> list[tuple[str, str]]:
    if structures.series_uids and stack.series_uid not in structures.series_uids:
        message = "the structure set refers to another series; contours are placed by geometry"
        return [("structures_references", message)]
    return []


def _check_frame(path, organ, roi, stack) -> None:
    if roi.frame_of_reference_uid != stack.frame_of_reference_uid:
        message = f"{path}: {organ}: drawn in another frame of reference than the CT's"
        raise DicomError("structures_other_frame", message)


class _Slices:
    """Where points of the patient (LPS mm) lie among a stack's slices."""

    def __init__(self, stack):
        along_x, along_y = np.array(stack.orientation, np.float64).reshape(2, 3)
        row_mm, column_mm = stack.pixel_spacing_mm
        normal = np.cross(along_x, along_y)
        self._normal = normal / np.linalg.norm(normal)
        self._to_px = np.linalg.pinv(np.stack([along_x * column_mm, along_y * row_mm], 1)).T
        self._origins = np.asarray(stack.positions_mm, np.float64)
        heights = self._origins @ self._normal
        self._order = np.argsort(heights, kind="stable")
        self.heights = heights[self._order]
        steps = np.diff(self.heights)
        step = float(steps.min()) if len(steps) else np.inf
        self.tolerance_mm = min(
            max(_OFF_SLICE_MM, min(_OFF_SLICE_SHARE * step, 1.0)), _MOST_OFF_SHARE * step
        )

    def depth(self, points: np.ndarray) -> np.ndarray:
        """mm along the normal of the slices: [N, 3] to [N]."""
        return points @ self._normal

    def nearest(self, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(index in the stack, height in mm) of the slice nearest to each depth."""
        middles = (self.heights[1:] + self.heights[:-1]) / 2
        rank = np.searchsorted(middles, depth)
        return self._order[rank], self.heights[rank]

    def pixels(self, points: np.ndarray, k: np.ndarray) -> np.ndarray:
        """(x, y) in pixels of slice k: [N, 3] to [N, 2]."""
        return (points - self._origins[k]) @ self._to_px


class _Drawn:
    """One organ's closed contours, and how they fall on the slices."""

    def __init__(self, path, organ, roi):
        self._where = f"{path}: {organ}"
        given = [contour for item in roi.contours for contour in item]
        self.closed = [contour for contour in given if contour.kind in (CLOSED, XOR)]
        self._open = len(given) - len(self.closed)

    def planes(self, slices: _Slices, stack, found: Counter):
        """Yields (k, bool [Y, X]) for each slice that the organ touches; counts findings."""
        found["contour_open"] += self._open
        if not self.closed:
            return
        points, counts = self._points()
        found["contour_tiny"] += int((counts == 0).sum())
        closed = [contour for contour, count in zip(self.closed, counts, strict=True) if count]
        counts = counts[counts > 0]
        k = self._slices(points, counts, slices)
        xy = slices.pixels(points, np.repeat(k, counts))
        self._check_inside(xy, k, counts, stack)
        rings = np.split(xy, np.cumsum(counts)[:-1])
        for index in np.unique(k):
            here = [i for i in np.flatnonzero(k == index)]
            uid = stack.instances[index].sop_instance_uid
            found["off_reference"] += sum(
                bool(closed[i].images) and uid not in closed[i].images for i in here
            )
            plane = [rings[i] for i in here]
            if any(closed[i].kind == XOR for i in here):
                yield index, contours.fill(plane, stack.shape[:2]).T
            else:
                mask, seen = contours.combine(plane, stack.shape[:2])
                found.update(seen)
                yield index, mask.T

    def _points(self) -> tuple[np.ndarray, np.ndarray]:
        """All points, float64 [N, 3], and how many each contour has."""
        texts = [contour.data.strip(b" \0\\") for contour in self.closed]
        counts = np.array([text.count(b"\\") + 1 if text else 0 for text in texts])
        numbers = _numbers(b"\\".join(filter(None, texts)))
        said = [contour.count.lstrip("+0") for contour in self.closed]
        agree = all(n in ("", str(count // 3)) for n, count in zip(said, counts, strict=True))
        if numbers is None or len(numbers) != counts.sum() or (counts % 3).any() or not agree:
            message = "contour data that are not the numbers promised; export it again"
            raise DicomError("file_damaged", f"{self._where}: {message}")
        return numbers.reshape(-1, 3), counts // 3

    def _slices(self, points, counts, slices) -> np.ndarray:
        """The slice of each contour."""
        if not len(counts):
            return np.zeros(0, int)
        starts = np.cumsum(counts) - counts
        depth = slices.depth(points)
        low, high = np.minimum.reduceat(depth, starts), np.maximum.reduceat(depth, starts)
        k, height = slices.nearest((low + high) / 2)
        off = np.maximum(high - height, height - low)
        if off.max() <= slices.tolerance_mm:
            return k
        first, last = slices.heights[0], slices.heights[-1]
        tolerance = slices.tolerance_mm
        beyond = int(((low < first - tolerance) | (high > last + tolerance)).sum())
        if beyond:
            message = f"{beyond} contours lie above or below the scan"
            raise DicomError("contour_outside", f"{self._where}: {message}")
        worst = int(np.argmax(off))
        message = (
            f"{int((off > tolerance).sum())} contours lie in no slice's plane, one "
            f"{off[worst]:.2f} mm off slice {int(k[worst]) + 1}; expected at most {tolerance:.2f}"
        )
        raise DicomError("contour_between_slices", f"{self._where}: {message}")

    def _check_inside(self, xy, k, counts, stack) -> None:
        limit = np.array(stack.shape[:2]) - 0.5 + _BEYOND_PX
        outside = ~((xy >= -0.5 - _BEYOND_PX) & (xy <= limit)).all(1)
        if outside.any():
            slice_number = int(np.repeat(k, counts)[np.argmax(outside)]) + 1
            message = f"a contour leaves the image of slice {slice_number}"
            raise DicomError("contour_outside", f"{self._where}: {message}")


def _numbers(text: bytes) -> np.ndarray | None:
    """Backslash-separated decimals, float64; None where that is not what they are."""
    if not text:
        return np.zeros(0)
    try:
        numbers = np.fromstring(text, np.float64, sep="\\")
    except (ValueError, DeprecationWarning):
        return None
    return numbers if np.isfinite(numbers).all() else None
