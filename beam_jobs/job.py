"""What all patients and shards of one run share."""

from dataclasses import dataclass, field

from segthor.organs import Organs
from segthor.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """Everything but the patients that decides what is written.

    output: the dataset's folder. severities: (code, severity) that differ from the usual, sorted.
    label_values: (organ, value in the patients' label maps), where they are not the table's.
    roi_names: (organ, ROI name in structure sets) beyond the table's synonyms.
    most_scan_bytes: memory that one scan may fill; None: what the worker's machine has for it.
    """

    output: str
    recipe: Recipe
    seed: int = 0
    severities: tuple[tuple[str, str], ...] = ()
    label_values: tuple[tuple[str, int], ...] = ()
    roi_names: tuple[tuple[str, str], ...] = ()
    most_scan_bytes: int | None = None
    organs: Organs = field(kw_only=True)
