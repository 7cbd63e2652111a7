"""The label map under construction: what the networks give for some slices finds its place."""

from dataclasses import dataclass

import numpy as np

from segthor.geometry import Placement


@dataclass(frozen=True)
class Chances:
    """What the models of these organs give for some slices: float32 [N, H, W, K], averaged.

    labels: uint8 [K], what stands for each class. members: the same of each model and flip.
    """

    organs: tuple[str, ...]
    labels: np.ndarray
    values: np.ndarray
    members: list[np.ndarray]
    placement: Placement


class Prediction:
    """The label map under construction, uint8 [Z, Y, X] on the scan's grid."""

    def __init__(self, shape, mapped):
        """shape: Z, Y, X. mapped: the organs whose probabilities are kept."""
        self.labels = np.zeros(shape, np.uint8)
        self.maps = {name: np.zeros(shape, np.uint8) for name in mapped}

    def place(self, slices: range, given: list[Chances]) -> None:
        """Of the organs likelier than their background, the likeliest takes each voxel."""
        part = slice(slices.start, slices.stop)
        best = None
        for one in given:
            found, shares = one.placement.most_probable(one.values, one.labels)
            if best is None:
                self.labels[part], best = found, shares
            else:
                wins = shares > best
                self.labels[part][wins], best[wins] = found[wins], shares[wins]
            if self.maps:
                planes = one.placement.planes(one.values[..., 1:])
                for name, plane in zip(one.organs, np.moveaxis(planes, 1, 0), strict=True):
                    self.maps[name][part] = np.rint(plane * 255)
