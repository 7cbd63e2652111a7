"""The label map under construction: places the networks' probabilities on the scan's grid."""

from dataclasses import dataclass

import numpy as np

from segthor.geometry import Placement


@dataclass(frozen=True)
class GroupProbabilities:
    """Probabilities of some slices, from the models of one group of organs.

    organs: Names of the classes after the background.
    labels: uint8 [K], label value of each class.
    values: float32 [N, H, W, K], averaged over models and flips.
    members: float32 [N, H, W, K] of each model and flip.
    placement: From the network's grid to that of the scan.
    """

    organs: tuple[str, ...]
    labels: np.ndarray
    values: np.ndarray
    members: list[np.ndarray]
    placement: Placement


class Prediction:
    """The label map under construction.

    labels: uint8 [Z, Y, X] on the scan's grid.
    maps: Organ to its probability, uint8 [Z, Y, X], where 255 is 1.
    """

    def __init__(self, shape, mapped):
        """Makes an empty label map.

        shape: Z, Y, X.
        mapped: Names of the organs whose probabilities are kept.
        """
        self.labels = np.zeros(shape, np.uint8)
        self.maps = {name: np.zeros(shape, np.uint8) for name in mapped}

    def place(self, slices: range, groups: list[GroupProbabilities]) -> None:
        """Places the probabilities of some slices, of all groups.

        Each voxel gets the most probable of the organs that are more probable than the background
        of their group.
        """
        part = slice(slices.start, slices.stop)
        best = None
        for group in groups:
            labels, probabilities = group.placement.most_probable(group.values, group.labels)
            if best is None:
                self.labels[part], best = labels, probabilities
            else:
                wins = probabilities > best
                self.labels[part][wins], best[wins] = labels[wins], probabilities[wins]
            if self.maps:
                planes = group.placement.planes(group.values[..., 1:])
                for name, plane in zip(group.organs, np.moveaxis(planes, 1, 0), strict=True):
                    self.maps[name][part] = np.rint(plane * 255)
