"""Differences between approved sets and drafts, by organ and month.

An organ counts as changed if its approved contour differs from the draft: by any voxel in a label
map; by more than a pixel in a structure set, since planning systems round imported contours.
Unchanged organs are counted separately: they may be right, or may not have been checked.
"""

from dataclasses import dataclass

import numpy as np

from segthor import effort, nifti
from segthor.organs import Organs
from segthor.volume import LabelMap
from serving.prediction.facts import Facts, OrganJudgement
from serving.scoring import evaluation
from serving.scoring.evaluation import Scores

FEWEST = 5  # changed organs of a month; the median of fewer is not meaningful


@dataclass(frozen=True)
class Row:
    """One organ of one approved set.

    patient: Name of the patient.
    organ: Name of the organ.
    month: YYYY-MM of the approved set; '' if not known.
    changed: Whether the approved contour differs from the draft.
    slices_changed: Number of slices in which it differs.
    dice, surface_dice_3mm, added_path_mm, slices_to_touch: Scores of the draft against the approved
      set, as in `evaluation.Scores`.
    draft_cm3, approved_cm3: Volumes.
    difference_cm3: Volume of the draft minus that of the approved set.
    expected_dice, lower_dice: Expected Dice of the review and its lower bound; None: the model was
      not calibrated.
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
    """The approved contours of one organ in one month; medians are over the changed ones.

    organ: Name of the organ.
    month: YYYY-MM; '' if not known.
    approved: Number of approved contours.
    changed: Number of changed ones.
    slices_changed, added_path_mm, surface_dice_3mm, difference_cm3, dice, expected_dice: Medians of
      the fields of `Row`; None: not known.
    bound: Median of the lower bounds of the Dice; None: not known.
    marked: Number of changed contours that the review had marked.
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
    """Compares an approved set with its draft; returns a row per organ that both contain.

    file: Path of the approved set, a label map or a structure set.
    """
    organs, spacing_mm = draft.organs, draft.grid.spacing_mm
    names = [name for name in facts.organs if name in approved.contoured]
    scores = evaluation.score(draft, approved, names)
    maps = draft.zyx, approved.zyx, spacing_mm
    within_mm = 0.0 if nifti.is_nifti(file) else max(spacing_mm[1:])
    moved = effort.measure(*maps, dict.fromkeys(organs.labels(names), within_mm), approved.left_out)
    judged = facts.review.organs if facts.review else {}
    slices = {name: moved[organs[name].label].slices_to_touch for name in names}
    return [
        _make_row(patient, name, month, scores[name], slices[name], judged.get(name))
        for name in names
    ]


def _make_row(
    patient: str, organ: str, month: str, score: Scores, slices: int, review: OrganJudgement | None
) -> Row:
    return Row(
        patient=patient,
        organ=organ,
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


def summarise(rows: list[Row], organs: Organs) -> list[Group]:
    """Groups the rows by organ, in the order of the table, and month."""
    groups = []
    for name in organs.names:
        own = [row for row in rows if row.organ == name]
        for month in sorted({row.month for row in own}):
            groups.append(_group(name, month, [row for row in own if row.month == month]))
    return groups


def overall(rows: list[Row], organs: Organs) -> list[Group]:
    """Groups the rows by organ, over all months."""
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
    """Median of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
