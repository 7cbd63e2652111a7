"""Scores of predicted label maps against contours: patient by patient, then over patients."""

import csv
import dataclasses
import io

import numpy as np

from segthor import files, metrics, nifti, organs, statistics
from segthor.errors import InputError
from segthor.metrics import SCORES, OrganScore
from serving.cases import Labels

AFFINE_TOLERANCE_MM = 0.1


@dataclasses.dataclass(frozen=True)
class Patient:
    """One patient's scores by organ name; only organs that were contoured."""

    patient: str
    organs: dict[str, OrganScore]


def read_pair(predicted_path: str, truth_path: str):
    """(predicted, truth, grid): label maps [X, Y, Z] of whole numbers on one grid.

    Raises:
      InputError: they lie on different grids, or hold anything but the organs' labels.
    """
    predicted, truth = nifti.read(predicted_path), nifti.read(truth_path)
    pair = f"{predicted_path} and {truth_path}"
    if predicted.grid.shape != truth.grid.shape:
        raise InputError(
            f"{pair}: expected one shape, found {predicted.grid.shape} and {truth.grid.shape}"
        )
    distance = grid_distance_mm(predicted.grid, truth.grid)
    if distance > AFFINE_TOLERANCE_MM:
        raise InputError(
            f"{pair}: their affines put voxels up to {distance:.1f} mm apart "
            f"(at most {AFFINE_TOLERANCE_MM} mm)"
        )
    arrays = [
        whole_labels(scan.array, path)
        for scan, path in ((predicted, predicted_path), (truth, truth_path))
    ]
    return *arrays, truth.grid


def grid_distance_mm(one: nifti.Grid, other: nifti.Grid) -> float:
    """The largest distance between the places that two affines give a corner of the volume."""
    corners = np.stack(np.meshgrid(*((0, n - 1) for n in one.shape), indexing="ij"), -1)
    index = np.c_[corners.reshape(-1, 3), np.ones(8)]
    return float(np.linalg.norm(index @ (one.affine - other.affine).T[:, :3], axis=1).max())


def whole_labels(array: np.ndarray, path: str) -> np.ndarray:
    """uint8 of the same shape; raises InputError where a value is no label of ours."""
    if array.dtype.kind == "f" and not np.array_equal(array, np.round(array)):
        raise InputError(f"{path}: expected whole label values, found fractions")
    low, high = array.min(), array.max()
    if low < 0 or high >= organs.NUM_CLASSES:
        found = low if low < 0 else high
        raise InputError(f"{path}: expected labels 0 to {organs.NUM_CLASSES - 1}, found {found:g}")
    return array.astype(np.uint8, copy=False)


def score(predicted, truth, grid: nifti.Grid, labels: Labels, wanted) -> Patient:
    """Scores the organs that are wanted and contoured, in the organs' order."""
    names = [name for name in organs.NAMES if name in wanted and name in labels.organs]
    values = [organs.BY_NAME[name].label for name in names]
    found = metrics.score(predicted, truth, grid.spacing_mm, values)
    return Patient(labels.patient, dict(zip(names, found.values(), strict=True)))


def summarise(patients: list[Patient]) -> dict[str, dict[str, statistics.Summary]]:
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


def to_json(patients: list[Patient]) -> dict:
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


def write_csv(path: str, patients: list[Patient]) -> None:
    """One row per patient and organ; an infinite distance is left empty."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("patient", "organ", *SCORES))
    for patient in patients:
        for name, row in patient.organs.items():
            values = (row.as_dict()[score] for score in SCORES)
            table.writerow((patient.patient, name, *("" if v is None else v for v in values)))
    with files.atomic_write(path) as stream:
        stream.write(text.getvalue().encode())


def _mean(values) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
