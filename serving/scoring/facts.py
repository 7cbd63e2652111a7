"""What the prediction job noted about one case."""

from dataclasses import dataclass, field

from segthor.errors import InputError
from segthor.organs import SEGTHOR, Organs
from serving.prediction import results


@dataclass(frozen=True)
class Facts:
    """organs: those that the model finds. failed: why there is no label map, or ''.

    level_hu, width_hu: the network's window, None where it is not known. postprocess: organ to what
    post-processing removed and filled, in cm3. review: see `serving.prediction.review`.
    """

    organs: tuple[str, ...] = SEGTHOR.names
    failed: str = ""
    level_hu: float | None = None
    width_hu: float | None = None
    postprocess: dict[str, dict[str, float]] = field(default_factory=dict)
    review: dict = field(default_factory=dict)


def read(folder: str, patient: str, organs: Organs = SEGTHOR) -> Facts:
    """The facts of a case; of a label map that came another way, all of the table's organs.

    Raises:
      InputError: a file of facts that serving.predict did not write.
    """
    noted = results.facts_of(folder, patient)
    if not _is_ours(noted, organs):
        raise InputError(
            f"{folder}: the facts of {patient} are not those that serving.predict writes; "
            "predict it again"
        )
    known = {name: noted[name] for name in Facts.__dataclass_fields__ if name in noted}
    found = known.get("organs", organs.names)
    known["organs"] = tuple(name for name in organs.names if name in found)
    return Facts(**known)


def _is_ours(noted, organs: Organs) -> bool:
    if not isinstance(noted, dict):
        return False
    changes = noted.get("postprocess", {})
    return (
        isinstance(noted.get("organs", []), list)
        and set(map(str, noted.get("organs", []))) <= set(organs.names)
        and isinstance(noted.get("failed", ""), str)
        and all(_is_number(noted[key]) for key in ("level_hu", "width_hu") if noted.get(key))
        and isinstance(changes, dict)
        and set(changes) <= set(organs.names)
        and all(map(_is_change, changes.values()))
        and _is_review(noted.get("review", {}), organs)
    )


def _is_review(review, organs: Organs) -> bool:
    """Whether a page can show it; facts from before there were reviews have none."""
    if review == {}:
        return True
    rows = review.get("organs") if isinstance(review, dict) else None
    return (
        isinstance(rows, dict)
        and set(rows) <= set(organs.names)
        and isinstance(review.get("reason"), str)
        and all(isinstance(review.get(key), bool) for key in ("review", "unlike_training"))
        and (review.get("expected_dice") is None or _is_number(review["expected_dice"]))
        and all(map(_is_reviewed_organ, rows.values()))
    )


def _is_reviewed_organ(row) -> bool:
    return (
        isinstance(row, dict)
        and isinstance(row.get("reason"), str)
        and isinstance(row.get("slices"), list)
        and all(isinstance(z, int) for z in row["slices"])
        and all(
            row.get(key) is None or _is_number(row[key]) for key in ("expected_dice", "lower_dice")
        )
    )


def _is_change(change) -> bool:
    return isinstance(change, dict) and all(
        _is_number(change.get(key)) for key in ("removed_cm3", "filled_cm3")
    )


def _is_number(value) -> bool:
    return isinstance(value, int | float) and abs(value) < float("inf")
