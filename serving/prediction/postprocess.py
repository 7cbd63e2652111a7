"""Post-processing of predicted organs: largest piece, no small pieces, no holes."""

from dataclasses import asdict, dataclass

import numpy as np
from scipy import ndimage

from segthor import files, json_files
from segthor import model_directory as directory
from segthor.boxes import label_boxes
from segthor.errors import InputError
from segthor.organs import BACKGROUND, Organs
from segthor.planes import volume_cm3, voxel_cm3
from segthor.volume import LabelMap
from serving.prediction.facts import Change

_TOUCHING = np.ones((3, 3, 3), bool)  # voxels that touch at a corner are connected


@dataclass(frozen=True)
class Rule:
    """The post-processing of one organ, applied in the order of the fields.

    largest: Whether to keep the largest piece only.
    min_cm3: Volume below which pieces are removed.
    fill_holes: Whether background that the organ encloses becomes the organ.
    """

    largest: bool = False
    min_cm3: float = 0.0
    fill_holes: bool = False

    def __post_init__(self):
        if not (isinstance(self.min_cm3, int | float) and 0 <= self.min_cm3 < 1e6):
            raise TypeError(f"min_cm3: expected 0 or more, found {self.min_cm3!r}")

    def to_json(self) -> dict:
        """Returns plain values, as postprocess.json holds them."""
        return asdict(self)


def load(version: str, organs: Organs) -> dict[str, Rule]:
    """Reads the rules of a model: organ to rule; {} if it has none."""
    path = directory.asset(version, directory.RULES)
    if not files.exists(path):
        return {}
    try:
        stored = json_files.read(path)["rules"]
        unknown = sorted(set(stored) - set(organs.names))
        rules = {name: Rule(**rule) for name, rule in stored.items()}
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: made by another version ({error}); tune again") from error
    if unknown:
        raise InputError(f"{path}: expected organs {', '.join(organs.names)}, found {unknown[0]}")
    return rules


def save(version: str, rules: dict[str, Rule], table: list[dict]) -> None:
    """Stores the rules with the model, and the table of all candidates."""
    stored = {name: rule.to_json() for name, rule in rules.items()}
    path = directory.asset(version, directory.RULES)
    json_files.write(path, {"rules": stored, "table": table})


def clear_leftovers(version: str) -> None:
    """Removes files of a `save` that was killed; the caller must hold the lock of the model."""
    path = directory.asset(version, directory.RULES)
    files.remove_partial(files.parent(path), f"-{directory.RULES}")


def apply(labels: LabelMap, rules: dict[str, Rule]) -> dict[str, Change]:
    """Applies the rules in place, to `labels.zyx`; returns the changes by organ.

    Neighbouring planes of the array are neighbours, whatever their distance. `labels.boxes` must
    not have been used, since it keeps its first result.
    """
    scan_cm3 = voxel_cm3(labels.grid.spacing_mm, labels.grid.planes)
    boxes, changes = label_boxes(labels.zyx), {}
    for name, rule in rules.items():
        value = labels.organs[name].label
        if value not in boxes:
            continue
        part = labels.zyx[boxes[value]]
        cm3 = scan_cm3[boxes[value][0]] if np.ndim(scan_cm3) else scan_cm3
        before = part == value
        after = clean(before, rule, cm3)
        filled = after & ~before & (part == BACKGROUND)
        removed = before & ~after
        part[removed], part[filled] = BACKGROUND, value
        if removed.any() or filled.any():
            changes[name] = Change(
                removed_cm3=round(volume_cm3(removed, cm3), 3),
                filled_cm3=round(volume_cm3(filled, cm3), 3),
                removed_pieces=int(ndimage.label(removed, _TOUCHING)[1]),
            )
    return changes


def clean(mask: np.ndarray, rule: Rule, cm3: float | np.ndarray) -> np.ndarray:
    """Applies a rule to the mask of an organ, bool [Z, Y, X]; returns a new mask.

    cm3: Volume of a voxel, see `segthor.planes.voxel_cm3`.
    """
    if rule.largest or rule.min_cm3:
        pieces, count = ndimage.label(mask, _TOUCHING)
        if np.ndim(cm3):
            volumes_cm3 = np.bincount(pieces.ravel(), np.broadcast_to(cm3, mask.shape).ravel())
        else:
            volumes_cm3 = np.bincount(pieces.ravel()) * cm3
        keep = np.arange(count + 1) > 0
        if rule.largest and count:
            keep &= np.arange(count + 1) == 1 + volumes_cm3[1:].argmax()
        keep[1:] &= volumes_cm3[1:] >= rule.min_cm3
        mask = keep[pieces]
    return ndimage.binary_fill_holes(mask) if rule.fill_holes else mask


def describe_rule(rule: dict) -> str:
    """Describes a rule for people; rule: Plain values, as `Rule.to_json` returns them."""
    parts = [
        "largest piece" if rule["largest"] else "",
        f"pieces from {rule['min_cm3']:g} cm3" if rule["min_cm3"] else "",
        "holes filled" if rule["fill_holes"] else "",
    ]
    return ", ".join(part for part in parts if part) or "as predicted"
