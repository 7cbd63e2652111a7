"""The audit: checks of a CT and its contours in memory, each of which returns findings.

`segthor.figures` measures what is checked here.
"""

import functools
import itertools
from dataclasses import replace

import numpy as np

from segthor import figures, nifti
from segthor.figures import PADDING_HU, ImageFigures, OrganFigures
from segthor.findings import Finding
from segthor.organs import Organ, Organs
from segthor.volume import SAME_PLACE_MM, Grid, LabelMap, Volume, corner_distance_mm

_SHEAR_COSINE = 0.01
_SPACINGS_MM = {"spacing_absurd": (0.05, 30.0), "spacing_unusual": (0.3, 10.0)}
_FEWEST_SLICES, _FEWEST_PIXELS = 8, 32
# An organ is sparse if at least so many runs of slices, and such a share of its slices, lack it.
_FEWEST_GAPS, _SPARSE_SHARE = 2, 0.25
_AIR_HU, _BONE_HU, _METAL_HU = -500, 300, 3071
_LEAST_SHARE, _MOST_PADDING, _MOST_BEYOND = 0.01, 0.35, 0.25
_MIRRORED_MM = 5.0
# Relation: axis of (left, posterior, superior), required sign along it, words for wrong and right.
_RELATIONS = {
    "left_of": (0, 1, "right of", "left of"),
    "right_of": (0, -1, "left of", "right of"),
    "in_front_of": (1, -1, "behind", "in front of"),
    "below": (2, -1, "above", "below"),
}


def _as_findings(check):
    """Decorates a check that yields (code, message); it returns a list of findings."""

    @functools.wraps(check)
    def checked(*arguments, **named) -> list[Finding]:
        return [Finding.of(*found) for found in check(*arguments, **named)]

    return checked


@_as_findings
def grid_findings(grid: Grid):
    """Checks orientation, voxel axes and spacing of a CT."""
    yield from nifti.header_findings(grid)
    axes = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    cosine = np.abs(axes.T @ axes - np.eye(3)).max()
    if cosine > _SHEAR_COSINE:
        degrees = np.degrees(np.arccos(min(cosine, 1)))
        yield "grid_sheared", f"two voxel axes are at {degrees:.1f} degrees instead of 90"
    for code, (low, high) in _SPACINGS_MM.items():
        if not all(low <= mm <= high for mm in grid.spacing_mm):
            spacing = format_lengths(reversed(grid.spacing_mm))
            message = f"voxels of {spacing} mm; expected {low:g} to {high:g} mm"
            unit = nifti.unit(grid)
            if unit in ("meter", "micron"):
                message += f"; the header's unit is {unit}: are its numbers in mm?"
            yield code, message
            break


@_as_findings
def size_findings(shape_zyx):
    """Checks that the scan has enough slices, and pixels in a slice."""
    num_slices, *plane = shape_zyx
    if num_slices < _FEWEST_SLICES:
        yield "few_slices", f"{num_slices} slices; expected at least {_FEWEST_SLICES}"
    if min(plane) < _FEWEST_PIXELS:
        size = f"slices of {format_lengths(plane)} pixels"
        yield "few_pixels", f"{size}; expected at least {_FEWEST_PIXELS}"


@_as_findings
def pair_findings(ct_grid: Grid, labels_grid: Grid):
    """Checks that the contours lie on the CT's grid, in the same order of axes."""
    if ct_grid.shape != labels_grid.shape:
        ours, theirs = map(format_lengths, (labels_grid.shape, ct_grid.shape))
        yield "shape_mismatch", f"contours have {ours} voxels, the CT {theirs}"
        return
    ct_mm, labels_mm = _lengths_mm(ct_grid), _lengths_mm(labels_grid)
    difference = np.max(np.abs(ct_mm - labels_mm) * (np.array(ct_grid.shape) - 1))
    distance = corner_distance_mm(ct_grid.shape, ct_grid.affine, labels_grid.affine)
    if difference > SAME_PLACE_MM:
        ours, theirs = map(format_lengths, (labels_mm, ct_mm))
        yield "spacing_mismatch", f"the contours' voxels are {ours} mm, the CT's {theirs} mm"
    elif distance > SAME_PLACE_MM:
        yield "affine_mismatch", f"contours lie up to {distance:.1f} mm off the CT's voxels"


