"""What a CT and its contours measure: the numbers that `segthor.audit` judges. Numpy and scipy."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segthor import ignored
from segthor.boxes import MemoryOrder, with_margin
from segthor.volume import LabelMap, Volume

PADDING_HU = -1024  # below it lies what no tissue or air has
_ODD_HU = -1100
_AIR_AND_LUNG_HU = (-1050, -700)
_SOFT_TISSUE_HU = (-150, 150)
_SAMPLED_SLICES = 12


@dataclass(frozen=True)
class ImageFigures:
    """What the values of a CT measure.

    lowest, highest: Of all voxels.
    padding_share: Share of voxels below PADDING_HU, of some of the slices, as all shares.
    odd_share: Share well below it whose value is not the one of the padding.
    air_share: Share at the HU of air and lung.
    tissue_share: Share at the HU of soft tissue.
    """

    lowest: float
    highest: float
    padding_share: float
    odd_share: float
    air_share: float
    tissue_share: float


@dataclass(frozen=True)
class OrganFigures:
    """What one contoured organ measures.

    volume_cm3: Volume.
    extent_z_mm: Length along the body.
    mean_hu: Mean HU.
    components: Number of pieces.
    gaps: Slices without the organ between slices with it.
    gap_runs: Runs of these slices.
    slices: Number of slices from the first to the last one with the organ.
    center_lps_mm: Centre of mass from the scan's rightmost, foremost, lowest voxel towards left,
      posterior, superior.
    """

    volume_cm3: float
    extent_z_mm: float
    mean_hu: float
    components: int
    gaps: int
    center_lps_mm: tuple[float, float, float]
    gap_runs: int = 0
    slices: int = 0


def of_image(hu: np.ndarray) -> ImageFigures:
    """Figures of a CT [Z, Y, X] without infinite or undefined values."""
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


def of_organs(volume: Volume, labels: LabelMap) -> dict[str, OrganFigures]:
    """Organ name to figures, for every organ of the table that has a voxel and is not cut."""
    cut = cut_organs(labels) or ()
    return {
        organ.name: _of_organ(volume, labels, organ.label)
        for organ in labels.organs
        if organ.label in labels.boxes and organ.name not in cut
    }


def cut_organs(labels: LabelMap) -> tuple[str, ...] | None:
    """The organs with a voxel beside an ignored one; None where no voxel is ignored.

    How far such an organ reaches is not known, so that its figures would be those of a part.
    """
    if not labels.has_ignored:
        return None
    present = [organ for organ in labels.organs if organ.label in labels.boxes]
    return tuple(organ.name for organ in present if _is_cut(labels, organ.label))


def _is_cut(labels: LabelMap, label: int) -> bool:
    box = with_margin(labels.boxes[label], (1, 1, 1), labels.zyx.shape)
    near = ndimage.binary_dilation(labels.zyx[box] == label, np.ones((3, 3, 3)))
    return bool((labels.zyx[box][near] == ignored.LABEL).any())


def _of_organ(volume: Volume, labels: LabelMap, label: int) -> OrganFigures:
    box, spacing_mm = labels.boxes[label], volume.spacing_mm
    mask = labels.zyx[box] == label
    values = volume.zyx[box][mask]
    counts = _counts_along(mask)  # voxels at each position along z, y, x
    center_mm = [
        spacing * np.average(part.start + np.arange(len(count)), weights=count)
        for spacing, part, count in zip(spacing_mm, box, counts, strict=True)
    ]
    return OrganFigures(
        volume_cm3=round(len(values) * float(np.prod(spacing_mm)) / 1000, 2),
        extent_z_mm=round(float(len(counts[0]) * spacing_mm[0]), 1),
        mean_hu=round(float(values.mean(dtype=np.float64)), 1),
        components=_components(mask),
        gaps=int(np.count_nonzero(counts[0] == 0)),
        center_lps_mm=tuple(round(float(mm), 1) for mm in reversed(center_mm)),
        gap_runs=int(np.count_nonzero((counts[0][1:] == 0) & (counts[0][:-1] > 0))),
        slices=len(counts[0]),
    )


def _in_memory_order(array: np.ndarray) -> np.ndarray:
    return MemoryOrder.of(array).view(array)


def _components(mask: np.ndarray) -> int:
    """How many pieces there are; voxels that touch by a corner belong together."""
    by_faces = ndimage.label(mask)[1]  # quick, and one piece is one by any measure
    return int(by_faces if by_faces < 2 else ndimage.label(mask, np.ones((3, 3, 3)))[1])


def _counts_along(mask: np.ndarray) -> list[np.ndarray]:
    over_first = mask.sum(0, dtype=np.int32)
    return [mask.sum((1, 2), dtype=np.int32), over_first.sum(1), over_first.sum(0)]


def _count_odd(values: np.ndarray) -> int:
    """How many differ from the most usual one, which is the median wherever it is padding."""
    some = np.sort(values[:: max(1, len(values) // 1000)])
    return int(np.count_nonzero(values != some[len(some) // 2])) if len(some) else 0


def _count_between(values, low, high) -> int:
    return int(np.count_nonzero((values >= low) & (values <= high)))
