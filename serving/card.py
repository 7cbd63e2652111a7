"""The model card: what a model is for, what it was trained on, its scores, what to check.

`serving.export` writes it into the model as model_card.json and model_card.md (docs/model_card.md).
Its values come from the run, the dataset's manifest and the model, except for two texts that flags
give. `serving.calibrate` and `serving.tune` update it; the report shows it.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from segthor import csv_files, files, json_files, outputs, statistics
from segthor import model_directory as directory
from segthor.errors import InputError
from segthor.manifest import TRAIN, VALIDATION, Dataset
from serving import card_text, population
from serving.prediction import postprocess
from serving.review import expectation
from serving.review.expectation import BAD_DICE
from serving.review.trust import FEWEST_PATIENTS

JSON, TEXT = "model_card.json", "model_card.md"
_PREFIX = "model_card_"  # of a card in a folder of predictions
FORMAT = 1
_OF_ORGAN = ("name", "label", "tg263", "snomed", "contouring", "tolerance_mm")
_SCORES = ("hausdorff95_mm", "mean_surface_distance_mm", "surface_dice_3mm")


def make(record, workdir: str, checkpoint: str, intended_use: str, known_limits: str) -> dict:
    """Makes the card of a run that is exported, as plain JSON values.

    Args:
      record: `trainer.run.RunRecord` of the run.
      workdir: The run's folder, for the scores of its best checkpoint.
      checkpoint: Which of the run's checkpoints is exported, 'best' or 'last'.
      intended_use: What the model is for; '' for the usual text.
      known_limits: What is known to go wrong; '' for nothing.
    """
    dataset, why_not = _dataset_of(record)
    card = {
        "format": FORMAT,
        "intended_use": intended_use,
        "known_limits": known_limits,
        "checkpoint": checkpoint,
        "organs": [
            {field: getattr(record.organ_table[name], field) for field in _OF_ORGAN}
            for name in record.organs
        ],
        "network": _network(record),
        "recipe": record.recipe.to_json(),
        "population": population.describe(dataset, record) if dataset else {"unknown": why_not},
        "reference": record.reference and dataclasses.asdict(record.reference)["scan"],
        "scores": _scores(workdir, record),
        "versions": record.versions,
        "digests": {"dataset": record.data.digest, "recipe": record.recipe.digest()},
    }
    return card | {"limits": _limits(card)}


def save(version: str, card: dict) -> None:
    """Writes the card into a model's version, with the calibration and rules that it holds."""
    training = json_files.read(directory.asset(version, directory.MODEL)).get("training")
    digests = {"model": directory.digest(version), **card["digests"], "training": training}
    card = card | {
        "digests": digests,
        "calibration": _calibration(version),
        "postprocess": _rules(version),
    }
    with outputs.Staging() as staging:
        json_files.write(staging.path(directory.asset(version, JSON)), card)
        with files.atomic_write(staging.path(directory.asset(version, TEXT))) as stream:
            stream.write(card_text.markdown(card).encode())
        staging.publish()


def refresh(version: str) -> None:
    """Updates a model's card after it was calibrated or tuned; without a card does nothing."""
    card = read(version)
    if card:
        save(version, card)


def read(version: str) -> dict | None:
    """Reads the card of a model's version; None: it has none.

    Raises:
      InputError: The file is not a card.
    """
    path = directory.asset(version, JSON)
    if not files.exists(path):
        return None
    return _check(json_files.read(path), path)


def _check(card, path: str) -> dict:
    """Returns the card; raises InputError if the value is not a card."""
    try:
        if card["format"] == FORMAT and card_text.markdown(card):
            return card
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):  # an odd value
        pass
    raise InputError(f"{path}: expected a model card of format {FORMAT}; export the model again")


def copy(models: Iterable[str], folder: str) -> None:
    """Writes the cards of these models' versions into a folder of predictions.

    Cards of other models, which were there before, are removed.
    """
    cards = {directory.digest(version): read(version) for version in models}
    wanted = {f"{_PREFIX}{digest}.json": card for digest, card in cards.items() if card}
    for name in files.listdir(folder):
        if name.startswith(_PREFIX) and name not in wanted:
            files.remove(files.join(folder, name))
    for name, card in wanted.items():
        json_files.write(files.join(folder, name), card)


def of_predictions(folder: str) -> list[dict]:
    """Reads the cards in a folder of predictions; [] if another program made these."""
    names = sorted(files.listdir(folder)) if files.is_dir(folder) else []
    paths = [files.join(folder, name) for name in names if name.startswith(_PREFIX)]
    return [_check(json_files.read(path), path) for path in paths]