@_as_findings
def finite_findings(hu: np.ndarray):
    """Checks that every value of the CT is finite."""
    if hu.dtype.kind == "f":
        count = hu.size - int(np.count_nonzero(np.isfinite(hu)))
        if count:
            yield "not_finite", f"{count} of the CT's voxels are not finite numbers"


@_as_findings
def image_findings(image: ImageFigures):
    """Checks that the values are those of a chest CT in HU."""
    span = f"values from {image.lowest:g} to {image.highest:g}"
    if image.lowest == image.highest:
        yield "hu_constant", f"every voxel of the CT is {image.lowest:g}"
    elif image.lowest > _AIR_HU:
        yield "hu_no_air", f"{span}: no air at -1000 HU; was an offset of 1024 lost?"
    elif min(image.air_share, image.tissue_share) < _LEAST_SHARE:
        shares = f"{image.air_share:.1%} air or lung, {image.tissue_share:.1%} soft tissue"
        yield "hu_scale", f"{span}, by their HU {shares}: slope or offset are wrong"
    elif image.odd_share > _LEAST_SHARE:
        share = f"{image.odd_share:.1%} of the voxels"
        yield "hu_scale", f"{span}, {share} lighter than air and not padding: the slope is wrong"
    elif image.highest < _BONE_HU:
        yield "hu_clipped", f"{span}: no bone, values were clipped"
    if image.highest > _METAL_HU:
        yield "metal", f"values up to {image.highest:g} HU"
    if image.padding_share > _MOST_PADDING:
        yield "padding", f"{image.padding_share:.0%} of the scan lie below {PADDING_HU} HU"


@_as_findings
def organ_findings(measured: dict[str, OrganFigures], contoured, organs: Organs, cut=None):
    """Checks that contoured organs are present and plausible, as far as the table has ranges.

    Args:
      measured: Figures of the organs that are present.
      contoured: Names of the organs that should be present.
      organs: The table of organs.
      cut: Organs beside ignored voxels, which are not measured; None where no voxel is ignored.
    """
    for organ in organs:
        name, values = organ.name, measured.get(organ.name)
        if cut is not None and values is None and name in contoured:
            where = "beside" if name in cut else "no voxel of it, maybe in"
            yield "organ_cut", f"{name}: {where} voxels that are not annotated; it is not measured"
        elif values is None and name in contoured and measured:
            yield "organ_missing", f"no voxel of the {name}, which was to be contoured"
        elif values and name not in contoured:
            yield "organ_not_declared", f"{name}: has contours, but is not listed as contoured"
        elif values:
            yield from _implausible(organ, values)
    yield from _misplaced(measured, organs)


def _implausible(organ: Organ, values: OrganFigures):
    """Checks the ranges of the table, and that an organ is drawn on all of its slices."""
    pieces = organ.max_components and (1, organ.max_components)
    for code, value, plausible, unit in (
        ("organ_volume", values.volume_cm3, organ.volume_cm3, "cm3"),
        ("organ_hu", values.mean_hu, organ.mean_hu, "HU on average"),
        ("organ_extent", values.extent_z_mm, organ.extent_z_mm, "mm along the body"),
        ("organ_components", values.components, pieces, "pieces"),
        ("organ_gap", values.gaps, (0, 0), "slices without it between others"),
    ):
        if plausible and not plausible[0] <= value <= plausible[1]:
            low, high = plausible
            yield code, f"{organ.name}: {value:g} {unit}; plausible are {low:g} to {high:g}"
    share = values.gaps / values.slices if values.slices else 0
    if values.gap_runs >= _FEWEST_GAPS and share >= _SPARSE_SHARE:
        slices = f"{values.gaps} of its {values.slices} slices"
        yield "organ_sparse", f"{organ.name}: not drawn on {slices}, which are not background"


