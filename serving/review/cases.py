"""Rows of evidence and true scores, of each patient's scan as it is and worsened.

Scans are worsened, not prepared slices, so that other spacings, fields of view and HU values pass
through the whole preparation, as they do in a clinic.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from segthor import audit, fields, files, json_files, metrics, scans
from segthor.errors import InputError
from segthor.findings import print_warnings
from segthor.organs import Organs
from segthor.patients import Patient
from segthor.volume import LabelMap, Volume
from serving.prediction import postprocess
from serving.prediction.facts import Evidence
from serving.prediction.predictor import Ensemble
from serving.review.evidence import Observer
from serving.review.judge import reference_of
from serving.review.worsen import KINDS, worsen_scan
from serving.scoring import pairs

AS_IT_IS = "as it is"
VERSION = 4  # to be raised whenever the rows of the same patient and model change


def make_rows(patient: Patient, models: Ensemble, folder: str) -> list[dict]:
    """Makes the rows of a patient: one per organ, of the scan as it is and of each kind of KINDS.

    They are cached in `folder`.

    models: Models that were not trained on the patient.

    Raises:
      InputError: The scan or its contours cannot be read.
    """
    path = files.inside(folder, f"{patient.name}.json")
    stamps = scans.stamp(patient.ct), files.stamp(patient.labels)
    key = [str(VERSION), *stamps, *(one.digest for one in models.bundles)]
    stored = read_cache(path)
    if stored is not None and list(stored.key) == key:
        return list(map(vars, stored.rows))
    scan, labels, names = _read(patient, models.table)
    seed = int.from_bytes(hashlib.sha256(patient.name.encode(errors="replace")).digest()[:8], "big")
    rows = measure_scan(models, scan, labels, names, patient.name, AS_IT_IS)
    for number, kind in enumerate(KINDS):
        worse = worsen_scan(kind, scan, labels, np.random.default_rng([seed, number]))
        rows += measure_scan(models, *worse, names, patient.name, kind)
    json_files.write(path, {"key": key, "rows": rows})
    return rows


@dataclass(frozen=True)
class Row:
    """Evidence and scores of one organ in one scan; see `measure_scan`.

    patient: Name of the patient.
    kind: AS_IT_IS, or the kind of the worsening.
    organ: Name of the organ.
    found: Whether the prediction holds the organ.
    drawn: Whether the contours hold the organ.
    dice: True Dice.
    surface_dice: True surface Dice at 2 mm.
    scan: Evidence of the scan.
    evidence: Evidence of the organ.
    """

    patient: str
    kind: str
    organ: str
    found: bool
    drawn: bool
    dice: float
    surface_dice: float
    scan: dict[str, tuple[float, float]]
    evidence: dict

    def __post_init__(self):
        Evidence(self.scan, {self.organ: self.evidence})  # raises InputError for invalid values


@dataclass(frozen=True)
class Cache:
    """The file that caches the rows of a patient.

    key: All that the rows depend on.
    rows: The rows.
    """

    key: tuple[str, ...]
    rows: tuple[Row, ...]


def read_cache(path: str) -> Cache | None:
    """Reads the cached rows of a patient; None if there are none or the file is damaged."""
    try:
        return fields.from_json(Cache, json_files.read(path), path)
    except InputError:
        return None


def _read(patient: Patient, organs: Organs) -> tuple[Volume, LabelMap, tuple[str, ...]]:
    """Reads the scan and its contours, and the names of the contoured organs."""
    scan = scans.read(patient.ct, among=patient.ct_files)
    truth = pairs.read_contours(patient, (patient.ct, scan.grid), organs)
    print_warnings(truth.findings)
    return scan, truth, truth.contoured


def measure_scan(
    models: Ensemble, scan: Volume, labels: LabelMap, names, patient: str, kind: str
) -> list[dict]:
    """Predicts one scan; returns a row per organ of `names`, with the fields of `Row`.

    labels: The contours.
    kind: Kind of the worsening, for the rows.
    """
    predicted, evidence = _predict(models, scan, labels)
    organs, names = models.table, [name for name in models.organs if name in names]
    maps = predicted.zyx, labels.zyx, scan.spacing_mm
    scores = metrics.score(*maps, organs.labels(names), labels.left_out, scan.grid.planes)
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


def _predict(models: Ensemble, scan: Volume, contours: LabelMap) -> tuple[LabelMap, Evidence]:
    """Predicts a scan; returns the label map after post-processing, and its evidence."""
    # Recipes that take level or centre from organs get the contours in place of a level model's.
    inputs = models.inputs(scan, contours if models.needs_masks else None)
    observer = Observer.of_case(models.organs, models.first(inputs), reference_of(models))
    segmented = models.segment(inputs, observe=observer.add)
    labels = LabelMap(segmented.labels, scan.grid, models.table)
    changes = postprocess.apply(labels, models.rules())
    measured, _ = audit.measure_prediction(scan, labels, models.organs)
    return labels, observer.finish(measured, changes)
