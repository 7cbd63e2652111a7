"""Describes the patients of a dataset for the model card: counts, and ranges over the patients."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from segthor import files, outputs
from segthor.manifest import TRAIN, VALIDATION, Dataset

_CONTRAST_HU = 100  # blood without contrast agent has 30 to 60 HU
_LEVELS = (0, 50, 100)  # percentiles: lowest, median, highest


def describe(dataset: Dataset, record) -> dict:
    """Describes the training and the held-out patients, from the manifest."""
    fold = record.config.held_out_fold
    described = {}
    for split in (TRAIN, VALIDATION):
        named = {name for shard in dataset.shards_of(split, fold) for name in shard.patients}
        rows = [row for row in dataset.patients if row.patient in named]
        described[split] = _of_patients(rows, record.organs)
    return {
        **described,
        "rejected": len(dataset.rejected),
        "train_patients": record.config.train_patients or None,
        "phantoms": _are_phantoms(dataset),
    }


def _of_patients(rows, organs) -> dict:
    placements = [row.placement for row in rows]
    scans = {
        "slice_mm": [place.spacing_zyx_mm[0] for place in placements],
        "pixel_mm": [place.spacing_zyx_mm[2] for place in placements],
        "field_of_view_mm": [p.spacing_zyx_mm[2] * p.shape_zyx[2] for p in placements],
        "length_mm": [p.spacing_zyx_mm[0] * p.shape_zyx[0] for p in placements],
        "slices": [row.slices for row in rows],
        "level_hu": [row.level_hu for row in rows],
    }
    return {
        "patients": len(rows),
        "slices": sum(row.slices for row in rows),
        "scans": {name: _levels(values) for name, values in scans.items()},
        "organs": {name: _of_organ(rows, name) for name in organs},
        "findings": _count(finding.code for row in rows for finding in row.audit.findings),
        "acquisition": {
            name: _count(row.acquisition.get(name, "not known") for row in rows)
            for name in sorted({name for row in rows for name in row.acquisition})
        },
    }


def _of_organ(rows, name: str) -> dict:
    contoured = [row for row in rows if name in row.organs]
    measured = [row.audit.organs[name] for row in contoured if name in row.audit.organs]
    return {
        "patients": len(contoured),
        "volume_cm3": _levels(one.volume_cm3 for one in measured),
        "mean_hu": _levels(one.mean_hu for one in measured),
        "above_contrast_hu": sum(one.mean_hu >= _CONTRAST_HU for one in measured),
    }


def _levels(values: Iterable[float]) -> list[float] | None:
    """Lowest, median and highest; None of no values."""
    values = list(values)
    return [round(float(x), 2) for x in np.percentile(values, _LEVELS)] if values else None


def _count(codes) -> dict[str, int]:
    return dict(sorted(Counter(codes).items()))


def _are_phantoms(dataset: Dataset) -> bool:
    """Whether the patients are those of segthor.phantom, whose folder says so."""
    folder = dataset.patients[0].ct
    for _ in range(3):  # FOLDER/train/PATIENT/FILE
        folder = files.parent(folder)
        if folder and outputs.result_in(folder) == outputs.PHANTOMS:
            return True
    return False
