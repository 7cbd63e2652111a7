"""Scores of predicted label maps against contours, per patient and over patients."""

import dataclasses

import numpy as np

from segthor import csv_files, effort, metrics, statistics
from segthor.metrics import OrganScore
from segthor.organs import Organs
from segthor.volume import LabelMap


@dataclasses.dataclass(frozen=True)
class Scores(OrganScore):
    """Scores of one organ in one patient, with the effort of correction: see `segthor.effort`.

    added_path_mm: Added path length.
    slices_to_touch: Number of slices to touch.
    """

    added_path_mm: float
    slices_to_touch: int


SCORES = tuple(field.name for field in dataclasses.fields(Scores))


@dataclasses.dataclass(frozen=True)
class PatientScores:
    """Scores of one patient.

    patient: Name of the patient.
    organs: Contoured organ to its scores.
    """

    patient: str
    organs: dict[str, Scores]


def score(predicted: LabelMap, truth: LabelMap, names) -> dict[str, Scores]:
    """Scores the named organs of two label maps on one grid; returns organ to its scores.

    names: Names of the organs that are predicted and contoured.
    """
    organs, left_out, grid = truth.organs, truth.left_out, truth.grid
    maps = predicted.zyx, truth.zyx, grid.spacing_mm
    scores = metrics.score(*maps, organs.labels(names), left_out, grid.planes)
    tolerances_mm = {organs[name].label: organs[name].tolerance_mm for name in names}
    efforts = effort.measure(*maps, tolerances_mm, left_out)
    return {
        name: Scores(**vars(scores[label]), **vars(efforts[label]))
        for name, label in zip(names, tolerances_mm, strict=True)
    }


def mean_dice(patient: PatientScores) -> float:
    """Mean Dice over the patient's organs, of which there must be at least one."""
    return float(np.mean([row.dice for row in patient.organs.values()]))


def summarise(
    patients: list[PatientScores], organs: Organs
) -> dict[str, dict[str, statistics.Summary]]:
    """Summaries over patients with the organ's contours: organ to score to summary."""
    return {
        name: {
            score: statistics.summarise(
                [getattr(p.organs[name], score) for p in patients if name in p.organs]
            )
            for score in SCORES
        }
        for name in organs.names
        if any(name in patient.organs for patient in patients)
    }


def to_json(
    patients: list[PatientScores], missing: dict[str, str], failed: dict[str, str], organs: Organs
) -> dict:
    """Makes the content of scores.json.

    'mean' averages the means of the organs; 'tolerance_mm' is the tolerance of 'added_path_mm'.

    missing: Patients without a prediction, to the reason.
    failed: Patients that could not be scored, to the reason.
    """
    summaries = summarise(patients, organs)
    means = {score: [rows[score].mean for rows in summaries.values()] for score in SCORES}
    return {
        "mean": {score: mean(values) for score, values in means.items()},
        "organs": {
            name: {score: dataclasses.asdict(row) for score, row in rows.items()}
            for name, rows in summaries.items()
        },
        "tolerance_mm": {name: organs[name].tolerance_mm for name in summaries},
        "patients": by_patient(patients),
        "missing": missing,
        "failed": failed,
    }


def by_patient(patients: list[PatientScores]) -> dict[str, dict[str, dict]]:
    """Plain values: patient to organ to scores."""
    return {p.patient: {name: row.as_dict() for name, row in p.organs.items()} for p in patients}


def write_csv(path: str, patients: list[PatientScores]) -> None:
    """Writes a row per patient and organ; an infinite distance is left empty."""
    rows = [
        {"patient": patient.patient, "organ": name, **row.as_dict()}
        for patient in patients
        for name, row in patient.organs.items()
    ]
    csv_files.write_table(path, rows, ("patient", "organ", *SCORES))


def mean(values) -> float | None:
    """Mean of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
