"""From a scan in memory to its labels: prepare, networks in batches, decide, the way back."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool

import numpy as np

from segthor.errors import InputError
from segthor.organs import Organs
from segthor.recipe import Prepared, Recipe, prepare, with_context
from segthor.volume import LabelMap, Volume
from serving.prediction import flips
from serving.prediction.bundle import PRESENCE, PROBABILITIES, Bundle, label_values
from serving.prediction.engine import BATCH_SLICES, BATCHES_AT_ONCE
from serving.prediction.volume import Chances, Prediction

GATE_THRESHOLD = 0.5
# Float32 sums over a few classes are exact to 1e-6; a network trained in half precision but
# exported in float32 is as exact. What is further off was not made by a softmax.
_PROBABILITY_SLACK = 1e-3


@dataclass(frozen=True)
class Input:
    """One patient as one recipe has it."""

    recipe: Recipe
    prepared: Prepared

    def batch(self, slices: range) -> np.ndarray:
        """uint8 [N, H, W, C]: these slices with their neighbours."""
        images = self.prepared.images
        return np.stack([with_context(images, z, self.recipe.context) for z in slices])


@dataclass(frozen=True)
class Segmentation:
    """What the models give for one patient.

    labels: uint8 [Z, Y, X] on the scan's grid.
    level_hu, width_hu: The window of the (first) model.
    probabilities: Organ -> uint8 [Z, Y, X], 255 is certainty; empty unless asked for.
    """

    labels: np.ndarray
    level_hu: float
    width_hu: float
    probabilities: dict


class Ensemble:
    """Models that give one label map together.

    Models of the same organs (folds) are averaged. Those of different organs (one network per
    organ) are resolved by probability: of the organs that are likelier than their background, the
    likeliest takes the voxel.
    """

    def __init__(self, bundles: Sequence[Bundle], gate: Bundle | None = None, tta: bool = False):
        """Checks that the models fit together.

        gate: a classifier; its organs are removed from slices where it finds none of them.
        tta: whether to average over the flips that each model saw in training.

        Raises:
          InputError: a model without the output that is needed, one organ from two models of
            different organs, models of the same organs with different recipes, models that number
            organs differently, or tta with a model that cannot be averaged over flips.
        """
        self.gate, self.tta = gate, tta
        self.groups: dict[tuple[str, ...], list[Bundle]] = {}
        for bundle in bundles:
            self.groups.setdefault(bundle.require(PROBABILITIES).organs, []).append(bundle)
        if gate:
            gate.require(PRESENCE)
        _check_groups(self.groups)
        check_tables(self.bundles)
        # By the model's folder.
        self._flips = {
            m.folder: flips.of_model(m) if tta else [flips.NONE] for m in self.segmenters
        }

    @property
    def bundles(self) -> list[Bundle]:
        """Every model, the gate last."""
        return self.segmenters + [self.gate] * bool(self.gate)

    def rules(self) -> dict:
        """Organ -> the post-processing stored with the models of this organ.

        Raises:
          InputError: models that are averaged store different rules, so that none is theirs.
        """
        for first, *others in self.groups.values():
            for other in others:
                if other.rules != first.rules:
                    raise InputError(
                        f"{first.folder} and {other.folder} store different post-processing; tune "
                        "them together (serving.tune --model=...,...) or predict with "
                        "--nopostprocess"
                    )
        return {
            name: group[0].rules[name]
            for names, group in self.groups.items()
            for name in names
            if name in group[0].rules
        }

    @property
    def flips(self) -> list | bool:
        """The axes of each model's flips, for the job's settings; False without tta."""
        flips_of = [self._flips[one.folder] for one in self.segmenters]
        return self.tta and [[list(flip.axes) for flip in own] for own in flips_of]

    @property
    def segmenters(self) -> list[Bundle]:
        """Every model that outlines organs."""
        return [bundle for group in self.groups.values() for bundle in group]

    @property
    def needs_masks(self) -> bool:
        """Whether a recipe takes level or centre from organs."""
        return any(bundle.recipe.needs_masks for bundle in self.bundles)

    def inputs(self, scan: Volume, masks: LabelMap | None = None) -> dict[str, Input]:
        """Recipe digest -> the scan prepared so, for each recipe among the models.

        masks: labels that give level and centre where a recipe takes them from organs.

        Raises InputError where the scan or the masks do not allow a recipe.
        """
        recipes = {bundle.recipe.digest(): bundle.recipe for bundle in self.bundles}
        return {
            digest: Input(recipe, prepare(scan, recipe, masks=masks))
            for digest, recipe in recipes.items()
        }

    def first(self, inputs: dict[str, Input]) -> Prepared:
        """The scan as the first model's recipe prepares it."""
        return inputs[self.segmenters[0].recipe.digest()].prepared

    def segment(
        self, inputs: dict[str, Input], probabilities: bool = False, observe=None
    ) -> Segmentation:
        """Runs every model batch by batch; memory beyond the result is that of some batches.

        The probabilities of one batch are placed on the scan's grid while the next ones run.

        probabilities: Whether to keep a map of each organ's probability.
        observe: Called with (slices, organs, mean, members) of each batch, before it is placed.
        """
        groups = [(n, group, inputs[group[0].recipe.digest()]) for n, group in self.groups.items()]
        gated = self.gate and inputs[self.gate.recipe.digest()]
        first, width_hu = self.first(inputs), self.segmenters[0].recipe.window_width_hu
        mapped = self.organs if probabilities else ()
        result = Prediction(first.placement.shape_zyx, mapped)
        engine, number = self.segmenters[0].engine, len(result.labels)
        size, running = BATCH_SLICES[engine], deque()
        most_running = BATCHES_AT_ONCE[engine] + 1  # one waits, so that no thread does
        # Not an executor, whose threads would keep a process alive where a case is given up.
        with ThreadPool(BATCHES_AT_ONCE[engine]) as networks:
            for start in range(0, number, size):
                slices = range(start, min(start + size, number))
                running.append((slices, networks.apply_async(self._run, (groups, gated, slices))))
                while len(running) > (most_running if slices.stop < number else 0):
                    placed, batch = running.popleft()
                    chances = batch.get()
                    for one in chances if observe else ():
                        observe(placed, one.organs, one.values, one.members)
                    result.place(placed, chances)
        return Segmentation(result.labels, first.level_hu, width_hu, result.maps)

    @property
    def organs(self) -> tuple[str, ...]:
        """The organs that are predicted, in the table's order."""
        found = {name for names in self.groups for name in names}
        return tuple(name for name in self.table.names if name in found)

    @property
    def table(self) -> Organs:
        """What the label values stand for."""
        return self.segmenters[0].table

    def _run(self, groups, gated: Input | None, slices: range) -> list[Chances]:
        return [self._run_group(*group, gated, slices) for group in groups]

    def _run_group(
        self, names, bundles, given: Input, gated: Input | None, slices: range
    ) -> Chances:
        members = self._members(bundles, given.batch(slices), slices)
        several = len(members) > 1  # else the one is its own mean
        found = [sum(members) / np.float32(len(members)), *members] if several else members
        if self.gate:
            absent = self._absent(names, gated, slices)
            found = [_closed(chances, absent) for chances in found]
        labels = label_values(names, self.table)
        return Chances(names, labels, found[0], found[several:], given.prepared.placement)

    def _members(self, bundles, batch: np.ndarray, slices: range) -> list[np.ndarray]:
        """float32 [N, H, W, K] of each model and flip."""
        members = []
        for bundle in bundles:
            for flip in self._flips[bundle.folder]:
                probabilities = bundle.probabilities(np.flip(batch, flip.axes))
                _check_probabilities(probabilities, bundle, slices)
                members.append(flip.undo(probabilities))
        return members

    def _absent(self, names, given: Input, slices: range) -> dict[int, np.ndarray]:
        """Class -> bool [N], the slices in which the gate finds no such organ."""
        presence = self.gate.presence(given.batch(slices))
        wrong = ~((presence >= -_PROBABILITY_SLACK) & (presence <= 1 + _PROBABILITY_SLACK)).all(-1)
        _refuse(wrong, self.gate, slices, "presences from 0 to 1")
        return {
            index: presence[:, self.gate.organs.index(name)] < GATE_THRESHOLD
            for index, name in enumerate(names, 1)
            if name in self.gate.organs
        }


