"""The model card: what a model is for, what it was trained on, how good it is, what to check.

`serving.export` writes it into the model as model_card.json and model_card.md (docs/model_card.md).
All of it comes from the run, the dataset's manifest and the model itself, but for two texts that
flags give. `serving.calibrate` and `serving.tune` bring it up to date; the report shows it.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from segthor import csv_files, files, json_files, outputs, statistics
from segthor import model_directory as directory
from segthor.errors import InputError
from segthor.figures import OrganFigures
from segthor.manifest import TRAIN, VALIDATION, Dataset
from serving import card_text
from serving.review.expectation import BAD_DICE
from serving.review.trust import FEWEST_PATIENTS

JSON, TEXT = "model_card.json", "model_card.md"
_PREFIX = "model_card_"  # of a card in a folder of predictions
FORMAT = 1
_CONTRAST_HU = 100  # blood without contrast agent has 30 to 60 HU
_SCORES = ("hausdorff95_mm", "mean_surface_distance_mm", "surface_dice_3mm")
_LEVELS = (0, 50, 100)  # percentiles: lowest, median, highest


def make(record, workdir: str, checkpoint: str, intended_use: str, known_limits: str) -> dict:
    """The card of a run that is exported, as plain JSON values.

    Args:
      record: `trainer.run.RunRecord` of the run.
      workdir: The run's folder, for the scores of its best checkpoint.
      checkpoint: Which of the run's checkpoints it is, 'best' or 'last'.
      intended_use: What the model is for, in the words of whoever made it; '' for the usual.
      known_limits: What is known to go wrong, in the same way.
    """
    dataset, why_not = _dataset_of(record)
    card = {
        "format": FORMAT,
        "intended_use": intended_use,
        "known_limits": known_limits,
        "checkpoint": checkpoint,
        "organs": [_organ(record.organ_table[name]) for name in record.organs],
        "network": _network(record),
        "recipe": record.recipe.to_json(),
        "population": _population(dataset, record) if dataset else {"unknown": why_not},
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
    """Brings a model's card up to date after it was calibrated or tuned; a model may have none."""
    card = read(version)
    if card:
        save(version, card)


def read(version: str) -> dict | None:
    """The card of a model's version; None where it has none.

    Raises:
      InputError: the file is no card.
    """
    path = directory.asset(version, JSON)
    if not files.exists(path):
        return None
    card = json_files.read(path)
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise InputError(
            f"{path}: expected a model card of format {FORMAT}; export the model again"
        )
    return card


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
    """The cards in a folder of predictions; none where another program made them."""
    names = sorted(files.listdir(folder)) if files.is_dir(folder) else []
    paths = [files.join(folder, name) for name in names if name.startswith(_PREFIX)]
    return [card for path in paths if (card := json_files.read(path)).get("format") == FORMAT]


def _organ(organ) -> dict:
    return {
        "name": organ.name,
        "label": organ.label,
        "tg263": organ.tg263,
        "snomed": organ.snomed,
        "contouring": organ.contouring,
        "tolerance_mm": organ.tolerance_mm,
    }


def _network(record) -> dict:
    config = record.config
    summary = record.summary or {}
    return {
        "task": config.task,
        "architecture": f"{config.decoder}-{config.backbone}",
        "encoder_weights": config.encoder_weights,
        "start_from": files.name(config.start_from.rstrip("/")),
        "loss": config.loss,
        "steps": summary.get("steps"),
        "best_step": (summary.get("best") or {}).get("step"),
        "flips": [name for name in ("left_right", "front_back")
                  if getattr(config.augment, f"flip_{name}")],
    }  # fmt: skip


def _dataset_of(record) -> tuple[Dataset | None, str]:
    """The run's dataset, or None and why it cannot be described."""
    folder = record.data.folder
    try:
        dataset = Dataset.load(folder)
    except (InputError, OSError):
        return None, "the dataset was not where the training read it when the model was exported"
    if dataset.digest() != record.data.digest:
        return None, "the dataset had been built anew when the model was exported"
    return dataset, ""


def _population(dataset: Dataset, record) -> dict:
    """What the training and the held-out patients are, from the manifest."""
    fold = record.config.held_out_fold
    described = {}
    for split in (TRAIN, VALIDATION):
        named = {name for shard in dataset.shards_of(split, fold) for name in shard.patients}
        rows = [row for row in dataset.patients if row.patient in named]
        described[split] = _describe(rows, record.organs)
    return {
        **described,
        "rejected": len(dataset.rejected),
        "train_patients": record.config.train_patients or None,
        "phantoms": _are_phantoms(dataset),
    }


