"""Measures a CT and its contours; `segthor.audit` checks the figures. Numpy and scipy only."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segthor import ignored
from segthor.boxes import MemoryOrder, with_margin
from segthor.volume import LabelMap, Volume

PADDING_HU = -1024  # neither air nor tissue has values below
_ODD_HU = -1100
_AIR_AND_LUNG_HU = (-1050, -700)
_SOFT_TISSUE_HU = (-150, 150)
_SAMPLED_SLICES = 12


@dataclass(frozen=True)
class ImageFigures:
    """Figures of a CT's values. Shares are of the voxels in a sample of slices.

    lowest, highest: Smallest and largest value of all voxels.
    padding_share: Share below PADDING_HU.
    odd_share: Share well below PADDING_HU with another value than the padding.
    air_share: Share with the HU of air and lung.
    tissue_share: Share with the HU of soft tissue.
    """

    lowest: float
    highest: float
    padding_share: float
    odd_share: float
    air_share: float
    tissue_share: float


@dataclass(frozen=True)
class OrganFigures:
    """Figures of one contoured organ.

    volume_cm3: Volume.
    extent_z_mm: Length along the body.
    mean_hu: Mean HU.
    components: Number of connected components.
    gaps: Number of slices without the organ between slices with it.
    center_lps_mm: Centre of mass towards left, posterior and superior, from the centre of the
      voxel that is the first in [Z, Y, X].
    gap_runs: Number of runs of such slices.
    slices: Number of slices from the first to the last one with the organ.
    """

    volume_cm3: float
    extent_z_mm: float
    mean_hu: float
    components: int
    gaps: int
    center_lps_mm: tuple[float, float, float]
    gap_runs: int = 0
    slices: int = 0


def measure_image(hu: np.ndarray) -> ImageFigures:
    """Figures of a CT [Z, Y, X] whose values are all finite."""
    step = max(1, len(hu) // _SAMPLED_SLICES)
    sample = _in_memory_order(hu[step // 2 :: step])
    shares = {
        "padding_share": np.count_nonzero(sample < PADDING_HU),
        "odd_share": _count_odd(sample[sample < _ODD_HU]),
        "air_share": _count_between(sample, *_AIR_AND_LUNG_HU),
        "tissue_share": _count_between(sample, *_SOFT_TISSUE_HU),
    }
    shares = {name: count / sample.size for name, count in shares.items()}
    whole = _in_memory_order(hu)
    return ImageFigures(lowest=float(whole.min()), highest=float(whole.max()), **shares)


def measure_organs(volume: Volume, labels: LabelMap) -> dict[str, OrganFigures]:
    """Organ's name to figures, for organs of the table that have a voxel and are not cut."""
    cut = find_cut_organs(labels) or ()
    return {
        organ.name: _measure_organ(volume, labels, organ.label)
        for organ in labels.organs
        if organ.label in labels.boxes and organ.name not in cut
    }


def find_cut_organs(labels: LabelMap) -> tuple[str, ...] | None:
    """Names of the organs with a voxel next to an ignored one; None where no voxel is ignored.

    Such an organ may continue in the ignored voxels, so figures of its labels would be wrong.
    """
    if not labels.has_ignored:
        return None
    present = [organ for organ in labels.organs if organ.label in labels.boxes]
    return tuple(organ.name for organ in present if _is_cut(labels, organ.label))


def _is_cut(labels: LabelMap, label: int) -> bool:
    box = with_margin(labels.boxes[label], (1, 1, 1), labels.zyx.shape)
    near = ndimage.binary_dilation(labels.zyx[box] == label, np.ones((3, 3, 3)))
    return bool((labels.zyx[box][near] == ignored.LABEL).any())


def _measure_organ(volume: Volume, labels: LabelMap, label: int) -> OrganFigures:
    box, spacing_mm, planes = labels.boxes[label], volume.spacing_mm, volume.grid.planes
    mask = labels.zyx[box] == label
    values = volume.zyx[box][mask]
    counts = _counts_along(mask)  # voxels at each position along z, y, x
    center_mm = [
        spacing * np.average(part.start + np.arange(len(count)), weights=count)
        for spacing, part, count in zip(spacing_mm, box, counts, strict=True)
    ]
    volume_cm3 = len(values) * float(np.prod(spacing_mm)) / 1000
    length_mm, mean_hu = len(counts[0]) * spacing_mm[0], values.mean(dtype=np.float64)
    if planes:  # each voxel is as thick as its plane
        thickness = planes.thickness_mm[box[0]]
        weights = counts[0] * thickness
        center_mm[0] = np.average(np.array(planes.offsets_mm)[box[0]], weights=weights)
        volume_cm3 = float(weights.sum() * np.prod(spacing_mm[1:])) / 1000
        length_mm = thickness.sum()
        mean_hu = np.average(values, weights=np.repeat(thickness, counts[0]))
    return OrganFigures(
        volume_cm3=round(volume_cm3, 2),
        extent_z_mm=round(float(length_mm), 1),
        mean_hu=round(float(mean_hu), 1),
        components=_components(mask),
        gaps=int(np.count_nonzero(counts[0] == 0)),
        center_lps_mm=tuple(round(float(mm), 1) for mm in reversed(center_mm)),
        gap_runs=int(np.count_nonzero((counts[0][1:] == 0) & (counts[0][:-1] > 0))),
        slices=len(counts[0]),
    )


def _in_memory_order(array: np.ndarray) -> np.ndarray:
    return MemoryOrder.of(array).view(array)


def _components(mask: np.ndarray) -> int:
    """Number of connected components, where voxels that share a corner are connected."""
    # Connection by faces is fast to compute; one component is one by either rule.
    by_faces = ndimage.label(mask)[1]
    return int(by_faces if by_faces < 2 else ndimage.label(mask, np.ones((3, 3, 3)))[1])


def _counts_along(mask: np.ndarray) -> list[np.ndarray]:
    over_first = mask.sum(0, dtype=np.int32)
    return [mask.sum((1, 2), dtype=np.int32), over_first.sum(1), over_first.sum(0)]


def _count_odd(values: np.ndarray) -> int:
    """Number of values that differ from their median, which is the value of the padding."""
    some = np.sort(values[:: max(1, len(values) // 1000)])
    return int(np.count_nonzero(values != some[len(some) // 2])) if len(some) else 0


def _count_between(values, low, high) -> int:
    return int(np.count_nonzero((values >= low) & (values <= high)))
