"""What is wrong with a patient: findings, each with a code, a severity and words for people.

Every function looks at one patient in memory; the figures judged are those of `segthor.figures`.
"""

from dataclasses import asdict, dataclass

import numpy as np

from segthor import organs
from segthor.errors import InputError
from segthor.figures import PADDING_HU, ImageFigures, OrganFigures

REJECT, WARN, IGNORE = "reject", "warn", "ignore"

# Code: (severity unless told otherwise, what it means). Those in FATAL leave nothing to build from.
CODES = {
    "bad_name": (REJECT, "no file can be named after the patient on every disk"),
    "file_missing": (REJECT, "the file is not there or cannot be opened"),
    "file_not_nifti": (REJECT, "the file is not a single-file NIfTI"),
    "file_header": (REJECT, "the NIfTI header makes no sense"),
    "file_not_3d": (REJECT, "the file holds another number of axes than three"),
    "file_type": (REJECT, "the voxels are colours or complex numbers"),
    "file_affine": (REJECT, "the affine is not invertible or not finite"),
    "file_too_large": (REJECT, "the header promises more voxels than any CT has"),
    "file_truncated": (REJECT, "the file ends before its last voxel"),
    "file_surplus": (REJECT, "the file holds more slices than its header says"),
    "file_damaged": (REJECT, "the compressed data or their checksum are wrong"),
    "file_changed": (REJECT, "the file changed while it was read"),
    "no_orientation": (REJECT, "the header does not say where the patient's left is"),
    "affine_identity": (REJECT, "the affine was reset: 1 mm voxels from the origin"),
    "forms_disagree": (WARN, "sform and qform place the voxels differently"),
    "grid_sheared": (WARN, "the voxel axes are not at right angles"),
    "spacing_absurd": (REJECT, "no scanner has such a voxel size"),
    "spacing_unusual": (WARN, "voxels far coarser or finer than in radiotherapy planning"),
    "few_slices": (REJECT, "too few slices to hold a chest"),
    "few_pixels": (REJECT, "too small a matrix to hold a chest"),
    "shape_mismatch": (REJECT, "contours and CT have other numbers of voxels"),
    "spacing_mismatch": (REJECT, "contours and CT have other voxel sizes"),
    "affine_mismatch": (REJECT, "contours and CT lie at other places or turned"),
    "not_finite": (REJECT, "the CT holds infinite or undefined values"),
    "hu_constant": (REJECT, "all voxels of the CT have one value"),
    "hu_no_air": (REJECT, "nothing as light as air: an offset was lost, or it is no CT"),
    "hu_scale": (REJECT, "no lung or no soft tissue at its HU: wrong slope or offset"),
    "hu_clipped": (WARN, "nothing as dense as bone: values were clipped"),
    "metal": (WARN, "values above the usual 12 bits: metal"),
    "padding": (WARN, "much of the scan is padding"),
    "labels_not_integer": (REJECT, "label values that are not whole numbers"),
    "labels_unknown": (REJECT, "label values that stand for no organ"),
    "labels_empty": (REJECT, "not one labelled voxel"),
    "organ_missing": (REJECT, "an organ that was to be contoured is not"),
    "organ_not_declared": (WARN, "an organ has contours but is not listed as contoured"),
    "organ_volume": (REJECT, "an organ's volume is implausible"),
    "organ_hu": (REJECT, "an organ's mean HU is implausible"),
    "organ_extent": (WARN, "an organ's length along the body is implausible"),
    "organ_components": (WARN, "an organ lies in too many pieces"),
    "organ_gap": (WARN, "an organ is missing in slices between others that have it"),
    "anatomy_mirrored": (REJECT, "heart and trachea or esophagus lie the wrong way round"),
    "same_scan": (REJECT, "the scan of another patient under a second name"),
    "cannot_prepare": (REJECT, "no body, or no organ to take level or centre from"),
    "labels_outside_box": (WARN, "contours outside the box that is cut out"),
    "box_beyond_scan": (WARN, "much of the box lies outside the scan and is filled with air"),
}
FATAL = frozenset(
    [code for code in CODES if code.startswith("file_")]
    + ["bad_name", "shape_mismatch", "not_finite", "labels_not_integer", "labels_unknown"]
    + ["cannot_prepare"]
)

_MISMATCH_MM = 0.1  # between corners of CT and contours; header fields are float32
_FORMS_MM = 1.0
_SHEAR_COSINE = 0.01
_SPACING_USUAL_MM, _SPACING_POSSIBLE_MM = (0.3, 10.0), (0.05, 30.0)
_FEWEST_SLICES, _FEWEST_PIXELS = 8, 32
_AIR_HU, _BONE_HU, _METAL_HU = -500, 300, 3071
_LEAST_SHARE, _MOST_PADDING, _MOST_BEYOND = 0.01, 0.35, 0.25
_MIRRORED_MM = 5.0


