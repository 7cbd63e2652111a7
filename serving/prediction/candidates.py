"""Chooses the post-processing of each organ on patients that were not trained on."""

import math

import numpy as np

from segthor import metrics, statistics
from segthor.boxes import around, with_margin
from segthor.metrics import OrganScore
from segthor.organs import BACKGROUND, Organs
from segthor.planes import voxel_cm3
from segthor.volume import LabelMap
from serving.prediction.postprocess import Rule, clean

# The simplest first: among rules with equal scores, the first is chosen.
CANDIDATES = tuple(
    Rule(largest, min_cm3, fill_holes)
    for fill_holes in (False, True)
    for largest, min_cm3 in ((False, 0.0), (False, 0.1), (False, 0.5), (False, 2.0), (True, 0.0))
)
# Small pieces hardly change Dice but ruin distances, so within this Dice the distance decides.
DICE_ALIKE = 0.001


def score_candidates(predicted: LabelMap, truth: LabelMap, names) -> dict:
    """Scores all candidates on one patient; returns organ to a list of scores."""
    spacing_mm = truth.grid.spacing_mm
    planes = truth.grid.planes
    scan_cm3 = voxel_cm3(spacing_mm, planes)
    scored = {}
    for name in names:
        value = truth.organs[name].label
        box = around(one.boxes[value] for one in (predicted, truth) if value in one.boxes)
        if planes:  # all of them, whose thickness is known
            box = (slice(0, len(truth.zyx)), *box[1:])
        left_out = None
        if truth.has_ignored:
            box = with_margin(box, (1, 1, 1), truth.zyx.shape)  # surfaces depend on neighbours
            left_out = truth.left_out[box]
        part, true = predicted.zyx[box], truth.zyx[box] == value
        mask, free = part == value, part == BACKGROUND
        known: dict[bytes, OrganScore] = {}
        scores = []
        for rule in CANDIDATES:
            after = clean(mask, rule, scan_cm3) & (mask | free)
            key = np.packbits(after).tobytes()
            if key not in known:
                given = after, true, spacing_mm, [1], left_out, planes
                (known[key],) = metrics.score(*given).values()
            scores.append(known[key])
        scored[name] = scores
    return scored


def choose(patients: list[dict], organs: Organs) -> tuple[dict[str, Rule], list[dict]]:
    """Chooses the best rule of each organ; returns the rules and a table of all candidates.

    The best has the highest mean Dice; among those within `DICE_ALIKE` of it, the smallest mean
    average Hausdorff distance; among equal ones, it is the simplest.

    patients: As returned by `score_candidates`.
    """
    rules, table = {}, []
    for name in organs.names:
        scored = [patient[name] for patient in patients if name in patient]
        if not scored:
            continue
        columns = zip(*scored, strict=True)
        rows = [_row(name, *pair) for pair in zip(CANDIDATES, columns, strict=True)]
        best_dice = max(row["dice"] for row in rows)
        alike = [row for row in rows if row["dice"] >= best_dice - DICE_ALIKE]
        best = min(alike, key=lambda row: round(row["average_hausdorff_mm"], 3))
        best["chosen"] = True
        rules[name] = CANDIDATES[rows.index(best)]
        table += rows
    return rules, table


def _row(name: str, rule: Rule, scores) -> dict:
    def mean(values) -> float:
        return statistics.summarise(values).mean

    distance = mean([score.average_hausdorff_mm for score in scores])
    return {
        "organ": name,
        **rule.to_json(),
        "dice": mean([score.dice for score in scores]),
        "average_hausdorff_mm": math.inf if distance is None else distance,
        "patients": len(scores),
        "chosen": False,
    }