def _misplaced(measured: dict[str, OrganFigures], organs: Organs):
    """Checks the table's relations between organs, such as left_of and in_front_of."""
    for name, relation, other in _present_relations(measured, organs):
        axis, sign, wrong, right = _RELATIONS[relation]
        center, reference = measured[name].center_lps_mm, measured[other].center_lps_mm
        beyond_mm = -sign * (center[axis] - reference[axis])
        if beyond_mm > _MIRRORED_MM:
            how = f"the {name} lies {beyond_mm:.0f} mm {wrong} the {other}"
            yield "anatomy_mirrored", f"{how}, expected {right} it: the affine may be flipped"


def _present_relations(measured: dict[str, OrganFigures], organs: Organs):
    """Yields (organ, relation, other organ) for pairs of organs that are both present.

    Where the table names several others for a relation, the first that is present. Every left organ
    must also lie left of every right one.
    """
    present = [organ for organ in organs if organ.name in measured]
    for organ in present:
        for relation in _RELATIONS:
            others = (name for name in getattr(organ, relation) if name in measured)
            yield from ((organ.name, relation, name) for name in itertools.islice(others, 1))
    left, right = ([o.name for o in present if o.side == side] for side in ("left", "right"))
    yield from ((one, "left_of", other) for one in left for other in right)


def measure_prediction(
    volume: Volume, labels: LabelMap, names
) -> tuple[dict[str, OrganFigures], list[Finding]]:
    """Figures of the predicted organs, and findings about the scan and these organs.

    names: The organs that the model predicts.
    """
    measured = figures.measure_organs(volume, labels)
    findings = name_organs_at_gaps(volume.findings, volume.grid, labels)
    findings += grid_findings(volume.grid)
    findings += image_findings(figures.measure_image(volume.zyx))
    findings += organ_findings(measured, names, labels.organs)
    if not measured:  # `organ_findings` reports missing organs only beside present ones
        findings.append(Finding.of("organ_missing", f"no voxel of {', '.join(names)}"))
    return measured, findings


def name_organs_at_gaps(findings, grid: Grid, labels: LabelMap | None) -> list[Finding]:
    """Copies findings; those of gaps (`series_gap`) then name the organs on both sides."""
    names = _organs_at_gaps(grid, labels) if labels and grid.planes else ()
    if not names:
        return list(findings)
    suffix = f"; on both sides: {', '.join(names)}"
    return [
        replace(one, message=one.message + suffix) if one.code == "series_gap" else one
        for one in findings
    ]


def _organs_at_gaps(grid: Grid, labels: LabelMap) -> tuple[str, ...]:
    """The organs that have voxels in the planes below and above one of the gaps."""
    sides = [labels.zyx[z : z + 2] for z in grid.planes.gaps]
    return tuple(
        organ.name
        for organ in labels.organs
        if any((planes == organ.label).any((1, 2)).all() for planes in sides)
    )


@_as_findings
def box_findings(labels_outside: int, beyond_share: float):
    """Checks the box: labelled voxels outside of it, and its share outside of the scan."""
    if labels_outside:
        yield "labels_outside_box", f"{labels_outside} labelled voxels lie outside the box"
    if beyond_share > _MOST_BEYOND:
        yield "box_beyond_scan", f"{beyond_share:.0%} of the box lie outside the scan"


def _lengths_mm(grid: Grid) -> np.ndarray:
    """Distance in mm between neighbouring voxels along each axis of the file, float64 [3]."""
    return np.linalg.norm(grid.affine[:3, :3], axis=0)


def format_lengths(numbers) -> str:
    """Numbers of voxels or mm along the axes, as '512x512x120'."""
    return "x".join(f"{number:.4g}" for number in numbers)
