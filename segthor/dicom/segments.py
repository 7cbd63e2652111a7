"""Reads the segments of a DICOM SEG (BINARY or LABELMAP) on the slices of a CT."""

from collections import Counter

import numpy as np
from pydicom.pixels import pixel_array

from segthor.dicom import DicomError, elements
from segthor.dicom.elements import groups_of_frame, text, whole
from segthor.dicom.headers import SEG, plane_of_frame

_SYNTAXES = {  # syntax to decoder; those of other compressions do not support one bit per pixel
    "1.2.840.10008.1.2": "",
    "1.2.840.10008.1.2.1": "",
    "1.2.840.10008.1.2.1.99": "",
    "1.2.840.10008.1.2.5": "pydicom",
}
_REFERENCED = "ReferencedSegmentNumber"
_OFF_PX = 0.1  # allowed distance between pixel centres of the SEG and of the CT, in pixels


class Frames:
    """The frames of one SEG.

    Raises:
      DicomError: 'file_damaged', 'dicom_syntax', 'structures_none' for a fractional SEG.
    """

    def __init__(self, path: str):
        self._path = path
        self._dataset = elements.read_dataset(path, pixels=True)
        self._is_labelmap = text(self._dataset, "SOPClassUID") != SEG
        if text(self._dataset, "SegmentationType") not in ("BINARY", "LABELMAP"):
            message = f"{path}: expected segments of type BINARY or LABELMAP"
            raise DicomError("structures_none", message)
        self._syntax = str(self._dataset.file_meta.get("TransferSyntaxUID", ""))
        if self._syntax not in _SYNTAXES:
            message = f"{path}: expected a SEG that is not compressed, or by RLE"
            raise DicomError("dicom_syntax", f"{message}; convert it, as with gdcmconv --raw")
        per_frame = self._dataset.get("PerFrameFunctionalGroupsSequence") or ()
        self._segments = [self._segment_of(frame) for frame in range(len(per_frame))]

    def planes(self, where: str, number: str, slices, counts: Counter):
        """Yields (k, bool [Y, X]) for each slice k of a CT that has a pixel of a segment.

        Args:
          where: Start of an error's message.
          number: The segment's number.
          slices: `structures.Slices` of the CT.
          counts: Receives the number of frames that are left out because the CT has no slice there.

        Raises:
          DicomError: 'contour_between_slices', 'contour_outside', 'file_damaged'.
        """
        own = [frame for frame, segment in enumerate(self._segments) if segment in ("", number)]
        for frame in own:
            rows, columns = np.nonzero(self._mask(frame, int(number)))
            if not len(rows):
                continue
            points = self._points_mm(frame, rows, columns)
            (k,), px = slices.place(where, points, np.array([len(points)]))
            if k < 0:
                counts["contour_without_slice"] += 1
                continue
            voxels = np.rint(px).astype(int)
            inside = (voxels >= 0) & (voxels < slices.shape)
            if np.abs(px - voxels).max() > _OFF_PX or not inside.all():
                message = f"{where}: expected segments on the CT's pixels, found others"
                raise DicomError("contour_outside", f"{message}; export them on the CT's grid")
            plane = np.zeros(slices.shape[::-1], bool)
            plane[voxels[:, 1], voxels[:, 0]] = True
            yield k, plane

    def _segment_of(self, frame: int) -> str:
        """Number of the frame's segment; '' in a LABELMAP, where a frame holds all segments."""
        groups = groups_of_frame(self._dataset, frame, "SegmentIdentificationSequence")
        return "" if self._is_labelmap or not groups else str(whole(groups[0], _REFERENCED))

    def _mask(self, frame: int, number: int) -> np.ndarray:
        plugin = _SYNTAXES[self._syntax]
        with elements.report_damage(f"{self._path}: the segments cannot be read", "copy it again"):
            pixels = pixel_array(self._dataset, index=frame, decoding_plugin=plugin, raw=True)
        return pixels == number if self._is_labelmap else pixels > 0

    def _points_mm(self, frame: int, rows, columns) -> np.ndarray:
        """Centres of pixels of a frame, LPS mm [N, 3]."""
        plane = plane_of_frame(self._dataset, frame)
        if None in plane:
            message = f"{self._path}: expected position, orientation and spacing of each frame"
            raise DicomError("file_damaged", f"{message}, found none; export it again")
        right, down = np.reshape(plane.orientation, (2, 3))
        row_mm, column_mm = plane.spacing_mm
        offsets = columns[:, None] * column_mm * right + rows[:, None] * row_mm * down
        return np.array(plane.position_mm) + offsets
