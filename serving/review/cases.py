"""Rows of evidence and true scores: each patient by a model that never saw it, well and worsened.

The worsening is done to the scans, not to prepared slices: what a scanner or a protocol changes
(spacing, field of view, HU) has to pass through the whole preparation as it does in a clinic.
"""

import hashlib

import numpy as np

from segthor import audit, files, json_files, metrics, scans
from segthor.organs import Organs
from segthor.patients import Patient
from segthor.volume import LabelMap, Volume
from serving.prediction import postprocess
from serving.prediction.predictor import Ensemble
from serving.review.evidence import Observer
from serving.review.judge import reference_of
from serving.review.worsen import KINDS, worsened

AS_IT_IS = "as it is"
VERSION = 4  # raised whenever the same patient and model give other rows


def rows_of(patient: Patient, models: Ensemble, folder: str) -> list[dict]:
    """A row per organ of the patient as it is and worsened in every way; kept in `folder`.

    Raises InputError where the scan or its contours cannot be read.
    """
    path = files.inside(folder, f"{patient.name}.json")
    key = [VERSION, scans.stamp(patient.ct), *(one.digest for one in models.bundles)]
    if files.exists(path):
        kept = json_files.read(path)
        if isinstance(kept, dict) and kept.get("key") == key and isinstance(kept.get("rows"), list):
            return kept["rows"]
    scan, labels, names = _read(patient, models.table)
    seed = int.from_bytes(hashlib.sha256(patient.name.encode(errors="replace")).digest()[:8], "big")
    rows = observe(models, scan, labels, names, patient.name, AS_IT_IS)
    for number, kind in enumerate(KINDS):
        worse = worsened(kind, scan, labels, np.random.default_rng([seed, number]))
        rows += observe(models, *worse, names, patient.name, kind)
    json_files.write(path, {"key": key, "rows": rows})
    return rows


def _read(patient: Patient, organs: Organs) -> tuple[Volume, LabelMap, tuple[str, ...]]:
    """The scan, its contours, and the names of the organs that are contoured."""
    scan = scans.read(patient.ct)
    like = patient.ct, scan.grid
    truth = scans.read_labels(
        patient.labels, like, patient.label_values, organs=organs, ct=patient.ct
    )
    for finding in truth.findings:
        print(f"warning: {finding.message}", flush=True)
    drawn = patient.organs if truth.contoured is None else truth.contoured
    return scan, truth, tuple(name for name in patient.organs if name in drawn)


def observe(
    models: Ensemble, scan: Volume, labels: LabelMap, names, patient: str, kind: str
) -> list[dict]:
    """Predicts one scan; a row per organ of `names`: evidence and true scores.

    labels: The contours; models that take level or centre from organs are given these. `found` and
    `drawn` say whether prediction and contours hold the organ.
    """
    masks = labels if models.needs_masks else None
    inputs, organs = models.inputs(scan, masks), models.table
    observer = Observer.of_case(models.organs, models.first(inputs), reference_of(models))
    predicted = models.segment(inputs, observe=observer.add)
    changes = postprocess.apply(predicted.labels, scan.spacing_mm, models.rules(), organs)
    made = LabelMap(predicted.labels, scan.grid, organs)
    measured, _ = audit.measure_prediction(scan, made, models.organs)
    evidence = observer.finish(measured, changes)
    names = [name for name in models.organs if name in names]
    maps = made.zyx, labels.zyx, scan.spacing_mm
    scores = metrics.score(*maps, organs.labels(names), labels.left_out)
    return [
        {
            "patient": patient,
            "kind": kind,
            "organ": name,
            "found": bool(evidence.organs[name]),
            "drawn": organs[name].label in labels.boxes,
            "dice": round(score.dice, 4),
            "surface_dice": round(score.surface_dice_2mm, 4),
            "scan": evidence.scan,
            "evidence": evidence.organs[name],
        }
        for name, score in zip(names, scores.values(), strict=True)
    ]
