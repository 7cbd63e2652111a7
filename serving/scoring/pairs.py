"""Pairs of contours and predicted label maps of the same patients."""

from dataclasses import dataclass, replace

from segthor import configs, files, guard, ignored, inputs, organ_table, scans
from segthor.errors import InputError
from segthor.manifest import Dataset
from segthor.organs import SEGTHOR, Organs
from segthor.patients import Patient
from segthor.volume import Grid, LabelMap
from serving.prediction import facts

_OTHER = "expected predictions of a model that was trained with the dataset's table of organs"


@dataclass(frozen=True)
class Match:
    """Contours matched with predictions.

    pairs: Contours and prediction of a patient.
    missing: Patients without a prediction, to the reason.
    uncontoured: Patients with a prediction and without contours.
    """

    pairs: tuple[tuple[Patient, Patient], ...]
    missing: dict[str, str]
    uncontoured: tuple[str, ...]


def table_of(folder: str, contours: str | None = None, table: str | None = None) -> Organs:
    """Returns the table of organs of predictions and contours.

    A folder of predictions holds its table, and so does a dataset, which may have more organs.

    folder: Folder of predictions.
    contours: The contours, possibly of a dataset.
    table: Table file for folders that hold none; None: SegTHOR's table.

    Raises:
      InputError: Predictions and contours number organs differently, or `table` is superfluous.
    """
    predicted = inputs.read_predicted_organs(folder)
    contoured = None
    if contours and inputs.is_dataset(contours):
        contoured = Dataset.load(contours).organs
    if table and (predicted or contoured):
        owner = folder if predicted else contours
        raise InputError(f"--organ_table: {owner} holds its own table; leave the flag out")
    if table:
        return organ_table.read(files.absolute(configs.resolve(table)))
    if not predicted or not contoured:
        return predicted or contoured or SEGTHOR
    return _merge_tables(predicted, folder, contoured, contours)


def _merge_tables(predicted: Organs, folder: str, contoured: Organs, contours: str) -> Organs:
    """Adds the organs of a dataset that the predictions do not have to their table."""
    for name in predicted.names:
        label = predicted[name].label
        other = contoured.numbers.get(name, label)
        if label != other:
            raise InputError(
                f"label of {name}: {other} in {contours}, {label} in {folder}; {_OTHER}"
            )
    try:
        return Organs((*predicted, *(organ for organ in contoured if organ.name not in predicted)))
    except InputError as error:
        raise InputError(f"{contours}, {folder}: {error}; {_OTHER}") from error


def match(
    contours: str, folder: str, split: str | None = None, *, organs: Organs, scanned=()
) -> Match:
    """Pairs the contours of a folder, CSV or dataset with the predictions in `folder`.

    split: 'train' or 'validation', to select patients; None: all.
    scanned: Patients with their CT, for contours that do not name it.

    Raises:
      InputError: There are no contours, no predictions, or no patient has both.
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
        one.name: one.fault or faults.get(one.name) or explain_missing(folder, one.name, organs)
        for one in contoured
        if one.name not in usable
    }
    uncontoured = sorted(set(predictions) - {one.name for one in contoured})
    return Match(paired, missing, tuple(uncontoured))


def contours_of(path: str, split: str | None = None, *, organs: Organs) -> list[Patient]:
    """Finds the contours of a folder, CSV or dataset; raises InputError if there are none."""
    patients = [one for one in inputs.find_contours(path, organs) if split in (None, one.split)]
    if not patients:
        raise InputError(f"--split={split}: {path} names no such patient with contours")
    for label_values in {one.label_values for one in patients}:
        ignored.check(label_values, organs, path)  # predictions may have more organs than these
    return patients


def read(
    contours: Patient,
    predicted: Patient,
    ct: tuple[str, Grid] | None = None,
    *,
    organs: Organs,
    roi_names=(),
) -> tuple[LabelMap, LabelMap]:
    """Reads prediction and contours of a patient, as two label maps on one grid.

    `contoured` of the second one holds the contoured organs.

    ct: Path and grid of the CT on which the prediction must lie; None: that of the patient, if it
      is known and has uneven planes.
    roi_names: Pairs of organ and ROI name beyond the table's synonyms.

    Raises InputError as `segthor.scans.read_labels` does.
    """
    ct = ct or uneven_ct(contours) or uneven_ct(predicted)
    prediction = labels_of(predicted, ct, organs, roi_names)
    like = predicted.labels, prediction.grid
    return prediction, read_contours(contours, like, organs, roi_names)


def read_contours(
    contours: Patient, like: tuple[str, Grid], organs: Organs, roi_names=()
) -> LabelMap:
    """Reads the contours of a patient, as `labels_of`; `contoured` holds the contoured organs."""
    truth = labels_of(contours, like, organs, roi_names)
    held = contours.organs if truth.contoured is None else truth.contoured
    return replace(truth, contoured=tuple(name for name in contours.organs if name in held))


def for_each(pairs, step) -> tuple[list, dict[str, str]]:
    """Calls `step` with the contours and the prediction of each patient, and prints a line of each.

    step: Returns a result, a text for the line, and warnings.

    Returns:
      The results, and failed patients to the reasons. An error does not stop the other patients.
    """
    results, failed = [], {}
    for number, (contours, prediction) in enumerate(pairs, 1):
        line = f"[{number}/{len(pairs)}] {contours.name}"
        try:
            result, text, warnings = step(contours, prediction)
        except Exception as error:
            failed[contours.name] = guard.describe(error)
            print(f"{line}  FAILED: {failed[contours.name]}", flush=True)
            continue
        results.append(result)
        print(f"{line}  {text}".rstrip(), flush=True)
        for warning in warnings:
            print(f"warning: {warning}", flush=True)
    return results, failed


def uneven_ct(one: Patient) -> tuple[str, Grid] | None:
    """Path and grid of a patient's CT if its planes are uneven, which a label map cannot show."""
    if not one.ct or not scans.is_dicom(one.ct):
        return None
    try:
        grid = scans.read_grid(one.ct, one.ct_files)
    except InputError:  # the label maps may not need the CT
        return None
    return (one.ct, grid) if grid.planes else None


def labels_of(
    one: Patient, like: tuple[str, Grid] | None, organs: Organs, roi_names=()
) -> LabelMap:
    """Reads the contours or the prediction of a patient.

    like: Path and grid of the file on which it must lie.

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


def explain_missing(folder: str, patient: str, organs: Organs) -> str:
    """Explains why the folder holds no label map of a patient, from its facts."""
    try:
        failed = facts.read_of_table(folder, patient, organs).failed
    except InputError as error:
        return str(error)
    return f"failed in prediction: {failed}" if failed else "no label map"