def _network(record) -> dict:
    config, summary = record.config, record.summary or {}
    best = summary.get("best") if isinstance(summary.get("best"), dict) else {}
    flips = ("left_right", "front_back")
    return {
        "task": config.task,
        "architecture": f"{config.decoder}-{config.backbone}",
        "encoder_weights": config.encoder_weights,
        "start_from": files.name(config.start_from.rstrip("/")),
        "loss": config.loss,
        "steps": summary.get("steps"),
        "best_step": None if best.get("dice") is None else best.get("step"),
        "flips": [name for name in flips if getattr(config.augment, f"flip_{name}")],
    }


def _dataset_of(record) -> tuple[Dataset | None, str]:
    """Reads the run's dataset; returns None and the reason if it cannot be described."""
    folder = record.data.folder
    try:
        dataset = Dataset.load(folder)
    except (InputError, OSError):
        return None, "the dataset was not where the training read it when the model was exported"
    if dataset.digest() != record.data.digest:
        return None, "the dataset had been built anew when the model was exported"
    return dataset, ""


def _scores(workdir: str, record) -> dict:
    """Summarises the scores of the best checkpoint: organ to score to summary."""
    scores = {name: {} for name in record.organs}
    rows = _rows(files.join(workdir, "best_patients.csv"), record.organs)
    for name in record.organs if rows else ():
        values = [row[name] for row in rows if row[name] is not None]
        if values:
            lowest = {"lowest": min(values), "below_bad": sum(v < BAD_DICE for v in values)}
            scores[name]["dice"] = vars(statistics.summarise(values)) | lowest
    rows = _rows(files.join(workdir, "best_surfaces.csv"), _SCORES)
    for name in record.organs:
        own = [row for row in rows if row["organ"] == name]
        for score in _SCORES if own else ():
            scores[name][score] = vars(statistics.summarise([row[score] for row in own]))
    return scores


def _rows(path: str, numbers: tuple[str, ...]) -> list[dict]:
    """Reads a run's table, these columns as numbers; None for an empty or infinite one.

    Returns no rows if there is no such file. Raises InputError if the file is not such a table.
    """
    table = csv_files.read_table(path, needed=numbers) if files.exists(path) else []
    rows = []
    for line, row in table:
        try:
            values = {name: float(row[name] or "nan") for name in numbers}
        except ValueError as error:
            raise InputError(f"{path}, line {line}: expected numbers ({error})") from error
        rows.append(row | {n: v if np.isfinite(v) else None for n, v in values.items()})
    return rows


def _calibration(version: str) -> dict | None:
    """Summary of the model's calibration, for people; None: it has none."""
    stored = expectation.load(version)
    names = ("patients", "scans", "table")
    return stored and {name: getattr(stored, name) for name in names}


def _rules(version: str) -> dict:
    rules = postprocess.load(version, directory.table(version))
    return {name: rule.to_json() for name, rule in rules.items()}


def _limits(card: dict) -> list[str]:
    """Sentences about weaknesses of the model that the numbers of the card show."""
    limits, described = [], card["population"]
    if described.get("phantoms"):
        limits.append("The patients are phantoms. The scores say nothing about real patients.")
    train = described.get(TRAIN, {})
    if train and train["patients"] < FEWEST_PATIENTS:
        limits.append(f"It was trained on {train['patients']} patients only.")
    if described.get(VALIDATION, {}).get("patients") == 0:
        limits.append("No patient was held out: there are no scores.")
    else:
        limits += _limits_of_scores(card["scores"])
    for name, row in train.get("organs", {}).items():
        if 0 < row["patients"] < train["patients"]:
            part = f"{row['patients']} of {train['patients']} training patients"
            limits.append(f"{name} is contoured in {part}.")
    if described.get("unknown"):
        limits.append(f"The training population is not described: {described['unknown']}.")
    return limits


def _limits_of_scores(scores: dict) -> list[str]:
    limits = []
    for name, of_organ in scores.items():
        dice = of_organ.get("dice")
        if dice is None:
            limits.append(f"{name}: no held-out patient has a score.")
        elif dice["mean"] < BAD_DICE:
            limits.append(f"{name}: the mean Dice of the held-out patients is {dice['mean']:.2f}.")
        elif dice["below_bad"]:
            count = f"{dice['below_bad']} of {dice['count']} held-out patients"
            limits.append(f"{name}: {count} have a Dice below {BAD_DICE:.2f}.")
    return limits
