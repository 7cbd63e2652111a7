"""From a scan in memory to its labels: prepare, network in batches, the way back."""

from dataclasses import dataclass

import numpy as np

from segthor.nifti import Scan
from segthor.recipe import Prepared, prepare, with_context
from serving.bundle import Bundle

BATCH_SLICES = 16


@dataclass(frozen=True)
class Input:
    """What one bundle is given of one patient: the prepared HU and the same windowed, uint8."""

    prepared: Prepared
    images: np.ndarray


def prepare_input(bundle: Bundle, scan: Scan, masks: np.ndarray | None = None) -> Input:
    """The bundle's own recipe applied; raises InputError where the scan does not allow it."""
    prepared = prepare(scan.array, scan.grid.affine, bundle.recipe, masks=masks)
    return Input(prepared, prepared.images(bundle.recipe))


def segment(bundle: Bundle, given: Input) -> np.ndarray:
    """uint8 labels [X, Y, Z] on the scan's grid. Memory beyond that is a batch's."""
    placement, count = given.prepared.placement, len(given.images)
    planes = []
    for start in range(0, count, BATCH_SLICES):
        batch = _batch(given.images, range(start, min(start + BATCH_SLICES, count)), bundle)
        classes, _ = placement.most_probable(bundle.probabilities(batch))
        planes.append(bundle.labels[classes])
    return placement.orientation.to_scan(np.concatenate(planes))


def _batch(images: np.ndarray, slices: range, bundle: Bundle) -> np.ndarray:
    """uint8 [N, H, W, C]: these slices with their neighbours."""
    return np.stack([with_context(images, z, bundle.recipe.context) for z in slices])
