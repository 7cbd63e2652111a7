"""What became of drafts: how an approved set differs from the draft, by organ and month.

An organ was changed where its approved contour lies elsewhere than the draft's: by any voxel in a
label map; by more than a pixel in a structure set, since planning systems round what they import.
Organs that were not changed are counted apart: they may be right, or nobody looked.
"""

from dataclasses import dataclass

import numpy as np

from segthor import effort, nifti
from segthor.organs import Organs
from segthor.volume import LabelMap
from serving.prediction.facts import Facts
from serving.scoring import evaluation

FEWEST = 5  # changed organs of a month, below which their median means nothing


@dataclass(frozen=True)
class Row:
    """One organ of one approved set.

    month: YYYY-MM in which the set was made; '' where nothing says so.
    changed: Whether the approved contour differs from the draft's.
    slices_changed: Slices in which it differs.
    dice, surface_dice_3mm, added_path_mm, slices_to_touch, difference_cm3: Of the draft against the
      approved set, as in `evaluation.Scores`; difference: draft minus approved.
    draft_cm3, approved_cm3: Volumes.
    expected_dice, lower_dice: What the review expected, and what it expected at least; None: the
      model was not calibrated.
    review: Whether the review marked the organ.
    """

    patient: str
    organ: str
    month: str
    changed: bool
    slices_changed: int
    dice: float
    surface_dice_3mm: float
    added_path_mm: float
    slices_to_touch: int
    draft_cm3: float
    approved_cm3: float
    difference_cm3: float
    expected_dice: float | None
    lower_dice: float | None
    review: bool


@dataclass(frozen=True)
class Group:
    """The approved contours of one organ in one month. Medians are of the changed ones.

    bound: Median of the lowest expected Dice of the changed ones; None: not known.
    marked: How many of the changed ones the review had marked.
    alarm: Whether the median Dice is below the bound.
    """

    organ: str
    month: str
    approved: int
    changed: int
    slices_changed: float | None
    added_path_mm: float | None
    surface_dice_3mm: float | None
    difference_cm3: float | None
    dice: float | None
    expected_dice: float | None
    bound: float | None
    marked: int
    alarm: bool


def compare(
    patient: str, month: str, draft: LabelMap, approved: LabelMap, file: str, facts: Facts
) -> list[Row]:
    """One row for each organ that was drafted and approved.

    file: The approved set, which is a label map or a structure set.
    """
    organs, spacing_mm = draft.organs, draft.grid.spacing_mm
    names = [name for name in facts.organs if name in approved.contoured]
    maps = draft.zyx, approved.zyx, spacing_mm
    scores = evaluation.score(*maps, names, organs, approved.left_out)
    within_mm = 0.0 if nifti.is_nifti(file) else max(spacing_mm[1:])
    moved = effort.measure(*maps, dict.fromkeys(organs.labels(names), within_mm), approved.left_out)
    judged = facts.review.organs if facts.review else {}
    rows = []
    for name in names:
        score, slices = scores[name], moved[organs[name].label].slices_to_touch
        review = judged.get(name)
        rows.append(
            Row(
                patient=patient,
                organ=name,
                month=month,
                changed=slices > 0,
                slices_changed=slices,
                dice=score.dice,
                surface_dice_3mm=score.surface_dice_3mm,
                added_path_mm=score.added_path_mm,
                slices_to_touch=score.slices_to_touch,
                draft_cm3=score.predicted_cm3,
                approved_cm3=score.truth_cm3,
                difference_cm3=score.difference_cm3,
                expected_dice=review and review.expected_dice,
                lower_dice=review and review.lower_dice,
                review=bool(review and review.review),
            )
        )
    return rows


def summarise(rows: list[Row], organs: Organs) -> list[Group]:
    """Each organ by month, organs in the table's order."""
    groups = []
    for name in organs.names:
        own = [row for row in rows if row.organ == name]
        for month in sorted({row.month for row in own}):
            groups.append(_group(name, month, [row for row in own if row.month == month]))
    return groups


def overall(rows: list[Row], organs: Organs) -> list[Group]:
    """Each organ over all months."""
    named = [(name, [row for row in rows if row.organ == name]) for name in organs.names]
    return [_group(name, "all", own) for name, own in named if own]


def _group(organ: str, month: str, rows: list[Row]) -> Group:
    changed = [row for row in rows if row.changed]
    medians = {
        name: _median(getattr(row, name) for row in changed)
        for name in (
            *("slices_changed", "added_path_mm", "surface_dice_3mm", "difference_cm3"),
            *("dice", "expected_dice"),
        )
    }
    bound = _median(row.lower_dice for row in changed)
    enough = len(changed) >= FEWEST and bound is not None
    return Group(
        organ=organ,
        month=month,
        approved=len(rows),
        changed=len(changed),
        **medians,
        bound=bound,
        marked=sum(row.review for row in changed),
        alarm=bool(enough and medians["dice"] < bound),
    )


def _median(values) -> float | None:
    """Of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
