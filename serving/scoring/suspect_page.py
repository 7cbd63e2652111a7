"""The entry of one patient on the page of suspects: contours, prediction, disputes."""

import numpy as np

from segthor.manifest import Built
from segthor.organs import Organs
from segthor.planes import volume_cm3, voxel_cm3
from serving.prediction.facts import Facts
from serving.scoring import evaluation, suspicion, viewer


def entry(
    row: Built,
    stored,
    predicted: np.ndarray,
    suspects: list[suspicion.Suspect],
    organs: Organs,
    left_out: np.ndarray | None = None,
) -> dict:
    """Makes the entry of a patient, plain JSON values; see `viewer.patient`.

    row: The patient in the manifest.
    stored: The patient's slices, a `serving.prediction.out_of_fold.StoredPatient`.
    predicted: uint8 [Z, Y, X], label values.
    suspects: Suspects of this patient, the most suspicious first.
    organs: The organs that the network knows.
    left_out: As in `metrics.score`.
    """
    names, spacing_mm = [name for name in organs.names if name in row.organs], stored.spacing_mm
    known = np.isin(stored.truth, organs.labels(names))
    truth = np.where(known, stored.truth, 0).astype(np.uint8)
    planes = stored.planes
    scores = evaluation.score(predicted, truth, spacing_mm, names, organs, left_out, planes)
    cm3 = voxel_cm3(spacing_mm, planes)
    volumes = {o.name: round(float(volume_cm3(predicted == o.label, cm3)), 2) for o in organs}
    facts = Facts(organs=organs.names, level_hu=stored.level_hu, width_hu=stored.width_hu)
    maps = stored.hu, predicted, truth
    about = spacing_mm, scores, facts, volumes
    shown = viewer.entry(row.patient, *maps, *about, organs, left_out, planes)
    asked = []
    for one in suspects:
        runs = suspicion.group_runs(one.dispute.slices)
        if runs:
            short = f"{one.dispute.share:.0%} in dispute"
            asked.append((one.dispute.organ, short, one.reason, runs))
    return shown | {"questions": viewer.questions(shown, asked)}