@dataclass(frozen=True)
class Finding:
    """code: stable, for machines. severity: 'reject' or 'warn'. message: for people, with units."""

    code: str
    severity: str
    message: str

    @classmethod
    def of(cls, code: str, message: str) -> "Finding":
        """With the code's usual severity."""
        return cls(code, CODES[code][0], message)

    def to_json(self) -> dict:
        """Plain values."""
        return asdict(self)


def check_severities(severities: dict[str, str]) -> None:
    """Raises InputError for a code or severity that there is not, or that cannot be changed."""
    for code, severity in severities.items():
        if code not in CODES:
            raise InputError(f"severity: expected one of {', '.join(CODES)}; found {code!r}")
        if severity not in (REJECT, WARN, IGNORE):
            raise InputError(f"severity of {code}: expected reject, warn or ignore; {severity!r}")
        if code in FATAL and severity != REJECT:
            raise InputError(f"severity of {code}: always reject, there is nothing to build from")


def judge(findings, severities: dict[str, str]) -> tuple[Finding, ...]:
    """The findings under other severities, rejects first; those to be ignored are left out."""
    judged = [Finding(f.code, severities.get(f.code, f.severity), f.message) for f in findings]
    return tuple(f for severity in (REJECT, WARN) for f in judged if f.severity == severity)


def is_rejected(findings) -> bool:
    """Whether one of the findings keeps the patient out."""
    return any(finding.severity == REJECT for finding in findings)


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
            add(code, f"voxels of {_by(grid.spacing_mm)} mm; expected {low:g} to {high:g} mm")
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


def to_labels(stored: np.ndarray, label_values=()) -> tuple[np.ndarray | None, list[Finding]]:
    """The organs' labels as uint8, or None and what is wrong with them.

    label_values: (organ, value in `stored`), where they are not this project's; all other values
    are then background.
    """
    found, add = _collector()
    if stored.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            fractions = int(np.count_nonzero(stored != np.rint(stored)))  # NaN is unequal to itself
        if fractions:
            add("labels_not_integer", f"{fractions} voxels of the contours are not whole numbers")
            return None, found
    if label_values:
        given, stored = stored, np.zeros_like(stored, np.uint8)
        for name, value in label_values:
            stored[given == value] = organs.BY_NAME[name].label
    lowest = 0 if stored.dtype.kind == "u" else stored.min()
    highest = stored.max()
    if lowest < 0 or highest >= organs.NUM_CLASSES:
        values = np.unique(stored[(stored < 0) | (stored >= organs.NUM_CLASSES)])[:5].tolist()
        known = f"0 to {organs.NUM_CLASSES - 1}"
        add("labels_unknown", f"label values {values} stand for no organ; expected {known}")
        return None, found
    if highest == 0:
        add("labels_empty", "no voxel of the contours is labelled")
    return stored.astype(np.uint8, copy=False), found


def organ_findings(figures: dict[str, OrganFigures], contoured) -> list[Finding]:
    """Organs that are absent, or measure what no such organ does."""
    found, add = _collector()
    for organ in organs.ORGANS:
        name, measured = organ.name, figures.get(organ.name)
        if measured is None and name in contoured and figures:
            add("organ_missing", f"no voxel of the {name}, which was to be contoured")
        elif measured and name not in contoured:
            add("organ_not_declared", f"{name}: has contours, but is not listed as contoured")
        elif measured:
            for code, value, (low, high), unit in (
                ("organ_volume", measured.volume_cm3, organ.volume_cm3, "cm3"),
                ("organ_hu", measured.mean_hu, organ.mean_hu, "HU on average"),
                ("organ_extent", measured.extent_z_mm, organ.extent_z_mm, "mm along the body"),
                ("organ_components", measured.components, (1, organ.max_components), "pieces"),
                ("organ_gap", measured.gaps, (0, 0), "slices without it between others"),
            ):
                if not low <= value <= high:
                    add(code, f"{name}: {value:g} {unit}; plausible are {low:g} to {high:g}")
    return found + _mirrored(figures)


def _mirrored(figures: dict[str, OrganFigures]) -> list[Finding]:
    """The heart lies left of the midline, in front of the esophagus and below the trachea."""
    found, add = _collector()
    midline = "trachea" if "trachea" in figures else "esophagus"  # which bends left further down
    expected = (
        (midline, 0, 1, "right of", "left of"),
        ("esophagus", 1, -1, "behind", "in front of"),
        ("trachea", 2, -1, "above", "below"),
    )
    for other, axis, sign, wrong, right in expected:
        if "heart" in figures and other in figures:
            heart, place = figures["heart"].center_lps_mm, figures[other].center_lps_mm
            beyond_mm = -sign * (heart[axis] - place[axis])
            if beyond_mm > _MIRRORED_MM:
                how = f"the heart lies {beyond_mm:.0f} mm {wrong} the {other}"
                add("anatomy_mirrored", f"{how}, expected {right} it: the affine may be flipped")
    return found


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
