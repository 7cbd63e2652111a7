"""From a scan in memory to its label map: prepare, run the networks in batches, place."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool

import numpy as np

from segthor.errors import InputError
from segthor.organs import Organs
from segthor.recipe import Prepared, Recipe, prepare
from segthor.volume import LabelMap, Volume
from serving.prediction import flips
from serving.prediction.bundle import PRESENCE, PROBABILITIES, Bundle, label_values
from serving.prediction.engine import BATCH_SLICES, BATCHES_AT_ONCE
from serving.prediction.volume import GroupProbabilities, Prediction

GATE_THRESHOLD = 0.5
# float32 sums over a few classes are exact to 1e-6, and every network is exported in float32. A sum
# that differs by more than this was not made by a softmax.
_PROBABILITY_SLACK = 1e-3


@dataclass(frozen=True)
class Input:
    """A scan prepared by one recipe.

    recipe: The recipe.
    prepared: The scan.
    """

    recipe: Recipe
    prepared: Prepared

    def batch(self, slices: range) -> np.ndarray:
        """These slices with their neighbours as channels, uint8 [N, H, W, C]."""
        return np.stack([self.prepared.image(z, self.recipe) for z in slices])


@dataclass(frozen=True)
class Segmentation:
    """The prediction of one scan.

    labels: uint8 [Z, Y, X] on the scan's grid.
    level_hu: Window level of the first model.
    width_hu: Window width of the first model.
    probabilities: Organ to uint8 [Z, Y, X], where 255 is 1; empty unless requested.
    """

    labels: np.ndarray
    level_hu: float
    width_hu: float
    probabilities: dict


class Ensemble:
    """Models that make one label map together.

    Models of the same organs (folds) are a group, whose probabilities are averaged. Between groups
    (one network per organ) the most probable organ gets the voxel, see `Prediction.place`.

    gate: A classifier of slices, or None.
    tta: Whether to average over flips.
    groups: Names of the organs to their models.
    """

    def __init__(self, bundles: Sequence[Bundle], gate: Bundle | None = None, tta: bool = False):
        """Groups the models and checks that they fit together.

        gate: Its organs are removed from slices in which it does not find them.
        tta: Whether to average over the flips that each model saw in training.

        Raises:
          InputError: A model lacks the output, an organ is in two groups, models of a group have
            different recipes, models number organs differently, or tta is not possible.
        """
        self.gate, self.tta = gate, tta
        self.groups: dict[tuple[str, ...], list[Bundle]] = {}
        for bundle in bundles:
            self.groups.setdefault(bundle.require(PROBABILITIES).organs, []).append(bundle)
        if gate:
            gate.require(PRESENCE)
        _check_groups(self.groups)
        check_tables(self.bundles)
        self._flips_of_folder = {
            one.folder: flips.list_flips(one) if tta else [flips.NONE] for one in self.segmenters
        }

    @property
    def bundles(self) -> list[Bundle]:
        """All models, the gate last."""
        return self.segmenters + [self.gate] * bool(self.gate)

    def rules(self) -> dict:
        """Organ to the post-processing rule that its models store.

        Raises:
          InputError: Models that are averaged store different rules.
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
        """Axes of the flips of each model, for the job's settings; False without tta."""
        own_flips = [self._flips_of_folder[one.folder] for one in self.segmenters]
        return self.tta and [[list(flip.axes) for flip in own] for own in own_flips]

    @property
    def segmenters(self) -> list[Bundle]:
        """All models but the gate."""
        return [bundle for group in self.groups.values() for bundle in group]

    @property
    def needs_masks(self) -> bool:
        """Whether a recipe takes window level or crop centre from organs."""
        return any(bundle.recipe.needs_masks for bundle in self.bundles)

    def inputs(self, scan: Volume, masks: LabelMap | None = None) -> dict[str, Input]:
        """Prepares the scan by each recipe of the models; returns digest of the recipe to input.

        masks: Label map for recipes that take window level or crop centre from organs.

        Raises:
          InputError: A recipe cannot be applied to the scan or the masks.
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
        """Runs all models batch by batch and places the probabilities on the scan's grid.

        inputs: As returned by `inputs`.
        probabilities: Whether to keep a map of each organ's probability.
        observe: Called with slices, organs, mean and members of each batch and group, see
          `GroupProbabilities`, before the batch is placed.
        """
        first, width_hu = self.first(inputs), self.segmenters[0].recipe.window_width_hu
        mapped = self.organs if probabilities else ()
        result = Prediction(first.placement.shape_zyx, mapped)
        for slices, groups in self._run_ahead(inputs, len(result.labels)):
            for one in groups if observe else ():
                observe(slices, one.organs, one.values, one.members)
            result.place(slices, groups)
        return Segmentation(result.labels, first.level_hu, width_hu, result.maps)

    def _run_ahead(
        self, inputs: dict[str, Input], count: int
    ) -> Iterator[tuple[range, list[GroupProbabilities]]]:
        """Yields some slices and their probabilities at a time, while the next batches run."""
        groups = [(n, group, inputs[group[0].recipe.digest()]) for n, group in self.groups.items()]
        gate_input = self.gate and inputs[self.gate.recipe.digest()]
        engine, running = self.segmenters[0].engine, deque()
        # One more than there are threads is queued, so that no thread waits. Memory beyond the
        # result is that of these batches.
        most_running, size = BATCHES_AT_ONCE[engine] + 1, BATCH_SLICES[engine]
        # The threads of an executor would keep the process alive after a case was abandoned.
        with ThreadPool(BATCHES_AT_ONCE[engine]) as pool:
            for start in range(0, count, size):
                slices = range(start, min(start + size, count))
                running.append((slices, pool.apply_async(self._run, (groups, gate_input, slices))))
                while len(running) > (most_running if slices.stop < count else 0):
                    done, batch = running.popleft()
                    yield done, batch.get()

    @property
    def organs(self) -> tuple[str, ...]:
        """Names of the predicted organs, in the order of the table."""
        names = {name for group in self.groups for name in group}
        return tuple(name for name in self.table.names if name in names)

    @property
    def table(self) -> Organs:
        """The organs of all label values."""
        return self.segmenters[0].table

    def _run(self, groups, gate_input: Input | None, slices: range) -> list[GroupProbabilities]:
        return [self._run_group(*group, gate_input, slices) for group in groups]

    def _run_group(
        self, names, bundles, own_input: Input, gate_input: Input | None, slices: range
    ) -> GroupProbabilities:
        """Runs the models of one group on some slices, and averages them."""
        members = self._run_members(bundles, own_input.batch(slices), slices)
        mean = sum(members) / np.float32(len(members)) if len(members) > 1 else members[0]
        if self.gate:
            absent = self._find_absent(names, gate_input, slices)
            mean, *members = (_remove_absent(one, absent) for one in (mean, *members))
        labels = label_values(names, self.table)
        return GroupProbabilities(names, labels, mean, members, own_input.prepared.placement)

    def _run_members(self, bundles, batch: np.ndarray, slices: range) -> list[np.ndarray]:
        """Runs each model with each of its flips; returns float32 [N, H, W, K] of each."""
        members = []
        for bundle in bundles:
            for flip in self._flips_of_folder[bundle.folder]:
                probabilities = bundle.probabilities(np.flip(batch, flip.axes))
                _check_probabilities(probabilities, bundle, slices)
                members.append(flip.undo(probabilities))
        return members

    def _find_absent(self, names, gate_input: Input, slices: range) -> dict[int, np.ndarray]:
        """Runs the gate; returns class to bool [N], the slices without the organ."""
        presence = self.gate.presence(gate_input.batch(slices))
        wrong = ~((presence >= -_PROBABILITY_SLACK) & (presence <= 1 + _PROBABILITY_SLACK)).all(-1)
        _raise_for(wrong, self.gate, slices, "presences from 0 to 1")
        return {
            index: presence[:, self.gate.organs.index(name)] < GATE_THRESHOLD
            for index, name in enumerate(names, 1)
            if name in self.gate.organs
        }


def _remove_absent(values: np.ndarray, absent: dict[int, np.ndarray]) -> np.ndarray:
    """Sets probabilities of absent classes to 0 and scales those of the others to sum to 1."""
    values = values.copy()
    for index, slices in absent.items():
        part = values[slices]
        part[..., index] = 0
        part[..., 0] += part.sum(-1) == 0
        values[slices] = part / part.sum(-1, keepdims=True)
    return values


def _check_probabilities(values: np.ndarray, bundle: Bundle, slices: range) -> None:
    """Raises InputError if values [N, H, W, K] are not those of a softmax."""
    # A matrix product sums a few classes far faster than numpy's sum.
    sums = (values @ np.ones(values.shape[-1], np.float32)).reshape(len(values), -1)
    right = np.abs(sums - 1).max(1) <= _PROBABILITY_SLACK  # False for NaN
    right &= values.min((1, 2, 3)) >= -_PROBABILITY_SLACK
    _raise_for(~right, bundle, slices, "probabilities that sum to 1")


def _raise_for(wrong: np.ndarray, bundle: Bundle, slices: range, expected: str) -> None:
    """Raises InputError that lists the wrong slices, bool [N]."""
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
    """Raises InputError if an organ is in two groups, or the recipes of a group differ."""
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