def _closed(chances: np.ndarray, absent: dict[int, np.ndarray]) -> np.ndarray:
    """Where a class is absent, its probability falls to the others in proportion."""
    chances = chances.copy()
    for index, slices in absent.items():
        closed = chances[slices]
        closed[..., index] = 0
        closed[..., 0] += closed.sum(-1) == 0
        chances[slices] = closed / closed.sum(-1, keepdims=True)
    return chances


def _check_probabilities(values: np.ndarray, bundle: Bundle, slices: range) -> None:
    """Raises InputError where the network gave what no softmax gives; NaN compares as false."""
    # A product adds up a few classes far faster than numpy's sum along them.
    sums = (values @ np.ones(values.shape[-1], np.float32)).reshape(len(values), -1)
    right = np.abs(sums - 1).max(1) <= _PROBABILITY_SLACK
    right &= values.min((1, 2, 3)) >= -_PROBABILITY_SLACK
    _refuse(~right, bundle, slices, "probabilities that sum to 1")


def _refuse(wrong: np.ndarray, bundle: Bundle, slices: range, expected: str) -> None:
    """wrong: bool [N], the slices that the network cannot be believed about."""
    if wrong.any():
        numbers = [str(slices.start + int(n) + 1) for n in np.flatnonzero(wrong)]
        raise InputError(
            f"{bundle.folder}: expected {expected}, found others in slices {', '.join(numbers)} "
            "(counted from 1, from the feet); the network or its input is damaged"
        )


def check_tables(bundles: Sequence[Bundle]) -> None:
    """Raises InputError unless a label value stands for the same organ in all models."""
    first, *others = bundles
    for other in others:
        if other.table.numbers != first.table.numbers:
            raise InputError(
                f"{first.folder} and {other.folder} were trained on datasets that number organs "
                "differently; build both with one --organ_table, train and export again"
            )


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
