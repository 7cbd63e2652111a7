"""The entry of one patient on the page of a report: small pictures, label maps, numbers.

Grey levels are not linear in HU (`LEVELS`), so that eight bits suffice for every window: a level is
3 HU in soft tissue, 16 in lung, 42 in bone.
"""

import base64
import io
import re
from collections.abc import Iterable
from dataclasses import asdict

import numpy as np
from PIL import Image

from segthor import audit, files
from segthor.boxes import Box, nonzero_box, with_margin
from segthor.findings import REJECT, Finding
from segthor.metrics import without
from segthor.organs import Organ
from segthor.planes import Planes
from segthor.volume import LabelMap, Volume
from serving.prediction.facts import Facts, Judgement
from serving.review import overview
from serving.scoring.evaluation import Scores
from serving.scoring.picture import slice_dice

# Pairs of HU and grey level; between them the scale is linear.
LEVELS = ((-1024, 0), (-200, 52), (300, 215), (2000, 255))
MARGIN_MM = 35.0  # margin about the organs in plane
MARGIN_SLICES_MM = 10.0  # margin about the organs along z
LARGEST_PX = 384  # of a larger picture every nth pixel is kept
_JPEG_QUALITY = 80
# The folders of an absolute path or a URL within a text.
_FOLDERS = re.compile(r"""(?:(?<=^)|(?<=[\s'"(=]))(?:\w+:/)?/(?:[^\s/:;,'"]+/)+""")


def patient(
    name: str,
    scan: Volume,
    predicted: LabelMap,
    truth: LabelMap | None,
    scores: dict[str, Scores],
    facts: Facts,
    box: Box | None = None,
) -> dict:
    """Makes the entry of a patient, plain JSON values.

    predicted, truth: Label maps on the scan's grid; truth may be None.
    scores: Contoured organ to its scores.
    facts: Facts of the case.
    box: Box to show; None: `box_about` the organs.
    """
    measured, findings = audit.measure_prediction(scan, predicted, facts.organs)
    volumes_cm3 = {name: one.volume_cm3 for name, one in measured.items()}
    return entry(name, scan, predicted, truth, scores, facts, volumes_cm3, findings, box)


def entry(
    name: str,
    scan: Volume,
    predicted: LabelMap,
    truth: LabelMap | None,
    scores: dict[str, Scores],
    facts: Facts,
    volumes_cm3: dict[str, float],
    findings: Iterable[Finding] = (),
    box: Box | None = None,
) -> dict:
    """Makes an entry as `patient` does, of figures that are measured already.

    volumes_cm3: Organ to its predicted volume.
    findings: Findings of the audit.
    """
    organs = predicted.organs
    return {
        "name": name,
        **_pictures(scan, predicted.zyx, truth, organs.labels(scores), box),
        "organs": {
            name: _organ(organs[name], volumes_cm3.get(name, 0.0), scores.get(name))
            for name in facts.organs
        },
        "findings": [{"severity": one.severity, "message": one.message} for one in findings],
        "postprocess": {name: vars(one) for name, one in (facts.postprocess or {}).items()},
        "review": facts.review and asdict(facts.review),
        "levelHu": facts.level_hu,
        "widthHu": facts.width_hu,
    }


