"""What is wrong with a patient in memory: the checks, each of which gives findings.

The figures judged are those of `segthor.figures`.
"""

import itertools

import numpy as np

from segthor import figures, nifti
from segthor.figures import PADDING_HU, ImageFigures, OrganFigures
from segthor.findings import Finding
from segthor.organs import Organs
from segthor.volume import Grid, LabelMap, Volume, corner_distance_mm

_MISMATCH_MM = 0.1  # between corners of CT and contours; header fields are float32
_SHEAR_COSINE = 0.01
_SPACING_USUAL_MM, _SPACING_POSSIBLE_MM = (0.3, 10.0), (0.05, 30.0)
_FEWEST_SLICES, _FEWEST_PIXELS = 8, 32
_FEWEST_GAPS, _SPARSE_SHARE = 2, 0.25  # of slices between the first and the last one of an organ
_AIR_HU, _BONE_HU, _METAL_HU = -500, 300, 3071
_LEAST_SHARE, _MOST_PADDING, _MOST_BEYOND = 0.01, 0.35, 0.25
_MIRRORED_MM = 5.0
# Relation: axis of (left, posterior, superior), sign asked for along it, words for wrong and right.
_PLACES = {
    "left_of": (0, 1, "right of", "left of"),
    "right_of": (0, -1, "left of", "right of"),
    "in_front_of": (1, -1, "behind", "in front of"),
    "below": (2, -1, "above", "below"),
}


def grid_findings(grid: Grid) -> list[Finding]:
    """What is wrong with where the voxels of a CT lie."""
    findings, add = _collector()
    findings += nifti.header_findings(grid)
    axes = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    cosine = np.abs(axes.T @ axes - np.eye(3)).max()
    if cosine > _SHEAR_COSINE:
        degrees = np.degrees(np.arccos(min(cosine, 1)))
        add("grid_sheared", f"two voxel axes are at {degrees:.1f} degrees instead of 90")
    for code, (low, high) in (
        ("spacing_absurd", _SPACING_POSSIBLE_MM),
        ("spacing_unusual", _SPACING_USUAL_MM),
    ):
        if not all(low <= mm <= high for mm in grid.spacing_mm):
            spacing = _by(reversed(grid.spacing_mm))
            message = f"voxels of {spacing} mm; expected {low:g} to {high:g} mm"
            unit = nifti.unit(grid)
            if unit in ("meter", "micron"):
                message += f"; the header's unit is {unit}: are its numbers in mm?"
            add(code, message)
            break
    return findings


def size_findings(shape_zyx) -> list[Finding]:
    """Whether the scan is too small."""
    findings, add = _collector()
    num_slices, *plane = shape_zyx
    if num_slices < _FEWEST_SLICES:
        add("few_slices", f"{num_slices} slices; expected at least {_FEWEST_SLICES}")
    if min(plane) < _FEWEST_PIXELS:
        add("few_pixels", f"slices of {_by(plane)} pixels; expected at least {_FEWEST_PIXELS}")
    return findings


def pair_findings(ct_grid: Grid, labels_grid: Grid) -> list[Finding]:
    """Whether the contours lie on the CT's grid, in the same order of axes."""
    findings, add = _collector()
    if ct_grid.shape != labels_grid.shape:
        sizes = f"contours have {_by(labels_grid.shape)} voxels, the CT {_by(ct_grid.shape)}"
        add("shape_mismatch", sizes)
        return findings
    longest = max(
        abs(one - other) * (n - 1)
        for one, other, n in zip(
            _lengths_mm(ct_grid), _lengths_mm(labels_grid), ct_grid.shape, strict=True
        )
    )
    distance = corner_distance_mm(ct_grid.shape, ct_grid.affine, labels_grid.affine)
    if longest > _MISMATCH_MM:
        sizes = f"{_by(_lengths_mm(labels_grid))} mm, the CT's {_by(_lengths_mm(ct_grid))} mm"
        add("spacing_mismatch", f"the contours' voxels are {sizes}")
    elif distance > _MISMATCH_MM:
        add("affine_mismatch", f"contours lie up to {distance:.1f} mm off the CT's voxels")
    return findings


def finite_findings(hu: np.ndarray) -> list[Finding]:
    """Whether every value of the CT is a number."""
    findings, add = _collector()
    if hu.dtype.kind == "f":
        count = hu.size - int(np.count_nonzero(np.isfinite(hu)))
        if count:
            add("not_finite", f"{count} of the CT's voxels are not finite numbers")
    return findings


def image_findings(image: ImageFigures) -> list[Finding]:
    """Whether the values are those of a chest CT in HU."""
    findings, add = _collector()
    span = f"values from {image.lowest:g} to {image.highest:g}"
    if image.lowest == image.highest:
        add("hu_constant", f"every voxel of the CT is {image.lowest:g}")
    elif image.lowest > _AIR_HU:
        add("hu_no_air", f"{span}: no air at -1000 HU; was an offset of 1024 lost?")
    elif min(image.air_share, image.tissue_share) < _LEAST_SHARE:
        shares = f"{image.air_share:.1%} air or lung, {image.tissue_share:.1%} soft tissue"
        add("hu_scale", f"{span}, by their HU {shares}: slope or offset are wrong")
    elif image.odd_share > _LEAST_SHARE:
        share = f"{image.odd_share:.1%} of the voxels"
        add("hu_scale", f"{span}, {share} lighter than air and not padding: the slope is wrong")
    elif image.highest < _BONE_HU:
        add("hu_clipped", f"{span}: no bone, values were clipped")
    if image.highest > _METAL_HU:
        add("metal", f"values up to {image.highest:g} HU")
    if image.padding_share > _MOST_PADDING:
        add("padding", f"{image.padding_share:.0%} of the scan lie below {PADDING_HU} HU")
    return findings


