"""What all patients and shards of one build share."""

from dataclasses import dataclass, field

from segthor.organs import Organs
from segthor.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """Everything that decides what a build writes, except the patients.

    output: Folder of the dataset.
    recipe: How scans are prepared.
    seed: Decides the order of a shard's slices.
    severities: (code, severity) of findings that differ from the default, sorted.
    label_values: (organ, value) in the patients' label maps, where they differ from the table.
    roi_names: (organ, ROI name) in structure sets, in addition to the table's synonyms.
    most_scan_bytes: Memory that one scan may fill; None: `memory.scan_limit` of the worker.
    organs: The table of organs.
    """

    output: str
    recipe: Recipe
    seed: int = 0
    severities: tuple[tuple[str, str], ...] = ()
    label_values: tuple[tuple[str, int], ...] = ()
    roi_names: tuple[tuple[str, str], ...] = ()
    most_scan_bytes: int | None = None
    organs: Organs = field(kw_only=True)
