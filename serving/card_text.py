"""The text of the model card, in Markdown: `model_card.md` with the values of `serving.card`."""

import re
from pathlib import Path

from segthor.manifest import TRAIN, VALIDATION
from serving.prediction.postprocess import describe_rule

_DOES = {
    "segment": "outlines the organs below",
    "classify": "says which slices hold the organs below",
    "joint": "outlines the organs below and says which slices hold them",
}
_USE = (
    "It {does} on CT of the kind described under **Training population**, as "
    "drafts that a trained person checks and corrects before any use in planning."
)
_SCANS = {
    "slice_mm": "slice distance, mm",
    "pixel_mm": "pixel, mm",
    "field_of_view_mm": "field of view, mm",
    "length_mm": "length of the scan, mm",
    "slices": "slices of a scan",
    "level_hu": "window level, HU",
}
_SCORES = {
    "dice": ("Dice", "{:.3f}"),
    "surface_dice_3mm": ("surface Dice 3 mm", "{:.3f}"),
    "hausdorff95_mm": ("HD95, mm", "{:.1f}"),
    "mean_surface_distance_mm": ("surface distance, mm", "{:.2f}"),
}
# Lines of a paragraph or an item are joined when the template is filled.
_TEMPLATE = Path(__file__).with_name("model_card.md")


def markdown(card: dict) -> str:
    """Fills the template with the values of a card; returns the whole text."""
    network, recipe = card["network"], card["recipe"]
    limits = [card["known_limits"], *card["limits"]]
    rules = (f"{name}: {describe_rule(rule)}" for name, rule in card["postprocess"].items())
    template = re.sub(r"(?<!\n)\n(?=[^\n-])", " ", _TEMPLATE.read_text())
    return template.format(
        **card
        | {
            "names": ", ".join(row["name"] for row in card["organs"]),
            "use": card["intended_use"] or _USE.format(does=_DOES[network["task"]]),
            "organs": _organs(card["organs"]),
            "population": _population(card),
            "scores": _scores(card),
            "reviews": _reviews(card["calibration"]),
            "limits": "".join(f"- {limit}\n" for limit in limits if limit),
            "steps": network["steps"] or "an unknown number of",
            "best_step": network["best_step"] or "not known",
            "start_from": f", weights of {network['start_from']}" if network["start_from"] else "",
            "pixel": f"{recipe['pixel_mm']:g} mm" if recipe["pixel_mm"] else "the scan's own",
            "context": _context(recipe),
            "rules": "; ".join(rules) or "none stored",
            "versions": _versions(card),
        }
    )


def _organs(rows) -> str:
    header = ("organ", "label", "TG-263", "SNOMED CT", "rule of contouring", "tolerance, mm")
    lines = [
        (
            row["name"],
            row["label"],
            row["tg263"] or "none",
            row["snomed"] or "none",
            row["contouring"] or "not stated",
            f"{row['tolerance_mm']:g}",
        )
        for row in rows
    ]
    return _table(header, lines)


def _population(card: dict) -> str:
    population = card["population"]
    if "unknown" in population:
        return f"Not described: {population['unknown']}.{_reference(card)}"
    train, held_out = population[TRAIN], population[VALIDATION]
    kind = "phantoms (synthetic patients)" if population["phantoms"] else "patients"
    counts = (
        f"{train['patients']} {kind} with {train['slices']} slices for training, "
        f"{held_out['patients']} with {held_out['slices']} slices held out. "
        f"The audit of the data job rejected {population['rejected'] or 'none'}."
    )
    if population["train_patients"]:
        counts += f" Of the training patients, {population['train_patients']} were used."
    contrast = (
        "Contrast agent: organs that are filled with blood have 30 to 60 HU without it and mostly "
        "100 HU or more with it; the last column counts the training patients."
    )
    codes = ", ".join(f"{code} ({n})" for code, n in train["findings"].items())
    findings = (
        f"Findings of the audit in training patients: {codes or 'none'}. docs/data.md explains "
        "the codes."
    )
    tables = _scan_table(train, held_out), _organ_table(train, held_out)
    return "\n\n".join([counts, *tables, contrast, findings, _acquisition(train)])


def _scan_table(train: dict, held_out: dict) -> str:
    rows = [
        (text, _range(train["scans"][name]), _range(held_out["scans"][name]))
        for name, text in _SCANS.items()
    ]
    return _table(("lowest, median, highest", "training", "held out"), rows)