def _describe(rows, organs) -> dict:
    placements = [row.placement for row in rows]
    scans = {
        "slice_mm": [place.spacing_zyx_mm[0] for place in placements],
        "pixel_mm": [place.spacing_zyx_mm[2] for place in placements],
        "field_of_view_mm": [p.spacing_zyx_mm[2] * p.shape_zyx[2] for p in placements],
        "length_mm": [p.spacing_zyx_mm[0] * p.shape_zyx[0] for p in placements],
        "slices": [row.slices for row in rows],
        "level_hu": [row.level_hu for row in rows],
    }
    return {
        "patients": len(rows),
        "slices": sum(row.slices for row in rows),
        "scans": {name: _levels(values) for name, values in scans.items()},
        "organs": {name: _of_organ(rows, name) for name in organs},
        "findings": _count(finding.code for row in rows for finding in row.audit.findings),
        "acquisition": {
            name: _count(row.acquisition.get(name, "not known") for row in rows)
            for name in sorted({name for row in rows for name in row.acquisition})
        },
    }


def _of_organ(rows, name: str) -> dict:
    contoured = [row for row in rows if name in row.organs]
    measured = [OrganFigures(**row.audit.organs[name]) for row in contoured
                if name in row.audit.organs]  # fmt: skip
    return {
        "patients": len(contoured),
        "volume_cm3": _levels(one.volume_cm3 for one in measured),
        "mean_hu": _levels(one.mean_hu for one in measured),
        "above_contrast_hu": sum(one.mean_hu >= _CONTRAST_HU for one in measured),
    }


def _levels(values: Iterable[float]) -> list[float] | None:
    """Lowest, median and highest; None of no values."""
    values = list(values)
    return [round(float(x), 2) for x in np.percentile(values, _LEVELS)] if values else None


def _count(codes) -> dict[str, int]:
    codes = list(codes)
    return {code: codes.count(code) for code in sorted(set(codes))}


def _are_phantoms(dataset: Dataset) -> bool:
    """Whether the patients are those of segthor.phantom, whose folder says so."""
    folder = dataset.patients[0].ct
    for _ in range(3):  # FOLDER/train/PATIENT/FILE
        folder = files.parent(folder)
        if folder and outputs.result_in(folder) == outputs.PHANTOMS:
            return True
    return False


def _scores(workdir: str, record) -> dict:
    """Organ to score to its summary over the held-out patients of the best checkpoint."""
    scores = {name: {} for name in record.organs}
    path = files.join(workdir, "best_patients.csv")
    for name in record.organs if files.exists(path) else ():
        values = [_number(row.get(name)) for _, row in csv_files.read_table(path)]
        values = [value for value in values if value is not None]
        if values:
            lowest = {"lowest": min(values), "below_bad": sum(v < BAD_DICE for v in values)}
            scores[name]["dice"] = vars(statistics.summarise(values)) | lowest
    path = files.join(workdir, "best_surfaces.csv")
    rows = [row for _, row in csv_files.read_table(path)] if files.exists(path) else []
    for name in record.organs:
        own = [row for row in rows if row["organ"] == name]
        for score in _SCORES if own else ():
            scores[name][score] = vars(statistics.summarise([_number(r[score]) for r in own]))
    return scores


def _number(text: str | None) -> float | None:
    """A cell of a table; None of an empty one and of an infinite distance."""
    value = float(text) if text else np.nan
    return value if np.isfinite(value) else None


def _calibration(version: str) -> dict | None:
    """What `serving.calibrate` says of itself, for people; None where the model has none."""
    path = directory.asset(version, directory.REVIEW)
    if not files.exists(path):
        return None
    stored = json_files.read(path)
    return {key: stored[key] for key in ("patients", "scans", "table")}


def _rules(version: str) -> dict:
    path = directory.asset(version, directory.RULES)
    return json_files.read(path)["rules"] if files.exists(path) else {}


def _limits(card: dict) -> list[str]:
    """What the numbers of the card themselves say against the model, in sentences."""
    limits, population = [], card["population"]
    if population.get("phantoms"):
        limits.append("The patients are phantoms. The scores say nothing about real patients.")
    train = population.get(TRAIN, {})
    if train and train["patients"] < FEWEST_PATIENTS:
        limits.append(f"It was trained on {train['patients']} patients only.")
    for name, scores in card["scores"].items():
        dice = scores.get("dice")
        if dice is None:
            limits.append(f"{name}: no held-out patient has a score.")
        elif dice["mean"] < BAD_DICE:
            limits.append(f"{name}: the mean Dice of the held-out patients is {dice['mean']:.2f}.")
        elif dice["below_bad"]:
            count = f"{dice['below_bad']} of {dice['count']} held-out patients"
            limits.append(f"{name}: {count} have a Dice below {BAD_DICE:.2f}.")
    for name, row in train.get("organs", {}).items():
        if 0 < row["patients"] < train["patients"]:
            part = f"{row['patients']} of {train['patients']} training patients"
            limits.append(f"{name} is contoured in {part}.")
    if population.get("unknown"):
        limits.append(f"The training population is not described: {population['unknown']}.")
    return limits