def organ_findings(
    measured: dict[str, OrganFigures], contoured, organs: Organs, cut=None
) -> list[Finding]:
    """Organs that are absent, or measure what no such organ does, as far as the table says.

    cut: Organs beside ignored voxels, which are not measured; None where no voxel is ignored.
    """
    findings, add = _collector()
    for organ in organs:
        name, own = organ.name, measured.get(organ.name)
        if cut is not None and own is None and name in contoured:
            place = "beside" if name in cut else "no voxel of it, maybe in"
            add("organ_cut", f"{name}: {place} voxels that are not annotated; it is not measured")
        elif own is None and name in contoured and measured:
            add("organ_missing", f"no voxel of the {name}, which was to be contoured")
        elif own and name not in contoured:
            add("organ_not_declared", f"{name}: has contours, but is not listed as contoured")
        elif own:
            pieces = organ.max_components and (1, organ.max_components)
            for code, value, plausible, unit in (
                ("organ_volume", own.volume_cm3, organ.volume_cm3, "cm3"),
                ("organ_hu", own.mean_hu, organ.mean_hu, "HU on average"),
                ("organ_extent", own.extent_z_mm, organ.extent_z_mm, "mm along the body"),
                ("organ_components", own.components, pieces, "pieces"),
                ("organ_gap", own.gaps, (0, 0), "slices without it between others"),
            ):
                if plausible and not plausible[0] <= value <= plausible[1]:
                    low, high = plausible
                    add(code, f"{name}: {value:g} {unit}; plausible are {low:g} to {high:g}")
            if _is_sparse(own):
                slices = f"{own.gaps} of its {own.slices} slices"
                add("organ_sparse", f"{name}: not drawn on {slices}; they are no background")
    return findings + _mirrored(measured, organs)


def _is_sparse(own: OrganFigures) -> bool:
    """Whether an organ is drawn on some slices only, as on every second one."""
    share = own.gaps / own.slices if own.slices else 0
    return own.gap_runs >= _FEWEST_GAPS and share >= _SPARSE_SHARE


def _mirrored(measured: dict[str, OrganFigures], organs: Organs) -> list[Finding]:
    """Organs that do not lie beside one another as the table says."""
    findings, add = _collector()
    for name, relation, other in _relations(measured, organs):
        axis, sign, wrong, right = _PLACES[relation]
        place, beside = measured[name].center_lps_mm, measured[other].center_lps_mm
        beyond_mm = -sign * (place[axis] - beside[axis])
        if beyond_mm > _MIRRORED_MM:
            how = f"the {name} lies {beyond_mm:.0f} mm {wrong} the {other}"
            add("anatomy_mirrored", f"{how}, expected {right} it: the affine may be flipped")
    return findings


def _relations(measured: dict[str, OrganFigures], organs: Organs):
    """Yields (organ, relation, other organ) of organs that are there.

    Of an organ's several others, the first that is there; and every left organ is left of every
    right one.
    """
    present = [organ for organ in organs if organ.name in measured]
    for organ in present:
        for relation in _PLACES:
            others = (name for name in getattr(organ, relation) if name in measured)
            yield from ((organ.name, relation, name) for name in itertools.islice(others, 1))
    left, right = ([o.name for o in present if o.side == side] for side in ("left", "right"))
    yield from ((one, "left_of", other) for one in left for other in right)


def measure_prediction(
    volume: Volume, labels: LabelMap, names
) -> tuple[dict[str, OrganFigures], list[Finding]]:
    """Figures of the organs that were predicted, and findings about the scan and the organs.

    names: The organs that were to be predicted.
    """
    measured = figures.of_organs(volume, labels)
    findings = [*volume.findings, *grid_findings(volume.grid)]
    findings += image_findings(figures.of_image(volume.zyx))
    findings += organ_findings(measured, names, labels.organs)
    if not measured:  # organ_findings takes contours for absent altogether, and names no organ
        findings.append(Finding.of("organ_missing", f"no voxel of {', '.join(names)}"))
    return measured, findings


def box_findings(labels_outside: int, beyond_share: float) -> list[Finding]:
    """What the box leaves out, and how much of it the scan does not cover."""
    findings, add = _collector()
    if labels_outside:
        add("labels_outside_box", f"{labels_outside} labelled voxels lie outside the box")
    if beyond_share > _MOST_BEYOND:
        add("box_beyond_scan", f"{beyond_share:.0%} of the box lie outside the scan")
    return findings


def _collector():
    """A list, and a function that appends a finding to it."""
    findings = []
    return findings, lambda code, message: findings.append(Finding.of(code, message))


def _lengths_mm(grid: Grid) -> np.ndarray:
    """Distance between neighbouring voxels along each axis of the file."""
    return np.linalg.norm(grid.affine[:3, :3], axis=0)


def _by(numbers) -> str:
    return "x".join(f"{number:.4g}" for number in numbers)
