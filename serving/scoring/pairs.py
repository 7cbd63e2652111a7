"""Contours and the label maps that were predicted for the same patients."""

from dataclasses import dataclass, replace

from segthor import configs, files, ignored, inputs, organ_table, scans
from segthor.errors import InputError
from segthor.manifest import Dataset
from segthor.organs import SEGTHOR, Organs
from segthor.patients import Patient
from segthor.volume import Grid, LabelMap
from serving.prediction import facts

_OTHER = "expected predictions of a model that was trained with the dataset's table of organs"


@dataclass(frozen=True)
class Match:
    """pairs: contours, prediction. missing: patient to why there is no prediction.

    uncontoured: patients that have a prediction and no contours.
    """

    pairs: tuple[tuple[Patient, Patient], ...]
    missing: dict[str, str]
    uncontoured: tuple[str, ...]


def table_of(folder: str, contours: str | None = None, table: str | None = None) -> Organs:
    """What the label values of predictions and of their contours stand for.

    It is noted with the predictions, and in a dataset, which may have contours of more organs.
    table: a file of organs for where it is noted nowhere; by default they are SegTHOR's.

    Raises:
      InputError: predictions and contours number organs differently, or `table` is one too many.
    """
    predicted = inputs.read_predicted_organs(folder)
    theirs = None
    if contours and inputs.is_dataset(contours):
        theirs = Dataset.load(contours).organs
    if table and (predicted or theirs):
        noted = folder if predicted else contours
        raise InputError(f"--organ_table: {noted} notes its organs; leave the flag out")
    if table:
        return organ_table.read(files.absolute(configs.resolve(table)))
    if not predicted or not theirs:
        return predicted or theirs or SEGTHOR
    for name in predicted.names:
        ours, other = predicted[name].label, theirs.numbers.get(name, predicted[name].label)
        if ours != other:
            raise InputError(
                f"label of {name}: {other} in {contours}, {ours} in {folder}; {_OTHER}"
            )
    try:
        return Organs((*predicted, *(organ for organ in theirs if organ.name not in predicted)))
    except InputError as error:
        raise InputError(f"{contours}, {folder}: {error}; {_OTHER}") from error


def match(
    contours: str,
    folder: str,
    split: str | None = None,
    *,
    organs: Organs,
    scanned=(),
) -> Match:
    """Pairs the contours of a folder, CSV or dataset with the predictions in `folder`.

    split: only the contours of these patients, 'train' or 'validation'. scanned: patients with
    their CT, for contours that do not know it.

    Raises:
      InputError: there are none of either, or no patient has both.
    """
    contoured = contours_of(contours, split, organs=organs)
    known = {one.name: one for one in (*scanned, *contoured) if one.ct}
    predictions = inputs.find_predicted(folder, known.values(), organs)
    contoured = inputs.rename_to_volumes(contoured, predictions)
    usable = {name: one for name, one in predictions.items() if not one.fault}
    paired = tuple((one, usable[one.name]) for one in contoured if one.name in usable)
    if not paired and usable:
        raise InputError(
            f"no patient has both: {folder} holds {min(usable)} ..., "
            f"{contours} holds {contoured[0].name} ..."
        )
    faults = {name: one.fault for name, one in predictions.items()}
    missing = {
        one.name: one.fault or faults.get(one.name) or why_missing(folder, one.name, organs)
        for one in contoured
        if one.name not in usable
    }
    uncontoured = sorted(set(predictions) - {one.name for one in contoured})
    return Match(paired, missing, tuple(uncontoured))


def contours_of(path: str, split: str | None = None, *, organs: Organs) -> list[Patient]:
    """The contours of a folder, CSV or dataset; raises InputError where there are none."""
    found = [one for one in inputs.find_contours(path, organs) if split in (None, one.split)]
    if not found:
        raise InputError(f"--split={split}: {path} names no such patient with contours")
    for label_values in {one.label_values for one in found}:
        ignored.check(label_values, organs, path)  # predictions may have more organs than these
    return found


def read(
    contours: Patient,
    predicted: Patient,
    ct: tuple[str, Grid] | None = None,
    *,
    organs: Organs,
    roi_names=(),
) -> tuple[LabelMap, LabelMap]:
    """(predicted, true) label maps on one grid; ct: path and grid of the CT that they lie on.

    Without `ct`, that of a patient with uneven planes is looked up where it is known.

    `contoured` of the true one are the organs that are contoured. roi_names: (organ, ROI name)
    beyond the table's synonyms.

    Raises InputError as `segthor.scans.read_labels` does.
    """
    ct = ct or uneven_ct(contours) or uneven_ct(predicted)
    # A prediction lies on its CT's grid, so the audit's words for CT and contours fit.
    found = labels_of(predicted, ct, organs, roi_names)
    truth = labels_of(contours, (predicted.labels, found.grid), organs, roi_names)
    held = contours.organs if truth.contoured is None else truth.contoured
    contoured = tuple(name for name in contours.organs if name in held)
    return found, replace(truth, contoured=contoured)


def uneven_ct(one: Patient) -> tuple[str, Grid] | None:
    """Path and grid of a patient's CT whose planes are uneven: label maps do not tell of them."""
    if not one.ct or not scans.is_dicom(one.ct):
        return None
    try:
        grid = scans.read_grid(one.ct, one.ct_files)
    except InputError:  # the label maps may do without their CT
        return None
    return (one.ct, grid) if grid.planes else None


def labels_of(
    one: Patient, like: tuple[str, Grid] | None, organs: Organs, roi_names=()
) -> LabelMap:
    """A patient's contours or prediction; like: path and grid of what it must lie on.

    Raises InputError as `segthor.scans.read_labels` does.
    """
    return scans.read_labels(
        one.labels,
        like,
        one.label_values,
        organs=organs,
        ct=one.ct,
        roi_names=roi_names,
        among=one.ct_files,
    )


def why_missing(folder: str, patient: str, organs: Organs) -> str:
    """Why the folder holds no label map of a patient, as far as serving.predict noted it."""
    try:
        failed = facts.read_of_table(folder, patient, organs).failed
    except InputError as error:
        return str(error)
    return f"failed in prediction: {failed}" if failed else "no label map"
