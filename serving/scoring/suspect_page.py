"""One patient of a dataset as the page shows it: contours, what a network says, what is asked."""

import numpy as np

from segthor.organs import Organs
from serving.prediction.facts import Facts
from serving.scoring import evaluation, suspicion, viewer


def entry(
    name: str,
    hu: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    spacing_mm: tuple[float, float, float],
    window_hu: tuple[float, float],
    contoured,
    suspects: list[suspicion.Suspect],
    organs: Organs,
    left_out: np.ndarray | None = None,
) -> dict:
    """Plain JSON values for the page; see `viewer.patient`.

    hu: int16 [Z, Y, X], cut off at the window's ends. truth, predicted: uint8 [Z, Y, X].
    spacing_mm: of z, y, x. window_hu: level and width. contoured: names of the organs that were.
    suspects: this patient's, the most suspicious first. organs: those that the network knows.
    left_out: as in `metrics.score`.
    """
    names = [name for name in organs.names if name in contoured]
    truth = np.where(np.isin(truth, organs.labels(names)), truth, 0).astype(np.uint8)
    scores = evaluation.score(predicted, truth, spacing_mm, names, organs, left_out)
    voxel_cm3 = float(np.prod(spacing_mm)) / 1000
    counts = {one.name: np.count_nonzero(predicted == one.label) for one in organs}
    volumes = {name: round(float(count * voxel_cm3), 2) for name, count in counts.items()}
    level_hu, width_hu = window_hu
    facts = Facts(organs=organs.names, level_hu=level_hu, width_hu=width_hu)
    maps = predicted, truth
    shown = viewer.entry(name, hu, *maps, spacing_mm, scores, facts, volumes, organs, left_out)
    asked = []
    for one in suspects:
        runs = suspicion.runs_of(one.dispute.slices)
        if runs:
            short = f"{one.dispute.share:.0%} in dispute"
            asked.append((one.dispute.organ, short, one.reason, runs))
    return shown | {"questions": viewer.questions(shown, asked)}
