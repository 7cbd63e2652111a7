"""Contours and the label maps that were predicted for the same patients."""

from dataclasses import dataclass

from segthor import inputs, scans
from segthor.errors import InputError
from segthor.nifti import Grid
from segthor.patients import Patient
from segthor.scans import LabelMap
from serving.scoring import facts


@dataclass(frozen=True)
class Match:
    """pairs: contours, path of the label map. missing: patient to why there is no label map.

    uncontoured: patients that have a label map and no contours.
    """

    pairs: tuple[tuple[Patient, str], ...]
    missing: dict[str, str]
    uncontoured: tuple[str, ...]


def match(contours: str, folder: str, split: str | None = None) -> Match:
    """Pairs the contours of a folder, CSV or dataset with the label maps in `folder`.

    split: only the contours of these patients, 'train' or 'validation'.

    Raises:
      InputError: there are none of either, or no patient has both.
    """
    predictions = inputs.find_predictions(folder)
    contoured = contours_of(contours, split)
    paired = tuple((one, predictions[one.name]) for one in contoured if one.name in predictions)
    if not paired:
        raise InputError(
            f"no patient has both: {folder} holds {min(predictions)} ..., "
            f"{contours} holds {contoured[0].name} ..."
        )
    absent = [one for one in contoured if one.name not in predictions]
    missing = {one.name: one.fault or why_missing(folder, one.name) for one in absent}
    uncontoured = sorted(set(predictions) - {one.name for one in contoured})
    return Match(paired, missing, tuple(uncontoured))


def contours_of(path: str, split: str | None = None) -> list[Patient]:
    """The contours of a folder, CSV or dataset; raises InputError where there are none."""
    found = [one for one in inputs.find_contours(path) if split in (None, one.split)]
    if not found:
        raise InputError(f"--split={split}: {path} names no such patient with contours")
    return found


def read(
    contours: Patient, predicted: str, ct: tuple[str, Grid] | None = None
) -> tuple[LabelMap, LabelMap]:
    """(predicted, true) label maps on one grid; ct: path and grid of the CT that they lie on.

    Raises InputError as `segthor.scans.read_labels` does.
    """
    # A prediction lies on its CT's grid, so the audit's words for CT and contours fit.
    found = scans.read_labels(predicted, like=ct)
    truth = scans.read_labels(contours.labels, (predicted, found.grid), contours.label_values)
    return found, truth


def why_missing(folder: str, patient: str) -> str:
    """Why the folder holds no label map of a patient, as far as serving.predict noted it."""
    try:
        failed = facts.read(folder, patient).failed
    except InputError as error:
        return str(error)
    return f"failed in prediction: {failed}" if failed else "no label map"
