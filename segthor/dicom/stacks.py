"""The files of one series to the stacks that they are the slices of, by their headers alone."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from segthor import files
from segthor.dicom import DicomError
from segthor.dicom.series import Stack
from segthor.dicom.slices import Slice, by_acquisition, by_geometry, fields_of, normal_of, unique
from segthor.dicom.steps import Line, fit_line, place, tilt_degrees
from segthor.volume import Grid

_MOST_GAPS_NAMED = 3
_MOST_ALONG_AXIS = 32767  # what a label map in NIfTI can have
_TILTED_DEGREES = 0.1
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
SINGLE_IMAGE, SECOND_IMAGE = "single image", "second image of one position"  # left aside


class StackError(DicomError):
    """Why images are no stack. paths: their files."""

    def __init__(self, code: str, message: str, paths=()):
        super().__init__(code, message)
        self.paths = tuple(dict.fromkeys(paths))


@dataclass(frozen=True)
class Volumes:
    """What one series holds.

    volumes: A stack each, or the error that says why these images are none.
    left_aside: (why, path) of images that belong to no volume.
    """

    volumes: tuple[Stack | StackError, ...]
    left_aside: tuple[tuple[str, str], ...]


def of_series(headers, findings=()) -> Volumes:
    """The stacks among the headers of one series' CT images; opens no file.

    Images are of one volume where orientation, size, spacing and frame of reference agree. Several
    acquisitions are one volume where they lie side by side or fill one grid together. findings:
    (code, message) of what is unusual about the series, for all of its stacks.

    Errors: 'series_no_position', 'series_bent', 'series_several_volumes'.
    """
    slices = [
        Slice(header, frame if header.is_enhanced else None, plane)
        for header in sorted(headers, key=lambda h: (h.sop_instance_uid, h.path))
        for frame, plane in enumerate(header.planes)
    ]
    placed = [one for one in slices if None not in fields_of(one.plane)]
    if not placed:
        path = slices[0].header.path if slices else headers[0].path
        expected = "expected images with position, orientation and pixel spacing"
        message = f"{path}: {expected}, found none of its series has them; export it again"
        error = StackError("series_no_position", message, [header.path for header in headers])
        return Volumes((error,), ())
    aside = [
        ("image without a position", one.header.path)
        for one in slices
        if None in fields_of(one.plane)
    ]
    volumes = []
    for group in by_geometry(placed):
        mixed = _mixed_uids(group)
        if mixed:
            volumes.append(mixed)
            continue
        sizes = Counter(one.header.acquisition for one in group)
        for volume, surplus in by_acquisition(group):
            for one in surplus:
                is_single = sizes[one.header.acquisition] == 1
                aside.append((SINGLE_IMAGE if is_single else SECOND_IMAGE, one.header.path))
            if len(volume) < 2:
                aside.append((SINGLE_IMAGE, volume[0].header.path))
            else:
                shared = _finding_of_shared(surplus)
                volumes.append(_stack(volume, (*findings, *shared)))
    used = {path for volume in volumes for path in volume.paths}
    aside = [(why, path) for why, path in dict.fromkeys(aside) if path not in used]
    return Volumes(tuple(volumes), tuple(aside))


def _mixed_uids(group) -> StackError | None:
    """Why slices of several frames of reference or studies cannot be put into one volume."""
    headers = [one.header for one in group]
    for what, uids in (
        ("frames of reference", {header.frame_of_reference_uid for header in headers}),
        ("studies", {header.study_uid for header in headers}),
    ):
        if len(uids) > 1:
            path = headers[0].path
            message = f"{path}: the images of one series are of {len(uids)} {what}"
            paths = [header.path for header in headers]
            return StackError("series_mixed", f"{message}; export the series again", paths)
    return None


def _stack(slices, findings) -> Stack | StackError:
    plane, header = slices[0].plane, slices[0].header
    normal, paths = normal_of(plane.orientation), [one.header.path for one in slices]
    kept, duplicates = unique(slices, normal)
    path = kept[0].header.path
    if len(kept) < 2:
        message = f"{path}: {len(slices)} images at one place; expected the slices of a volume"
        return StackError("series_several_volumes", message, paths)
    shape = header.columns, header.rows, len(kept)
    if max(shape) > _MOST_ALONG_AXIS:
        found = " x ".join(map(str, shape))
        message = f"{path}: expected at most {_MOST_ALONG_AXIS} voxels along an axis, found {found}"
        return StackError("file_too_large", message, paths)
    positions = np.array([one.plane.position_mm for one in kept])
    try:
        line = fit_line(positions, normal, path, header.spacing_mm)
    except DicomError as error:
        return StackError(error.code, str(error), paths)
    row_mm, column_mm = plane.spacing_mm
    affine = np.eye(4)
    affine[:3, 0] = np.array(plane.orientation[:3]) * column_mm
    affine[:3, 1] = np.array(plane.orientation[3:]) * row_mm
    affine[:3, 2], affine[:3, 3] = line.step_mm, line.first_mm
    affine[:3] = _LPS_TO_RAS @ affine[:3]
    grid_axes = Grid(shape, affine).orientation.axes
    if line.places_mm is not None and grid_axes[2] != 2:
        message = f"{path}: slices that are not axial lie at uneven steps; export even ones"
        return StackError("series_bent", message, paths)
    return Stack(
        instances=tuple(one.instance for one in kept),
        shape=shape,
        affine=affine,
        positions_mm=positions,
        orientation=plane.orientation,
        pixel_spacing_mm=plane.spacing_mm,
        series_uid=header.series_uid,
        study_uid=header.study_uid,
        frame_of_reference_uid=header.frame_of_reference_uid,
        findings=(*_findings(kept, len(duplicates), line, normal), *findings),
        duplicates=duplicates,
        places_mm=None if line.places_mm is None else tuple(line.places_mm.tolist()),
        gaps=tuple(gap.after for gap in line.gaps),
    )


def _findings(kept, num_duplicates: int, line: Line, normal):
    yield from _findings_of_steps(kept, line)
    if num_duplicates:
        yield "series_duplicates", f"{num_duplicates} images lie in the series twice"
    tilt = tilt_degrees(line.step_mm, normal)
    if tilt > _TILTED_DEGREES:
        yield "series_tilted", f"the gantry was tilted by {tilt:.1f} degrees"
    for code, count, what in (
        ("series_lossy", sum(one.header.is_lossy for one in kept), "compressed with loss"),
        ("series_derived", sum(one.header.is_derived for one in kept), "derived from others"),
    ):
        if count:
            yield code, f"{count} of {len(kept)} images are {what}"
    if line.rounded_mm:
        message = f"positions are rounded to {line.rounded_mm:g} mm; slices are taken to lie"
        yield "series_rounded", f"{message} {line.length_mm:.4g} mm apart"
    if any(one.header.has_commas for one in kept):
        yield "series_decimal_commas", "numbers with a decimal comma are read as with a point"
    uids = Counter(one.header.sop_instance_uid for one in kept if one.frame is None)
    shared = sum(count for count in uids.values() if count > 1)
    if shared:
        message = f"{shared} of {len(kept)} images share a SOPInstanceUID with another"
        yield "series_sop_uids", f"{message}; contours cannot refer to them"


def _findings_of_steps(kept, line: Line):
    """Gaps and uneven steps."""
    if line.gaps:
        where = "; ".join(
            f"{missing} between {_named(kept[k])} and {_named(kept[k + 1])}"
            for k, missing in line.gaps[:_MOST_GAPS_NAMED]
        )
        more = len(line.gaps) - _MOST_GAPS_NAMED
        where += f"; and {more} more gaps" if more > 0 else ""
        yield "series_gap", f"slices are missing: {where}"
    if line.is_uneven:
        steps = np.delete(np.diff(line.places_mm), [gap.after for gap in line.gaps])
        message = f"steps of {steps.min():.4g} to {steps.max():.4g} mm"
        yield "series_uneven", f"{message}; the planes are kept where they are"


def _named(one: Slice) -> str:
    """A slice's place and file, for people."""
    name = files.name(one.header.path)
    name += "" if one.frame is None else f", frame {one.frame + 1}"
    return f"{place(one.position)} in {name}"


def _finding_of_shared(surplus):
    if surplus:
        message = "positions have an image of a second acquisition, which is left out"
        yield "series_shared_positions", f"{len(surplus)} {message}"
