"""Test-time augmentation: the flips that a model may be averaged over, and the way back of each."""

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
    classes: For each class of the result, the class of the flipped picture that is the same
      organ; empty where they are the same.
    """

    axes: tuple[int, ...] = ()
    classes: tuple[int, ...] = ()

    def undo(self, probabilities: np.ndarray) -> np.ndarray:
        """What the network gave for the flipped batch, [N, H, W, K], as of the batch itself."""
        turned = np.flip(probabilities, self.axes)
        return turned[..., list(self.classes)] if self.classes else turned


NONE = Flip()


def of_model(bundle: Bundle) -> list[Flip]:
    """No flip, each flip that the training saw, and both at once where it saw both.

    A picture mirrored left to right shows a left organ as its partner of the right, so that their
    classes are exchanged. One mirrored front to back does not.

    Raises:
      InputError: the training saw no flip, or one from left to right although the table does not
        give every organ that has a side its mirror image, or the model knows one of a pair alone.
    """
    seen = seen_in_training(bundle)
    if not seen:
        raise InputError(
            f"{bundle.folder}: --tta averages over flips that the training saw, and this model's "
            "saw none (--augment_flip_left_right, --augment_flip_front_back); predict without --tta"
        )
    both = [(_FRONT_BACK, _LEFT_RIGHT)] if len(seen) == 2 else []
    exchanged = _exchanged_classes(bundle) if (_LEFT_RIGHT,) in seen else ()
    return [NONE, *(Flip(axes, exchanged if _LEFT_RIGHT in axes else ()) for axes in seen + both)]


def seen_in_training(bundle: Bundle) -> list[tuple[int, ...]]:
    """The axes of [N, H, W, C] along which the training flipped slices, by its own record."""
    strengths = bundle.training.get("config", {}).get("augment")
    if not isinstance(strengths, dict):
        return []  # an older model, or one made by hand: what its training saw is not known
    shares = {axis: strengths.get(name) for name, axis in _STRENGTHS.items()}
    return [
        (axis,) for axis, share in shares.items() if isinstance(share, int | float) and share > 0
    ]


def _exchanged_classes(bundle: Bundle) -> tuple[int, ...]:
    """For each class the one of its mirror image; empty where no organ has another one."""
    purpose = f"{bundle.folder}: --tta"
    sides.require_mirrors(bundle.table, bundle.organs, purpose)
    try:
        places = sides.mirrored_places(bundle.table, bundle.organs)
    except InputError as error:
        raise InputError(f"{purpose}: the model knows {error}; predict without --tta") from error
    classes = (0, *(1 + place for place in places))
    return classes if classes != tuple(range(len(classes))) else ()
