"""What is wrong with a patient: findings with a code, and the figures behind them.

Each function looks at one patient in memory. Numpy and scipy only.
"""

from dataclasses import asdict, dataclass

import numpy as np
from scipy import ndimage

from segthor import organs
from segthor.resample import label_boxes

REJECT, WARN, IGNORE = "reject", "warn", "ignore"
AFFINE_TOLERANCE_MM = 0.1
SEVERITIES = {
    "unreadable": REJECT,
    "shape_mismatch": REJECT,
    "affine_mismatch": REJECT,
    "not_finite": REJECT,
    "labels_not_integer": REJECT,
    "labels_unknown": REJECT,
    "labels_outside_box": WARN,
    "organ_missing": REJECT,
    "organ_not_declared": WARN,
    "organ_volume": REJECT,
    "organ_hu": REJECT,
    "organ_extent": WARN,
    "organ_components": WARN,
    "cannot_prepare": REJECT,
    "same_scan": REJECT,
}


@dataclass(frozen=True)
class Finding:
    """code: stable, for machines. severity: 'reject' or 'warn'. message: for people, with units."""

    code: str
    severity: str
    message: str

    @classmethod
    def of(cls, code: str, message: str) -> "Finding":
        """With the code's usual severity."""
        return cls(code, SEVERITIES[code], message)

    def to_json(self) -> dict:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class OrganFigures:
    """What one contoured organ measures; extent_z_mm along the scan's slices."""

    volume_cm3: float
    extent_z_mm: float
    mean_hu: float
    components: int


def pair_findings(ct_grid, labels_grid) -> list[Finding]:
    """Whether the contours lie on the CT's grid (see `segthor.nifti.Grid`)."""
    if ct_grid.shape != labels_grid.shape:
        return [
            Finding.of(
                "shape_mismatch",
                f"contours have {_by(labels_grid.shape)} voxels, the CT {_by(ct_grid.shape)}",
            )
        ]
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in ct_grid.shape], [1])).reshape(4, -1)
    distance = np.linalg.norm((ct_grid.affine - labels_grid.affine)[:3] @ corners, axis=0).max()
    if distance > AFFINE_TOLERANCE_MM:
        return [
            Finding.of(
                "affine_mismatch", f"contours lie up to {distance:.1f} mm off the CT's voxels"
            )
        ]
    return []


def image_findings(hu: np.ndarray) -> list[Finding]:
    """What is wrong with the CT's values [X, Y, Z]."""
    if hu.dtype.kind == "f" and not np.isfinite(hu).all():
        count = int(np.count_nonzero(~np.isfinite(hu)))
        return [Finding.of("not_finite", f"{count} voxels of the CT are not finite numbers")]
    return []


def to_labels(stored: np.ndarray) -> tuple[np.ndarray | None, list[Finding]]:
    """Label values as uint8, or None and what is wrong with them."""
    if stored.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            whole = stored == np.rint(stored)
        if not whole.all():
            message = f"{int((~whole).sum())} voxels of the contours are not whole numbers"
            return None, [Finding.of("labels_not_integer", message)]
    if stored.min() < 0 or stored.max() >= organs.NUM_CLASSES:
        values = np.unique(stored)
        unknown = values[(values < 0) | (values >= organs.NUM_CLASSES)][:5].tolist()
        message = f"label values {unknown} stand for no organ (0 to {organs.NUM_CLASSES - 1} do)"
        return None, [Finding.of("labels_unknown", message)]
    return stored.astype(np.uint8, copy=False), []


def organ_figures(hu: np.ndarray, labels: np.ndarray, spacing_mm, z_axis: int) -> dict:
    """Organ name to `OrganFigures` for every organ that has a voxel in `labels` [X, Y, Z]."""
    figures = {}
    boxes = label_boxes(labels)
    for organ in organs.ORGANS:
        box = boxes.get(organ.label)
        if box is None:
            continue
        mask = labels[box] == organ.label
        count = int(np.count_nonzero(mask))
        extent = (box[z_axis].stop - box[z_axis].start) * spacing_mm[z_axis]
        figures[organ.name] = OrganFigures(
            volume_cm3=round(count * float(np.prod(spacing_mm)) / 1000, 2),
            extent_z_mm=round(float(extent), 1),
            mean_hu=round(float(np.mean(hu[box], where=mask, dtype=np.float64)), 1),
            components=int(ndimage.label(mask, np.ones((3, 3, 3)))[1]),
        )
    return figures


def organ_findings(figures: dict, contoured) -> list[Finding]:
    """Organs that are absent, or measure what no such organ does."""
    found = []
    for organ in organs.ORGANS:
        measured = figures.get(organ.name)
        if measured is None:
            if organ.name in contoured:
                message = f"no voxel of the {organ.name}, which was to be contoured"
                found.append(Finding.of("organ_missing", message))
            continue
        if organ.name not in contoured:
            message = f"the {organ.name} has contours, but is not listed among those contoured"
            found.append(Finding.of("organ_not_declared", message))
            continue
        for code, value, (low, high), unit in (
            ("organ_volume", measured.volume_cm3, organ.volume_cm3, "cm3"),
            ("organ_hu", measured.mean_hu, organ.mean_hu, "HU on average"),
            ("organ_extent", measured.extent_z_mm, organ.extent_z_mm, "mm along the body"),
            ("organ_components", measured.components, (1, organ.max_components), "pieces"),
        ):
            if not low <= value <= high:
                message = f"{organ.name}: {value:g} {unit}, plausible are {low:g} to {high:g}"
                found.append(Finding.of(code, message))
    return found


def is_rejected(findings) -> bool:
    """Whether one of the findings keeps the patient out."""
    return any(finding.severity == REJECT for finding in findings)


def _by(shape) -> str:
    return "x".join(str(n) for n in shape)
