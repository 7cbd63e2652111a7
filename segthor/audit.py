"""What is wrong with a patient in memory: the checks, each of which gives findings.

The figures judged are those of `segthor.figures`.
"""

import itertools

import numpy as np

from segthor.figures import PADDING_HU, ImageFigures, OrganFigures
from segthor.findings import Finding
from segthor.organs import SEGTHOR, Organs

_MOST_ROUNDED = 1e-3  # what scaling and storing a whole number may add to it
_MISMATCH_MM = 0.1  # between corners of CT and contours; header fields are float32
_FORMS_MM = 1.0
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


def grid_findings(grid) -> list[Finding]:
    """What is wrong with where a CT's voxels lie (see `segthor.nifti.Grid`)."""
    found, add = _collector()
    header, axes = grid.header, grid.affine[:3, :3] / np.array(grid.spacing_mm)
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    if not sform and not qform:
        add("no_orientation", "neither sform nor qform is set")
    elif np.array_equal(grid.affine, np.eye(4)):
        add("affine_identity", "the affine is the identity; the scanner's was lost")
    if sform and qform:
        distance = _corner_distance(grid.shape, grid.sform, grid.qform)
        if not distance <= _FORMS_MM:
            apart = f"are up to {distance:.1f} mm apart" if distance < np.inf else "make no sense"
            add("forms_disagree", f"sform and qform {apart}")
    cosine = np.abs(axes.T @ axes - np.eye(3)).max()
    if cosine > _SHEAR_COSINE:
        degrees = np.degrees(np.arccos(min(cosine, 1)))
        add("grid_sheared", f"two voxel axes are at {degrees:.1f} degrees instead of 90")
    for code, (low, high) in (
        ("spacing_absurd", _SPACING_POSSIBLE_MM),
        ("spacing_unusual", _SPACING_USUAL_MM),
    ):
        if not all(low <= mm <= high for mm in grid.spacing_mm):
            message = f"voxels of {_by(grid.spacing_mm)} mm; expected {low:g} to {high:g} mm"
            if grid.unit in ("meter", "micron"):
                message += f"; the header's unit is {grid.unit}: are its numbers in mm?"
            add(code, message)
            break
    return found


def size_findings(num_slices: int, plane) -> list[Finding]:
    """Whether the scan is too small; plane: its in-plane pixels (rows, columns)."""
    found, add = _collector()
    if num_slices < _FEWEST_SLICES:
        add("few_slices", f"{num_slices} slices; expected at least {_FEWEST_SLICES}")
    if min(plane) < _FEWEST_PIXELS:
        add("few_pixels", f"slices of {_by(plane)} pixels; expected at least {_FEWEST_PIXELS}")
    return found


def pair_findings(ct_grid, labels_grid) -> list[Finding]:
    """Whether the contours lie on the CT's grid."""
    found, add = _collector()
    if ct_grid.shape != labels_grid.shape:
        add(
            "shape_mismatch",
            f"contours have {_by(labels_grid.shape)} voxels, the CT {_by(ct_grid.shape)}",
        )
        return found
    longest = max(
        abs(one - other) * (n - 1)
        for one, other, n in zip(
            ct_grid.spacing_mm, labels_grid.spacing_mm, ct_grid.shape, strict=True
        )
    )
    distance = _corner_distance(ct_grid.shape, ct_grid.affine, labels_grid.affine)
    if longest > _MISMATCH_MM:
        spacings = f"{_by(labels_grid.spacing_mm)} mm, the CT's {_by(ct_grid.spacing_mm)} mm"
        add("spacing_mismatch", f"the contours' voxels are {spacings}")
    elif distance > _MISMATCH_MM:
        add("affine_mismatch", f"contours lie up to {distance:.1f} mm off the CT's voxels")
    return found


def finite_findings(hu: np.ndarray) -> list[Finding]:
    """Whether every value of the CT is a number."""
    found, add = _collector()
    if hu.dtype.kind == "f":
        count = hu.size - int(np.count_nonzero(np.isfinite(hu)))
        if count:
            add("not_finite", f"{count} of the CT's voxels are not finite numbers")
    return found


def image_findings(image: ImageFigures) -> list[Finding]:
    """Whether the values are those of a chest CT in HU."""
    found, add = _collector()
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
    return found


def to_labels(
    stored: np.ndarray, label_values=(), organs: Organs = SEGTHOR
) -> tuple[np.ndarray | None, list[Finding]]:
    """The organs' labels as uint8, or None; and findings, the last of which says why None.

    stored: [X, Y, Z] numbers of any type; floats within 0.001 of whole numbers are rounded.
    label_values: (organ, value in `stored`), where they are not the table's; all other values
    are then background.
    """
    found, add = _collector()
    if stored.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # what is not finite has no whole number beside it
            whole = np.rint(stored)
            off = np.abs(stored - whole)
        largest = float(off.max())
        if not largest <= _MOST_ROUNDED:
            count = int(np.count_nonzero(~(off <= _MOST_ROUNDED)))
            add(
                "labels_not_integer",
                f"{count} voxels of the contours are not whole numbers: up to {largest:.4g} off, "
                f"expected at most {_MOST_ROUNDED:g}",
            )
            return None, found
        if largest:
            message = f"label values up to {largest:.2g} off whole numbers were rounded"
            add("labels_rounded", message)
        stored = whole
    if label_values:
        given, stored = stored, np.zeros_like(stored, np.uint8)
        for name, value in label_values:
            if name in organs:
                stored[given == value] = organs[name].label
    highest = stored.max()
    unknown, expected = _unknown(stored, highest, organs)
    if len(unknown):
        values = unknown[:5].tolist()
        add("labels_unknown", f"label values {values} stand for no organ; expected {expected}")
        return None, found
    if highest == 0:
        add("labels_empty", "no voxel is labelled")
    return stored.astype(np.uint8, copy=False), found


