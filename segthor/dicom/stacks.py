"""Makes stacks of the images of one series, from their headers alone."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from segthor import files
from segthor.dicom import DicomError
from segthor.dicom.headers import Plane
from segthor.dicom.series import Stack
from segthor.dicom.slices import PlacedSlice, by_acquisition, by_geometry, normal_of, unique
from segthor.dicom.steps import Line, fit_line, format_position, tilt_degrees
from segthor.volume import Grid

_MOST_GAPS_NAMED = 3
_MOST_ALONG_AXIS = 32767  # NIfTI stores the shape as int16
_TILTED_DEGREES = 0.1
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
# Why an image belongs to no volume:
SINGLE_IMAGE, SECOND_IMAGE = "single image", "second image of one position"
_NO_POSITION = "image without a position"


class StackError(DicomError):
    """The reason why images are no stack.

    paths: Their files.
    """

    def __init__(self, code: str, message: str, paths=()):
        super().__init__(code, message)
        self.paths = tuple(dict.fromkeys(paths))


@dataclass(frozen=True)
class SeriesStacks:
    """The stacks of one series.

    stacks: A stack for each volume, or the error that says why its images are none.
    left_aside: (reason, path) of images that belong to no volume.
    """

    stacks: tuple[Stack | StackError, ...]
    left_aside: tuple[tuple[str, str], ...]


def make_stacks(headers, findings=()) -> SeriesStacks:
    """Makes the stacks of one series; opens no file.

    Images of equal size, orientation, pixel spacing and frame of reference make one volume. Several
    acquisitions make one volume where they lie side by side or fill one grid together.

    Args:
      headers: Headers of the series' CT images.
      findings: (code, message) of what is unusual about the series; every stack gets them.

    Errors are 'series_no_position', 'series_mixed', 'series_several_volumes', 'series_bent' and
    'file_too_large'.
    """
    slices = [
        PlacedSlice(header, frame if header.is_enhanced else None, plane)
        for header in sorted(headers, key=lambda h: (h.sop_instance_uid, h.path))
        for frame, plane in enumerate(header.planes)
    ]
    placed = [one for one in slices if None not in one.plane]
    if not placed:
        return SeriesStacks((_no_position_error(headers),), ())
    aside = [(_NO_POSITION, one.header.path) for one in slices if None in one.plane]
    stacks = []
    for group in by_geometry(placed):
        made, surplus = _split_group(group, findings)
        stacks += made
        aside += surplus
    used = {path for stack in stacks for path in stack.paths}
    aside = [(reason, path) for reason, path in dict.fromkeys(aside) if path not in used]
    return SeriesStacks(tuple(stacks), tuple(aside))


def _no_position_error(headers) -> StackError:
    paths = [header.path for header in headers]
    expected = "expected images with position, orientation and pixel spacing"
    message = f"{paths[0]}: {expected}, found none of its series has them; export it again"
    return StackError("series_no_position", message, paths)


def _split_group(group, findings):
    """(stacks, left aside) of slices with one geometry; see `SeriesStacks`."""
    mixed = _mixed_uids(group)
    if mixed:
        return [mixed], []
    stacks, aside = [], []
    sizes = Counter(one.header.acquisition for one in group)
    for slices, surplus in by_acquisition(group):
        for one in surplus:
            is_single = sizes[one.header.acquisition] == 1
            aside.append((SINGLE_IMAGE if is_single else SECOND_IMAGE, one.header.path))
        if len(slices) < 2:
            aside.append((SINGLE_IMAGE, slices[0].header.path))
        else:
            stacks.append(_make_stack(slices, (*findings, *_shared_findings(surplus))))
    return stacks, aside


def _mixed_uids(group) -> StackError | None:
    """The error of slices of several frames of reference or studies; None if they agree."""
    headers = [one.header for one in group]
    for name, uids in (
        ("frames of reference", {header.frame_of_reference_uid for header in headers}),
        ("studies", {header.study_uid for header in headers}),
    ):
        if len(uids) > 1:
            path = headers[0].path
            message = f"{path}: the images of one series are of {len(uids)} {name}"
            paths = [header.path for header in headers]
            return StackError("series_mixed", f"{message}; export the series again", paths)
    return None


def _make_stack(slices, findings) -> Stack | StackError:
    plane, header = slices[0].plane, slices[0].header
    normal = normal_of(plane.orientation)
    distinct, duplicates = unique(slices, normal)
    path = distinct[0].header.path
    positions = np.array([one.plane.position_mm for one in distinct])
    try:
        shape = _shape(distinct, len(slices))
        line = fit_line(positions, normal, path, header.spacing_mm)
        affine = _ras_affine(plane, line, shape, path)
    except DicomError as error:
        return StackError(error.code, str(error), [one.header.path for one in slices])
    return Stack(
        instances=tuple(one.instance for one in distinct),
        shape=shape,
        affine=affine,
        positions_mm=positions,
        orientation=plane.orientation,
        pixel_spacing_mm=plane.spacing_mm,
        series_uid=header.series_uid,
        study_uid=header.study_uid,
        frame_of_reference_uid=header.frame_of_reference_uid,
        findings=(*_findings(distinct, len(duplicates), line, normal), *findings),
        duplicates=duplicates,
        offsets_mm=None if line.offsets_mm is None else tuple(line.offsets_mm.tolist()),
        gaps=tuple(gap.after for gap in line.gaps),
    )


def _shape(distinct, num_images: int) -> tuple[int, int, int]:
    """(columns, rows, slices) of a volume; raises DicomError where they are no size of one."""
    header = distinct[0].header
    shape = header.columns, header.rows, len(distinct)
    if len(distinct) < 2:
        message = f"{num_images} images at one place; expected the slices of a volume"
        raise DicomError("series_several_volumes", f"{header.path}: {message}")
    if max(shape) > _MOST_ALONG_AXIS:
        expected = f"expected at most {_MOST_ALONG_AXIS} voxels along an axis"
        size = " x ".join(map(str, shape))
        raise DicomError("file_too_large", f"{header.path}: {expected}, found {size}")
    return shape


def _ras_affine(plane: Plane, line: Line, shape, path: str) -> np.ndarray:
    """Index (column, row, slice) of a stack to RAS+ mm, float64 [4, 4].

    Raises:
      DicomError: 'series_bent' if slices at uneven steps are not axial.
    """
    row_mm, column_mm = plane.spacing_mm
    affine = np.eye(4)
    affine[:3, 0] = np.array(plane.orientation[:3]) * column_mm
    affine[:3, 1] = np.array(plane.orientation[3:]) * row_mm
    affine[:3, 2], affine[:3, 3] = line.step_mm, line.first_mm
    affine[:3] = _LPS_TO_RAS @ affine[:3]
    # `Grid.planes` exist along z only.
    if line.offsets_mm is not None and Grid(shape, affine).orientation.axes[2] != 2:
        message = f"{path}: slices that are not axial lie at uneven steps; export even ones"
        raise DicomError("series_bent", message)
    return affine


def _findings(slices, num_duplicates: int, line: Line, normal):
    yield from _step_findings(slices, line)
    if num_duplicates:
        yield "series_duplicates", f"{num_duplicates} images lie in the series twice"
    tilt = tilt_degrees(line.step_mm, normal)
    if tilt > _TILTED_DEGREES:
        yield "series_tilted", f"the gantry was tilted by {tilt:.1f} degrees"
    for code, count, property_ in (
        ("series_lossy", sum(one.header.is_lossy for one in slices), "compressed with loss"),
        ("series_derived", sum(one.header.is_derived for one in slices), "derived from others"),
    ):
        if count:
            yield code, f"{count} of {len(slices)} images are {property_}"
    if line.rounded_mm:
        message = f"positions are rounded to {line.rounded_mm:g} mm; slices are taken to lie"
        yield "series_rounded", f"{message} {line.length_mm:.4g} mm apart"
    if any(one.header.has_commas for one in slices):
        yield "series_decimal_commas", "numbers with a decimal comma are read as with a point"
    uids = Counter(one.header.sop_instance_uid for one in slices if one.frame is None)
    shared = sum(count for count in uids.values() if count > 1)
    if shared:
        message = f"{shared} of {len(slices)} images share a SOPInstanceUID with another"
        yield "series_sop_uids", f"{message}; contours cannot refer to them"


def _step_findings(slices, line: Line):
    """Yields findings about gaps and uneven steps."""
    if line.gaps:
        where = "; ".join(
            f"{missing} between {_describe(slices[k])} and {_describe(slices[k + 1])}"
            for k, missing in line.gaps[:_MOST_GAPS_NAMED]
        )
        more = len(line.gaps) - _MOST_GAPS_NAMED
        where += f"; and {more} more gaps" if more > 0 else ""
        yield "series_gap", f"slices are missing: {where}"
    if line.is_uneven:
        low, high = line.steps_mm.min(), line.steps_mm.max()
        message = f"steps of {low:.4g} to {high:.4g} mm; the planes are kept where they are"
        yield "series_uneven", message


def _describe(one: PlacedSlice) -> str:
    """Position and file of a slice, for messages."""
    name = files.name(one.header.path)
    name += "" if one.frame is None else f", frame {one.frame + 1}"
    return f"{format_position(one.position)} in {name}"


def _shared_findings(surplus):
    if surplus:
        message = "positions have an image of a second acquisition, which is left out"
        yield "series_shared_positions", f"{len(surplus)} {message}"
