"""Two runs on the same patients: who scored better, by how much, and how sure that is."""

import dataclasses

from segthor import fields, files, json_files, statistics
from segthor.errors import InputError
from segthor.organs import Organs

COMPARED = ("dice", "average_hausdorff_mm", "hausdorff95_mm", "surface_dice_2mm")


def load(folder: str) -> dict[str, dict[str, dict]]:
    """Patient -> organ -> scores, from the scores.json of an evaluation's folder.

    Raises:
      InputError: no such file, or not one of ours.
    """
    path = folder if folder.endswith(".json") else files.join(folder, "scores.json")
    value = json_files.read(path)
    patients = value.get("patients") if isinstance(value, dict) else None
    kind = dict[str, dict[str, dict[str, float | None]]]
    where = f"{path}: expected scores.json from serving.evaluate; patients"
    return fields.from_json(kind, patients, where)


def compare(ours: dict, theirs: dict, organs: Organs) -> list[dict]:
    """One row per organ and score, over the patients that both runs scored: ours minus theirs.

    Each row holds organ, score, both means over those patients, and the fields of
    `segthor.statistics.PairedTest`.

    Raises:
      InputError: no patient in common.
    """
    shared = sorted(set(ours) & set(theirs))
    if not shared:
        raise InputError(
            f"--compare: no patient in common; this run has {min(ours)} ..., "
            f"the other {min(theirs, default='none')} ..."
        )
    rows = []
    for name in organs.names:
        both = [p for p in shared if name in ours[p] and name in theirs[p]]
        for score in COMPARED if both else ():
            pairs = [(ours[p][name].get(score), theirs[p][name].get(score)) for p in both]
            known = [(a, b) for a, b in pairs if a is not None and b is not None]
            a, b = ([pair[i] for pair in known] for i in (0, 1))
            test = statistics.paired_test(*zip(*pairs, strict=True))
            rows.append(
                {
                    "organ": name,
                    "score": score,
                    "mean": statistics.summarise(a).mean,
                    "other_mean": statistics.summarise(b).mean,
                    **dataclasses.asdict(test),
                }
            )
    return rows
