"""What the prediction job noted about one case."""

from dataclasses import dataclass, field

from segthor import organs
from segthor.errors import InputError
from serving.prediction import results


@dataclass(frozen=True)
class Facts:
    """organs: those that the model finds. failed: why there is no label map, or ''.

    level_hu, width_hu: the network's window, None where it is not known. postprocess: organ to what
    post-processing removed and filled, in cm3.
    """

    organs: tuple[str, ...] = organs.NAMES
    failed: str = ""
    level_hu: float | None = None
    width_hu: float | None = None
    postprocess: dict[str, dict[str, float]] = field(default_factory=dict)


def read(folder: str, patient: str) -> Facts:
    """The facts of a case; the defaults where its label map came another way.

    Raises:
      InputError: a file of facts that serving.predict did not write.
    """
    noted = results.facts_of(folder, patient)
    if not _is_ours(noted):
        raise InputError(
            f"{folder}: the facts of {patient} are not those that serving.predict writes; "
            "predict it again"
        )
    known = {name: noted[name] for name in Facts.__dataclass_fields__ if name in noted}
    if "organs" in known:
        known["organs"] = tuple(name for name in organs.NAMES if name in known["organs"])
    return Facts(**known)


def _is_ours(noted) -> bool:
    if not isinstance(noted, dict):
        return False
    changes = noted.get("postprocess", {})
    return (
        isinstance(noted.get("organs", []), list)
        and set(map(str, noted.get("organs", []))) <= set(organs.NAMES)
        and isinstance(noted.get("failed", ""), str)
        and all(_is_number(noted[key]) for key in ("level_hu", "width_hu") if noted.get(key))
        and isinstance(changes, dict)
        and all(_is_change(organ, change) for organ, change in changes.items())
    )


def _is_change(organ: str, change) -> bool:
    return (
        organ in organs.NAMES
        and isinstance(change, dict)
        and all(_is_number(change.get(key)) for key in ("removed_cm3", "filled_cm3"))
    )


def _is_number(value) -> bool:
    return isinstance(value, int | float) and abs(value) < float("inf")
