"""Scores of predicted label maps against contours: patient by patient, then over patients."""

import dataclasses

import numpy as np

from segthor import audit, files, metrics, nifti, organs, statistics
from segthor.errors import InputError
from segthor.metrics import SCORES, OrganScore
from segthor.patients import Patient


@dataclasses.dataclass(frozen=True)
class PatientScores:
    """One patient's scores by organ name; only organs that were contoured."""

    patient: str
    organs: dict[str, OrganScore]


def read_pair(predicted_path: str, truth_path: str, label_values=()):
    """(predicted, truth, grid): label maps uint8 [X, Y, Z] on the contours' grid.

    label_values: (organ, value in the contours' file), where they are not this project's.

    Raises:
      InputError: a file that cannot be read, that lies on another grid, or that holds anything but
        the organs' labels.
    """
    predicted, truth = nifti.read(predicted_path), nifti.read(truth_path)
    # A prediction lies on its CT's grid, so the audit's words for CT and contours fit.
    require_same_grid(predicted.grid, truth.grid, predicted_path, truth_path)
    truth_labels = _labels(truth.array, truth_path, label_values)
    return _labels(predicted.array, predicted_path), truth_labels, truth.grid


def require_same_grid(ct: nifti.Grid, labels: nifti.Grid, ct_path: str, labels_path: str) -> None:
    """Raises InputError where labels do not lie on the CT's grid."""
    for finding in audit.pair_findings(ct, labels):
        raise InputError(f"{labels_path} against {ct_path}: {finding.message}")


def _labels(stored: np.ndarray, path: str, label_values=()) -> np.ndarray:
    labels, findings = audit.to_labels(stored, label_values)
    if labels is None:
        raise InputError(f"{path}: {findings[0].message}")
    return labels


def score(predicted, truth, grid: nifti.Grid, labels: Patient, wanted) -> PatientScores:
    """Scores the organs that are wanted and contoured, in the organs' order."""
    names = [name for name in organs.NAMES if name in wanted and name in labels.organs]
    values = [organs.BY_NAME[name].label for name in names]
    found = metrics.score(predicted, truth, grid.spacing_mm, values)
    return PatientScores(labels.name, dict(zip(names, found.values(), strict=True)))


def mean_dice(patient: PatientScores) -> float:
    """Over the patient's organs, of which there is at least one."""
    return float(np.mean([row.dice for row in patient.organs.values()]))


def summarise(patients: list[PatientScores]) -> dict[str, dict[str, statistics.Summary]]:
    """Organ name -> score name -> summary over the patients that have the organ contoured."""
    return {
        name: {
            score: statistics.summarise(
                [getattr(p.organs[name], score) for p in patients if name in p.organs]
            )
            for score in SCORES
        }
        for name in organs.NAMES
        if any(name in patient.organs for patient in patients)
    }


def to_json(patients: list[PatientScores]) -> dict:
    """Everything, as plain values; `mean` averages the organs' means, each organ counting once."""
    summaries = summarise(patients)
    means = {score: [rows[score].mean for rows in summaries.values()] for score in SCORES}
    return {
        "mean": {score: _mean(values) for score, values in means.items()},
        "organs": {
            name: {score: dataclasses.asdict(row) for score, row in rows.items()}
            for name, rows in summaries.items()
        },
        "patients": {
            p.patient: {name: row.as_dict() for name, row in p.organs.items()} for p in patients
        },
    }


def write_csv(path: str, patients: list[PatientScores]) -> None:
    """One row per patient and organ; an infinite distance is left empty."""
    rows = [
        {"patient": patient.patient, "organ": name, **row.as_dict()}
        for patient in patients
        for name, row in patient.organs.items()
    ]
    files.write_table(path, rows, ("patient", "organ", *SCORES))


def _mean(values) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
