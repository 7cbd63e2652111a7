"""The entry of one patient on the page of suspects: contours, prediction, disputes."""

from dataclasses import replace

import numpy as np

from segthor import ignored
from segthor.manifest import Built
from segthor.organs import Organs
from segthor.planes import volume_cm3, voxel_cm3
from segthor.volume import LabelMap
from serving.prediction.facts import Facts
from serving.scoring import evaluation, suspicion, viewer


def entry(
    row: Built,
    stored,
    predicted: np.ndarray,
    suspects: list[suspicion.Suspect],
    organs: Organs,
) -> dict:
    """Makes the entry of a patient, plain JSON values; see `viewer.patient`.

    row: The patient in the manifest.
    stored: The patient's slices, a `serving.prediction.out_of_fold.StoredPatient`.
    predicted: uint8 [Z, Y, X], label values.
    suspects: Suspects of this patient, the most suspicious first.
    organs: The organs that the network knows.
    """
    truth, grid = _select_organs(stored.labels, organs), stored.labels.grid
    prediction = LabelMap(predicted, grid, organs)
    scores = evaluation.score(prediction, truth, [n for n in organs.names if n in row.organs])
    cm3 = voxel_cm3(grid.spacing_mm, grid.planes)
    volumes = {o.name: round(float(volume_cm3(predicted == o.label, cm3)), 2) for o in organs}
    facts = Facts(organs=organs.names, level_hu=stored.level_hu, width_hu=stored.width_hu)
    shown = viewer.entry(row.patient, stored.scan, prediction, truth, scores, facts, volumes)
    questions = [_question(one, shown["first"]) for one in suspects if one.dispute.slices]
    return shown | {"questions": questions}


def _question(suspect: suspicion.Suspect, first: int) -> dict:
    """Makes a question: slices that the page marks; it opens at those of the first question.

    first: Number of the page's first slice in the scan.
    """
    dispute = suspect.dispute
    return {
        "organ": dispute.organ,
        "short": f"{dispute.share:.0%} in dispute",
        "reason": suspect.reason,
        "slices": [[a - first, b - first] for a, b in suspicion.group_runs(dispute.slices)],
    }


def _select_organs(labels: LabelMap, organs: Organs) -> LabelMap:
    """The label map with the voxels of these organs and the ignored ones alone."""
    values = organs.labels(organs.names) + [ignored.LABEL] * labels.has_ignored
    return replace(labels, zyx=np.where(np.isin(labels.zyx, values), labels.zyx, np.uint8(0)))