def _unknown(stored: np.ndarray, highest, organs: Organs) -> tuple[np.ndarray, str]:
    """The values that are no organ's, sorted, and in words those that may be there.

    highest: of `stored`.
    """
    labels, last = sorted(organs.labels(organs.names)), organs.highest_label
    if (stored.dtype.kind != "u" and stored.min() < 0) or highest > last:
        outside = stored[(stored < 0) | (stored > last)]
    elif len(labels) < last:  # the table leaves values out
        known = np.zeros(1 + last, bool)
        known[[0, *labels]] = True
        outside = stored[~known[stored.astype(np.uint8, copy=False)]]
    else:
        outside = stored[:0]
    gaps = len(labels) < last
    expected = ", ".join(map(str, [0, *labels])) if gaps else f"0 to {last}"
    return np.unique(outside), expected


def organ_findings(
    figures: dict[str, OrganFigures], contoured, organs: Organs = SEGTHOR
) -> list[Finding]:
    """Organs that are absent, or measure what no such organ does, as far as the table says."""
    found, add = _collector()
    for organ in organs:
        name, measured = organ.name, figures.get(organ.name)
        if measured is None and name in contoured and figures:
            add("organ_missing", f"no voxel of the {name}, which was to be contoured")
        elif measured and name not in contoured:
            add("organ_not_declared", f"{name}: has contours, but is not listed as contoured")
        elif measured:
            pieces = organ.max_components and (1, organ.max_components)
            for code, value, plausible, unit in (
                ("organ_volume", measured.volume_cm3, organ.volume_cm3, "cm3"),
                ("organ_hu", measured.mean_hu, organ.mean_hu, "HU on average"),
                ("organ_extent", measured.extent_z_mm, organ.extent_z_mm, "mm along the body"),
                ("organ_components", measured.components, pieces, "pieces"),
                ("organ_gap", measured.gaps, (0, 0), "slices without it between others"),
            ):
                if plausible and not plausible[0] <= value <= plausible[1]:
                    low, high = plausible
                    add(code, f"{name}: {value:g} {unit}; plausible are {low:g} to {high:g}")
            if _is_sparse(measured):
                slices = f"{measured.gaps} of its {measured.slices} slices"
                add("organ_sparse", f"{name}: not drawn on {slices}; they are no background")
    return found + _mirrored(figures, organs)


def _is_sparse(measured: OrganFigures) -> bool:
    """Whether an organ is drawn on some slices only, as on every second one."""
    share = measured.gaps / measured.slices if measured.slices else 0
    return measured.gap_runs >= _FEWEST_GAPS and share >= _SPARSE_SHARE


def _mirrored(figures: dict[str, OrganFigures], organs: Organs) -> list[Finding]:
    """Organs that do not lie beside one another as the table says."""
    found, add = _collector()
    for name, relation, other in _relations(figures, organs):
        axis, sign, wrong, right = _PLACES[relation]
        place, beside = figures[name].center_lps_mm, figures[other].center_lps_mm
        beyond_mm = -sign * (place[axis] - beside[axis])
        if beyond_mm > _MIRRORED_MM:
            how = f"the {name} lies {beyond_mm:.0f} mm {wrong} the {other}"
            add("anatomy_mirrored", f"{how}, expected {right} it: the affine may be flipped")
    return found


def _relations(figures: dict[str, OrganFigures], organs: Organs):
    """Yields (organ, relation, other organ) of organs that are there.

    Of an organ's several others, the first that is there; and every left organ is left of every
    right one.
    """
    present = [organ for organ in organs if organ.name in figures]
    for organ in present:
        for relation in _PLACES:
            others = (name for name in getattr(organ, relation) if name in figures)
            yield from ((organ.name, relation, name) for name in itertools.islice(others, 1))
    left, right = ([o.name for o in present if o.side == side] for side in ("left", "right"))
    yield from ((one, "left_of", other) for one in left for other in right)


def box_findings(labels_outside: int, beyond_share: float) -> list[Finding]:
    """What the box leaves out, and how much of it the scan does not cover."""
    found, add = _collector()
    if labels_outside:
        add("labels_outside_box", f"{labels_outside} labelled voxels lie outside the box")
    if beyond_share > _MOST_BEYOND:
        add("box_beyond_scan", f"{beyond_share:.0%} of the box lie outside the scan")
    return found


def _collector():
    """A list, and a function that appends a finding to it."""
    found = []
    return found, lambda code, message: found.append(Finding.of(code, message))


def _corner_distance(shape, one: np.ndarray, other: np.ndarray) -> float:
    """The largest distance in mm between the places that two affines give a corner voxel."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], [1])).reshape(4, -1)
    with np.errstate(all="ignore"):  # what makes no sense is infinitely or undefinedly far away
        return float(np.linalg.norm((one - other)[:3] @ corners, axis=0).max())


def _by(numbers) -> str:
    return "x".join(f"{number:.4g}" for number in numbers)
