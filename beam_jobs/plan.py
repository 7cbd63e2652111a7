"""Who goes where: split and fold of each patient, and the shards they are written to.

All of it is a pure function of the patients' names, so that an added patient moves nobody else.
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
# The original system's eight validation patients of the forty.
ORIGINAL_VALIDATION = frozenset((1, 39, 34, 12, 17, 14, 15, 3))
SPLITS = ("auto", "original", "hash", "csv")
SHARD_BYTES = 200 * 2**20  # at most, for patients of the usual number of slices
_USUAL_SLICES = 177  # SegTHOR's median
_SEGTHOR_NAME = re.compile(r"patient_?(\d+)$", re.IGNORECASE)


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be written: the pipeline's element, a few hundred bytes."""

    name: str
    split: str
    fold: int
    patients: tuple[Patient, ...]


def choose_split(split: str, patients: list[Patient]) -> str:
    """What 'auto' stands for: the CSV's own, else the original lists, else the hash.

    Raises:
      InputError: 'csv' or 'original' where the patients do not allow it.
    """
    told = [bool(patient.split) for patient in patients]
    numbers = [_SEGTHOR_NAME.match(patient.name) for patient in patients]
    if split == "auto":
        if any(told):
            return choose_split("csv", patients)
        if not all(number and int(number[1]) <= SEGTHOR_PATIENTS for number in numbers):
            return "hash"
        held_out = [int(number[1]) in ORIGINAL_VALIDATION for number in numbers]
        return "original" if any(held_out) and not all(held_out) else "hash"
    if split == "csv" and not all(told):
        silent = patients[told.index(False)].name
        raise InputError(f"split csv: patient {silent} has no value in the column split")
    if split == "original" and not all(numbers):
        other = patients[numbers.index(None)].name
        raise InputError(
            f"split original: expected names like Patient_01, found {other}; use --split=hash"
        )
    return split


def deal(
    patients: list[Patient], split: str, validation_fraction: float, folds: int, seed: int
) -> dict[str, tuple[str, int]]:
    """Patient name to (split, fold). split: as `choose_split` gives it."""
    dealt = {}
    for patient in patients:
        if split == "csv":
            held_out = patient.split == VALIDATION
        elif split == "original":
            held_out = int(_SEGTHOR_NAME.match(patient.name)[1]) in ORIGINAL_VALIDATION
        else:
            held_out = _hash(seed, "split", patient.person) < validation_fraction * 2**64
        fold = _hash(seed, "fold", patient.person) % folds
        dealt[patient.name] = (VALIDATION if held_out else TRAIN, fold)
    return dealt


def patients_per_shard(recipe: Recipe) -> int:
    """How many patients of usual size fill a shard."""
    per_slice = recipe.size_px**2 * (recipe.context + 1)
    return max(1, SHARD_BYTES // (per_slice * _USUAL_SLICES))


def plan_shards(
    patients: list[Patient],
    dealt: dict[str, tuple[str, int]],
    most: int,
    shards: int = 0,
    seed: int = 0,
) -> list[ShardPlan]:
    """The shards, sorted by name; each holds patients of one split and fold, sorted by name.

    Within a split and fold the shards are the leaves of a binary trie over the hash of the
    patient's name: a leaf of more than `most` patients is cut in two. shards: instead, that many
    per split and fold by the hash's remainder.
    """
    groups = defaultdict(list)
    for patient in sorted(patients, key=lambda patient: patient.name):
        split, fold = dealt[patient.name]
        mark = _hash(seed, "shard", patient.name)
        groups[split, fold, str(mark % shards) if shards else ""].append((mark, patient))
    plans = []
    for (split, fold, part), members in groups.items():
        leaves = {part: members} if shards else _leaves(members, most, "")
        for leaf, held in leaves.items():
            name = "-".join(filter(None, [split, f"fold{fold}", leaf]))
            plans.append(ShardPlan(name, split, fold, tuple(patient for _, patient in held)))
    return sorted(plans, key=lambda plan: plan.name)


def _leaves(members: list, most: int, prefix: str) -> dict[str, list]:
    """Path of bits from the root to the members of each leaf."""
    if len(members) <= most or len(prefix) == 64:
        return {prefix: members} if members else {}
    halves = {"0": [], "1": []}
    for mark, patient in members:
        halves[str(mark >> (63 - len(prefix)) & 1)].append((mark, patient))
    return {
        path: leaf
        for bit, half in halves.items()
        for path, leaf in _leaves(half, most, prefix + bit).items()
    }


def _hash(seed: int, purpose: str, patient: str) -> int:
    """64 evenly distributed bits."""
    text = f"{seed}/{purpose}/{patient}".encode(errors="surrogatepass")  # of any file's name
    return int.from_bytes(hashlib.sha256(text).digest()[:8])
