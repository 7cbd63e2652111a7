"""Test-time augmentation: the flips that a model may be averaged over, and how to undo them."""

from dataclasses import dataclass

import numpy as np

from segthor import sides
from segthor.errors import InputError
from serving.prediction.bundle import Bundle

_FRONT_BACK, _LEFT_RIGHT = 1, 2  # axes of [N, H, W, C]
_STRENGTHS = {"flip_left_right": _LEFT_RIGHT, "flip_front_back": _FRONT_BACK}


@dataclass(frozen=True)
class Flip:
    """One flip of a batch.

    axes: Flipped axes of [N, H, W, C].
    classes: For each class of the result, the class of the same organ in the flipped image; empty
      where the classes stay.
    """

    axes: tuple[int, ...] = ()
    classes: tuple[int, ...] = ()

    def undo(self, probabilities: np.ndarray) -> np.ndarray:
        """Turns probabilities [N, H, W, K] of the flipped batch into those of the batch."""
        values = np.flip(probabilities, self.axes)
        return values[..., list(self.classes)] if self.classes else values


NONE = Flip()


def list_flips(bundle: Bundle) -> list[Flip]:
    """Returns no flip, each flip of the model's training, and both at once if there were two.

    A flip from left to right exchanges the classes of left and right organs.

    Raises:
      InputError: The training had no flip; or it flipped left to right, and the table does not
        name the mirror image of an organ with a side or the model knows only one of the two.
    """
    seen = trained_axes(bundle)
    if not seen:
        raise InputError(
            f"{bundle.folder}: --tta averages over the flips of the training, and this model's "
            "had none (--augment_flip_left_right, --augment_flip_front_back); predict without --tta"
        )
    both = [(_FRONT_BACK, _LEFT_RIGHT)] if len(seen) == 2 else []
    exchanged = _exchanged_classes(bundle) if (_LEFT_RIGHT,) in seen else ()
    return [NONE, *(Flip(axes, exchanged if _LEFT_RIGHT in axes else ()) for axes in seen + both)]


def trained_axes(bundle: Bundle) -> list[tuple[int, ...]]:
    """Axes of [N, H, W, C] along which the training flipped slices, one tuple each."""
    strengths = bundle.training.get("config", {}).get("augment")
    if not isinstance(strengths, dict):
        return []  # not a model of trainer.main: nothing is known of its training
    shares = {axis: strengths.get(name) for name, axis in _STRENGTHS.items()}
    return [
        (axis,) for axis, share in shares.items() if isinstance(share, int | float) and share > 0
    ]


def _exchanged_classes(bundle: Bundle) -> tuple[int, ...]:
    """For each class the class of its mirror image; empty if all are their own."""
    purpose = f"{bundle.folder}: --tta"
    sides.require_mirrors(bundle.table, bundle.organs, purpose)
    try:
        partners = sides.mirrored_places(bundle.table, bundle.organs)
    except InputError as error:
        raise InputError(f"{purpose}: the model knows {error}; predict without --tta") from error
    classes = (0, *(1 + partner for partner in partners))
    return classes if classes != tuple(range(len(classes))) else ()
