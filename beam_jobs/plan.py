"""Split and fold of each patient, and the shards that the patients are written to.

Both are pure functions of the patients' names, so that adding a patient moves no other one.
"""

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass

from segthor.errors import InputError
from segthor.manifest import TRAIN, VALIDATION
from segthor.patients import Patient
from segthor.recipe import Recipe

SEGTHOR_PATIENTS = 60  # 40 for training, 20 for testing, numbered through
# The eight validation patients, of the forty, of the original system (see --split).
ORIGINAL_VALIDATION = frozenset((1, 39, 34, 12, 17, 14, 15, 3))
SPLITS = ("auto", "original", "hash", "csv")
SHARD_BYTES = 200 * 2**20  # at most, for patients of the usual number of slices
_USUAL_SLICES = 177  # SegTHOR's median
_SEGTHOR_NAME = re.compile(r"patient_?(\d+)$", re.IGNORECASE)


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be written; the element of the pipeline, a few hundred bytes.

    name: Name of the shard without its digest.
    split: 'train' or 'validation'; 'unlabelled' for patients without contours.
    fold: Fold of cross-validation.
    patients: The patients, sorted by name.
    """

    name: str
    split: str
    fold: int
    patients: tuple[Patient, ...]


def choose_split(split: str, patients: list[Patient]) -> str:
    """The split that is used: 'csv', 'original' or 'hash', in this order for 'auto'.

    Raises:
      InputError: The patients have no split for 'csv', or other names than 'original' needs.
    """
    has_split = [bool(patient.split) for patient in patients]
    numbers = [_SEGTHOR_NAME.match(patient.name) for patient in patients]
    if split == "auto":
        if any(has_split):
            return choose_split("csv", patients)
        if not all(number and int(number[1]) <= SEGTHOR_PATIENTS for number in numbers):
            return "hash"
        held_out = [int(number[1]) in ORIGINAL_VALIDATION for number in numbers]
        return "original" if any(held_out) and not all(held_out) else "hash"
    if split == "csv" and not all(has_split):
        missing = patients[has_split.index(False)].name
        raise InputError(f"split csv: patient {missing} has no value in the column split")
    if split == "original" and not all(numbers):
        other = patients[numbers.index(None)].name
        raise InputError(
            f"split original: expected names like Patient_01, found {other}; use --split=hash"
        )
    return split


def assign_splits(
    patients: list[Patient], split: str, validation_fraction: float, folds: int, seed: int
) -> dict[str, tuple[str, int]]:
    """Patient's name to (split, fold).

    All cases of one person get the same. split: 'csv', 'original' or 'hash'.
    """
    assigned = {}
    for patient in patients:
        if split == "csv":
            held_out = patient.split == VALIDATION
        elif split == "original":
            held_out = int(_SEGTHOR_NAME.match(patient.name)[1]) in ORIGINAL_VALIDATION
        else:
            held_out = _hash(seed, "split", patient.person) < validation_fraction * 2**64
        fold = _hash(seed, "fold", patient.person) % folds
        assigned[patient.name] = (VALIDATION if held_out else TRAIN, fold)
    return assigned


def patients_per_shard(recipe: Recipe) -> int:
    """How many patients of median size fill a shard."""
    per_slice = recipe.size_px**2 * (recipe.context + 1)
    return max(1, SHARD_BYTES // (per_slice * _USUAL_SLICES))


def plan_shards(
    patients: list[Patient],
    assigned: dict[str, tuple[str, int]],
    max_patients: int,
    shards: int = 0,
    seed: int = 0,
) -> list[ShardPlan]:
    """Plans the shards, sorted by name; each holds patients of one split and fold.

    Within a split and fold the shards are the leaves of a binary trie over the hash of the
    patient's name, where a leaf of more than `max_patients` is divided. With `shards`, there are
    instead that many per split and fold, by the remainder of the hash.

    assigned: Patient's name to (split, fold).
    """
    groups = defaultdict(list)
    for patient in sorted(patients, key=lambda patient: patient.name):
        split, fold = assigned[patient.name]
        bits = _hash(seed, "shard", patient.name)
        groups[split, fold, str(bits % shards) if shards else ""].append((bits, patient))
    plans = []
    for (split, fold, number), members in groups.items():
        leaves = {number: members} if shards else _leaves(members, max_patients, "")
        for path, leaf in leaves.items():
            name = "-".join(filter(None, [split, f"fold{fold}", path]))
            plans.append(ShardPlan(name, split, fold, tuple(patient for _, patient in leaf)))
    return sorted(plans, key=lambda plan: plan.name)


def _leaves(members: list, max_patients: int, prefix: str) -> dict[str, list]:
    """Path of bits from the root of the trie -> (bits, patient) of each leaf."""
    if len(members) <= max_patients or len(prefix) == 64:
        return {prefix: members} if members else {}
    halves = {"0": [], "1": []}
    for bits, patient in members:
        halves[str(bits >> (63 - len(prefix)) & 1)].append((bits, patient))
    return {
        path: leaf
        for bit, half in halves.items()
        for path, leaf in _leaves(half, max_patients, prefix + bit).items()
    }


def _hash(seed: int, purpose: str, patient: str) -> int:
    """64 uniformly distributed bits."""
    text = f"{seed}/{purpose}/{patient}".encode(errors="surrogatepass")  # names that are not UTF-8
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
