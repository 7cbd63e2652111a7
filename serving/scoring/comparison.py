"""Compares the scores of two runs on the same patients, with paired tests."""

import dataclasses

from segthor import fields, files, json_files, statistics
from segthor.errors import InputError
from segthor.organs import Organs

COMPARED = ("dice", "average_hausdorff_mm", "hausdorff95_mm", "surface_dice_2mm")


def load(folder: str) -> dict[str, dict[str, dict]]:
    """Reads scores.json from the folder of an evaluation: patient to organ to scores.

    Raises:
      InputError: There is no such file, or serving.evaluate did not write it.
    """
    path = folder if folder.endswith(".json") else files.join(folder, "scores.json")
    value = json_files.read(path)
    patients = value.get("patients") if isinstance(value, dict) else None
    kind = dict[str, dict[str, dict[str, float | None]]]
    where = f"{path}: expected scores.json from serving.evaluate; patients"
    return fields.from_json(kind, patients, where)


def compare(this: dict, other: dict, organs: Organs) -> list[dict]:
    """Compares two runs over the patients that both scored; differences are this minus other.

    this, other: Patient to organ to scores.

    Returns a row per organ and score: organ, score, both means over these patients, and the fields
    of `segthor.statistics.PairedTest`.

    Raises:
      InputError: There is no patient in common.
    """
    shared = sorted(set(this) & set(other))
    if not shared:
        raise InputError(
            f"--compare: no patient in common; this run has {min(this)} ..., "
            f"the other {min(other, default='none')} ..."
        )
    rows = []
    for name in organs.names:
        common = [p for p in shared if name in this[p] and name in other[p]]
        both = [(this[p][name], other[p][name]) for p in common]
        rows += [_compare_score(name, score, both) for score in COMPARED if both]
    return rows


def _compare_score(organ: str, score: str, both: list[tuple[dict, dict]]) -> dict:
    """Makes the row of one score, from the scores of each patient in this and the other run."""
    pairs = [(ours.get(score), theirs.get(score)) for ours, theirs in both]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    means = [statistics.summarise([pair[i] for pair in known]).mean for i in (0, 1)]
    test = statistics.paired_test(*zip(*pairs, strict=True))
    return {
        "organ": organ,
        "score": score,
        "mean": means[0],
        "other_mean": means[1],
        **dataclasses.asdict(test),
    }