def _pictures(scan: Volume, predicted, contours: LabelMap | None, scored_labels, box) -> dict:
    """The part of an entry with pictures and label maps of the slices of a box."""
    truth = contours and without(contours.left_out, contours.zyx)
    slices, *plane = box or box_about(predicted, truth, scan.spacing_mm)
    z_mm, y_mm, x_mm = scan.spacing_mm
    step = -(-max(part.stop - part.start for part in plane) // LARGEST_PX)
    view = (slices, *(slice(part.start, part.stop, step) for part in plane))
    dice = None
    if scored_labels:
        annotated = without(contours.left_out, predicted)
        dice = slice_dice(truth, annotated, scored_labels)[slices]
    _, height, width = scan.zyx[view].shape
    return {
        "first": slices.start,
        "depth": len(scan.zyx),
        "sliceMm": z_mm,
        "width": width,
        "height": height,
        "pixelMm": [x_mm * step, y_mm * step],
        "slices": [_jpeg(one) for one in scan.zyx[view]],
        "predicted": [_runs(one) for one in predicted[view]],
        "truth": truth if truth is None else [_runs(one) for one in truth[view]],
        "sliceDice": dice if dice is None else [_rounded(value) for value in dice],
        **_thickness(scan.grid.planes, slices),
    }


def _thickness(planes: Planes | None, slices: slice) -> dict:
    """The part of an entry about uneven planes; {} for even ones."""
    if planes is None:
        return {}
    thickness = planes.thickness_mm[slices]
    return {"thicknessMm": thickness.tolist(), "sliceMm": float(thickness.mean())}


def phases(name: str, entries: list[dict], words) -> dict:
    """Merges the entries of the phases of a 4D CT into one entry.

    name: Name of the patient.
    entries: Entries of the phases, in their order.
    words: Names of the phases.
    """
    worst = min(range(len(entries)), key=lambda k: rank(entries[k]))
    named = [entry | {"phase": text} for entry, text in zip(entries, words, strict=True)]
    return {"name": name, "phases": named, "worst": worst}


def failed(name: str, reason: str, paths=()) -> dict:
    """Makes the entry of a patient that cannot be shown.

    The page may be sent to others, so the folders of all paths are removed from the reason.

    paths: Paths that the reason may contain; others are recognised if they are absolute and have
      no blanks.
    """
    for path in sorted(filter(None, paths), key=len, reverse=True):
        reason = reason.replace(path, files.name(path))
    return {"name": name, "failed": _FOLDERS.sub("", reason)}


def rank(entry: dict) -> tuple:
    """Sort key of an entry, worst first.

    Failed patients come first, then the lowest Dice of an organ decides, then implausible organs;
    without contours the order is that of `overview.rank`.
    """
    if "phases" in entry:
        return rank(entry["phases"][entry["worst"]])
    if "failed" in entry:
        return (0, 0.0, 0, entry["name"])
    dice = [o["dice"] for o in entry["organs"].values() if o.get("dice") is not None]
    if not dice and entry.get("review"):
        group, expected, name = overview.rank(
            Facts(review=Judgement(**entry["review"])), entry["name"]
        )
        return (group, expected, 0, name)
    flags = sum(finding["severity"] == REJECT for finding in entry["findings"])
    return (1, min(dice, default=1.0), -flags, entry["name"])


def _organ(organ: Organ, volume: float, score: Scores | None) -> dict:
    """The part of an entry about one organ."""
    # Without a range in the table every volume is plausible.
    low, high = organ.volume_cm3 or (volume, volume)
    known = organ.volume_cm3 and [low, high]
    row = {"volumeCm3": volume, "plausibleCm3": known, "plausible": low <= volume <= high}
    if score:
        row |= {
            "dice": _rounded(score.dice),
            "hd95Mm": _rounded(score.hausdorff95_mm),
            "hausdorffMm": _rounded(score.hausdorff_mm),
            "averageHdMm": _rounded(score.average_hausdorff_mm),
            "surfaceDice2": _rounded(score.surface_dice_2mm),
            "truthCm3": _rounded(score.truth_cm3),
            "toleranceMm": organ.tolerance_mm,
            "addedPathMm": _rounded(score.added_path_mm),
            "slicesToTouch": score.slices_to_touch,
        }
    return row


def box_about(predicted: np.ndarray, truth: np.ndarray | None, spacing_mm) -> Box:
    """Box about all labelled voxels with a margin; the whole scan if there are none.

    predicted, truth: [Z, Y, X]; truth may be None.
    spacing_mm: Spacing of z, y, x.
    """
    shown = predicted if truth is None else predicted | truth
    if not shown.any():
        return tuple(slice(0, length) for length in shown.shape)
    margins_px = np.rint(np.divide((MARGIN_SLICES_MM, MARGIN_MM, MARGIN_MM), spacing_mm))
    return with_margin(nonzero_box(shown), margins_px, shown.shape)


def _jpeg(plane: np.ndarray) -> str:
    known_hu, levels = zip(*LEVELS, strict=True)
    grey = np.interp(plane, known_hu, levels)
    stream = io.BytesIO()
    image = Image.fromarray(np.rint(grey).astype(np.uint8))
    image.save(stream, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def _runs(plane: np.ndarray) -> str:
    """Run-length encodes a label map: base64 of pairs of label and length (1 to 3 bytes)."""
    flat = plane.ravel()
    starts = np.flatnonzero(np.r_[True, flat[1:] != flat[:-1]])
    content = bytearray()
    for label, length in zip(flat[starts], np.diff(np.r_[starts, flat.size]), strict=True):
        content.append(int(label))
        while length > 127:
            content.append(int(length) & 127 | 128)
            length >>= 7
        content.append(int(length))
    return base64.b64encode(bytes(content)).decode()


def _rounded(value) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