def _organ_table(train: dict, held_out: dict) -> str:
    header = ("organ", "training patients", "held out", "volume, cm3", "mean HU")
    rows = [
        (
            name,
            row["patients"],
            held_out["organs"][name]["patients"],
            _range(row["volume_cm3"]),
            _range(row["mean_hu"]),
            row["above_contrast_hu"],
        )
        for name, row in train["organs"].items()
    ]
    return _table((*header, "with 100 HU or more"), rows)


def _acquisition(train: dict) -> str:
    known = train.get("acquisition") or {}
    if not known:
        return "Scanners, kernels and positions of the patients are not recorded in the dataset."
    parts = (
        f"{name}: {', '.join(f'{value} ({n})' for value, n in counts.items())}"
        for name, counts in known.items()
    )
    return f"Of {train['patients']} training patients: {'; '.join(parts)}."


def _reference(card: dict) -> str:
    """Describes the measures of the training scans that the run recorded."""
    if not card["reference"]:
        return ""
    named = {"slice_mm": "slice distance", "pixel_mm": "pixel", "length_mm": "length"}
    parts = (
        f"{text} {card['reference'][name]['low']:g} to {card['reference'][name]['high']:g} mm"
        for name, text in named.items()
        if name in card["reference"]
    )
    return f" The run recorded of the training scans: {', '.join(parts)}."


def _scores(card: dict) -> str:
    rows = []
    for organ, scores in card["scores"].items():
        for name, (text, form) in _SCORES.items():
            if one := scores.get(name):
                values = [one[key] for key in ("mean", "low", "high", "median")]
                mean, low, high, median = (_number(value, form) for value in values)
                lowest = _number(one.get("lowest"), form)
                rows.append((organ, text, one["count"], mean, f"{low} to {high}", median, lowest))
    if not rows:
        return "None: the run holds no scores of its best checkpoint."
    header = ("organ", "score", "patients", "mean", "95 % interval of the mean", "median", "lowest")
    caution = (
        "The scores are of the training's checkpoint with the best Dice on these patients. New "
        "patients of the same hospital therefore score a little lower, and those of other "
        "hospitals may score lower still. Intervals of fewer than ten patients are too narrow."
    )
    other = "" if card["checkpoint"] == "best" else "The exported checkpoint is the last one. "
    if not any("hausdorff95_mm" in scores for scores in card["scores"].values()):
        other += "Distances in mm were not measured (trainer.main --surface_distances). "
    slices = "Dice counts slices, not voxels. " if card["network"]["task"] == "classify" else ""
    return f"{_table(header, rows)}\n\n{slices}{other}{caution}"


def _reviews(calibration: dict | None) -> str:
    if not calibration:
        return (
            "The model is not calibrated (serving.calibrate): no score is expected of a new case, "
            "and reviews mark only what is unlike the training data or implausible."
        )
    header = ("organ", "scans", "count", "mean Dice", "expected", "error", "bad", "AUROC", "bound")
    rows = [[_cell(value) for value in line.values()] for line in calibration["table"]]
    return (
        f"Calibrated on {calibration['patients']} patients ({calibration['scans']} scans, as they "
        "are and worsened), each predicted by a network that had not seen it.\n\n"
        f"{_table(header, rows)}\n\n"
        "error: mean distance of expected and true Dice. AUROC: the chance that a bad prediction "
        "(Dice below 0.80) is expected to score less than a good one. bound: share of cases that "
        "reach their lower bound; 0.9 was aimed at."
    )


def _context(recipe: dict) -> str:
    if mm := recipe.get("context_mm"):
        return f"{recipe['context']} slices {mm:g} mm apart"
    return f"{recipe['context']} neighbouring slices"


def _versions(card: dict) -> str:
    rows = [(name, f"`{value}`") for name, value in card["digests"].items()]
    return _table(("what", "digest or version"), [*rows, *card["versions"].items()])


def _range(levels) -> str:
    return "not known" if levels is None else ", ".join(f"{value:g}" for value in levels)


def _cell(value) -> str:
    return _number(value, "{:.3f}") if value is None or isinstance(value, float) else str(value)


def _number(value: float | None, form: str) -> str:
    return "none" if value is None else form.format(value)


def _table(header, rows) -> str:
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], f"|{'---|' * len(header)}", *lines[1:]])
