"""What NIfTI can hold of a prediction: it has no planes at uneven steps."""

from dataclasses import replace

from segthor.planes import Planes
from segthor.volume import Grid, LabelMap
from serving.prediction.facts import Facts


def fit_to_nifti(
    labels: LabelMap, known: Facts, maps: dict, resample_z: bool
) -> tuple[LabelMap | None, Facts, dict]:
    """Puts a prediction on a grid that NIfTI can hold; None: there is no such label map."""
    planes = labels.grid.planes
    if not planes:
        return labels, known, maps
    if not resample_z:
        return None, replace(known, uneven=explain_no_label_map(labels.grid)), {}
    maps = {name: zyx[planes.to_even] for name, zyx in maps.items()}
    labels = replace(labels, zyx=labels.zyx[planes.to_even], grid=labels.grid.even())
    return labels, replace(known, uneven=_describe_resampling(planes)), maps


def explain_no_label_map(grid: Grid) -> str:
    """Explains why a scan with uneven planes has no label map in NIfTI, and what to do."""
    return (
        f"no label map in NIfTI: it cannot hold planes at steps of {grid.planes.step_range}; "
        "--resample_z writes one on an even grid, --formats=rtstruct,seg the planes as they are"
    )


def _describe_resampling(planes: Planes) -> str:
    return (
        f"label map in NIfTI resampled from {len(planes.offsets_mm)} planes at steps of "
        f"{planes.step_range} to {planes.even_count} slices of {planes.even_step_mm:.4g} mm, each "
        "that of the nearest plane"
    )
