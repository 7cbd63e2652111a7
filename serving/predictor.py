"""From a scan in memory to its labels: prepare, networks in batches, decide, the way back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segthor import organs
from segthor.errors import InputError
from segthor.nifti import Scan
from segthor.recipe import Prepared, Recipe, prepare, with_context
from serving.bundle import PRESENCE, PROBABILITIES, Bundle

BATCH_SLICES = 16
GATE_THRESHOLD = 0.5


@dataclass(frozen=True)
class Input:
    """One patient as one recipe has it: the HU, and the same windowed, uint8 [Z, H, W]."""

    recipe: Recipe
    prepared: Prepared
    images: np.ndarray

    @classmethod
    def of(cls, recipe: Recipe, scan: Scan, masks: np.ndarray | None = None) -> "Input":
        """Raises InputError where the scan or the masks do not allow the recipe."""
        prepared = prepare(scan.array, scan.grid.affine, recipe, masks=masks)
        return cls(recipe, prepared, prepared.images(recipe))

    def batch(self, slices: range) -> np.ndarray:
        """uint8 [N, H, W, C]: these slices with their neighbours."""
        return np.stack([with_context(self.images, z, self.recipe.context) for z in slices])


@dataclass(frozen=True)
class Segmentation:
    """One patient's result. labels: uint8 [X, Y, Z]. level_hu: of the (first) model's window.

    probabilities: organ -> uint8 [X, Y, Z], 255 is certainty; empty unless asked for.
    """

    labels: np.ndarray
    level_hu: float
    probabilities: dict


class Ensemble:
    """Models that give one label map together.

    Models of the same organs (folds) are averaged. Those of different organs (one network per
    organ) are resolved by probability: of the organs that are likelier than their background, the
    likeliest takes the voxel.
    """

    def __init__(self, bundles: Sequence[Bundle], gate: Bundle | None = None, tta: bool = False):
        """gate: a classifier whose organs are emptied where it finds none. tta: average flips.

        Raises:
          InputError: a model without the output that is needed, one organ from two models of
            different organs, or models of the same organs with different recipes.
        """
        self.gate, self.tta = gate, tta
        self.groups: dict[tuple[str, ...], list[Bundle]] = {}
        for bundle in bundles:
            self.groups.setdefault(bundle.require(PROBABILITIES).organs, []).append(bundle)
        if gate:
            gate.require(PRESENCE)
        _check_groups(self.groups)

    @property
    def bundles(self) -> list[Bundle]:
        """Every model, the gate last."""
        return [b for group in self.groups.values() for b in group] + [self.gate] * bool(self.gate)

    @property
    def needs_masks(self) -> bool:
        """Whether a recipe takes level or centre from organs."""
        return any(bundle.recipe.needs_masks for bundle in self.bundles)

    def inputs(self, scan: Scan, masks: np.ndarray | None = None) -> dict[str, Input]:
        """Recipe digest -> the scan prepared so, for each recipe among the models."""
        recipes = {bundle.recipe.digest(): bundle.recipe for bundle in self.bundles}
        return {digest: Input.of(recipe, scan, masks) for digest, recipe in recipes.items()}

    def segment(self, inputs: dict[str, Input], probabilities: bool = False) -> Segmentation:
        """Runs every model batch by batch; memory beyond the result is that of a batch."""
        first = next(iter(inputs.values()))
        placement = first.prepared.placement
        labels = np.zeros(placement.planes_shape, np.uint8)
        maps = {name: np.zeros_like(labels) for name in self.organs} if probabilities else {}
        for start in range(0, len(labels), BATCH_SLICES):
            slices = range(start, min(start + BATCH_SLICES, len(labels)))
            part = slice(slices.start, slices.stop)
            best = np.zeros(labels[part].shape, np.float32)
            for names, bundles in self.groups.items():
                given = inputs[bundles[0].recipe.digest()]
                chances = self._average(bundles, given.batch(slices))
                if self.gate:
                    self._close(chances, names, inputs, slices)
                classes, shares = given.prepared.placement.most_probable(chances)
                wins = shares > best
                labels[part][wins] = bundles[0].labels[classes[wins]]
                best[wins] = shares[wins]
                if probabilities:
                    planes = given.prepared.placement.planes(chances[..., 1:])
                    for name, plane in zip(names, np.moveaxis(planes, 1, 0), strict=True):
                        maps[name][part] = np.rint(plane * 255)
        to_scan = placement.orientation.to_scan
        return Segmentation(
            to_scan(labels),
            first.prepared.level_hu,
            {name: to_scan(array) for name, array in maps.items()},
        )

    @property
    def organs(self) -> tuple[str, ...]:
        """The organs that are predicted, in the project's order."""
        found = {name for names in self.groups for name in names}
        return tuple(name for name in organs.NAMES if name in found)

    def _average(self, bundles: list[Bundle], batch: np.ndarray) -> np.ndarray:
        """float32 [N, H, W, K], the mean over models and flips."""
        total, count = 0, 0
        for bundle in bundles:
            for axes in _flips(bundle) if self.tta else [()]:
                total = total + np.flip(bundle.probabilities(np.flip(batch, axes)), axes)
                count += 1
        return total / np.float32(count) if count > 1 else total

    def _close(self, chances: np.ndarray, names, inputs, slices: range) -> None:
        """Slices that do not hold an organ: its probability falls to the others in proportion."""
        given = inputs[self.gate.recipe.digest()]
        presence = self.gate.presence(given.batch(slices))
        for index, name in enumerate(names, 1):
            if name in self.gate.organs:
                absent = presence[:, self.gate.organs.index(name)] < GATE_THRESHOLD
                closed = chances[absent]
                closed[..., index] = 0
                closed[..., 0] += closed.sum(-1) == 0
                chances[absent] = closed / closed.sum(-1, keepdims=True)


def flips_trained(bundle: Bundle) -> list[tuple[int, ...]]:
    """The axes of [N, H, W, C] along which the model saw flipped slices in training."""
    strengths = bundle.training.get("config", {}).get("augment", {})
    named = {"flip_left_right": 2, "flip_front_back": 1}
    return [(axis,) for name, axis in named.items() if strengths.get(name, 0) > 0]


def _flips(bundle: Bundle) -> list[tuple[int, ...]]:
    """As it is, and every flip known from training; left to right where none is."""
    single = flips_trained(bundle) or [(2,)]
    return [(), *single] + ([(1, 2)] if len(single) == 2 else [])


def _check_groups(groups) -> None:
    owners = {}
    for names, bundles in groups.items():
        for name in names:
            if name in owners:
                raise InputError(
                    f"{bundles[0].folder} and {owners[name].folder} both give {name} but not the "
                    "same organs; expected models of the same organs, or of different ones"
                )
            owners[name] = bundles[0]
        for bundle in bundles[1:]:
            if bundle.recipe != bundles[0].recipe:
                raise InputError(
                    f"{bundle.folder} and {bundles[0].folder} give the same organs but were "
                    "trained on different recipes; only models of one recipe can be averaged"
                )
