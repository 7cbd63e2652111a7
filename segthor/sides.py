"""Left and right organs, and their exchange in an image mirrored left to right.

The mirror image of a left lung is a right lung. When a slice is mirrored, labels, network classes
and lists of contoured organs are therefore exchanged as the column `mirror` of the table says.
Pairs are only proposed from names, in messages, because names do not prove a pair. Mirroring front
to back and rotating a slice exchange nothing.
"""

import re

import numpy as np

from segthor.errors import InputError
from segthor.organs import MOST_LABEL, Organ, Organs

# Words for a side in names, and the lobes of the lungs as in TG-263.
_WORDS = {
    "left": {"left", "l", "lt", "sin", "sinister", "sinistra", "lul", "lll"},
    "right": {"right", "r", "rt", "dext", "dexter", "dextra", "rul", "rml", "rll"},
}
_WORD = re.compile(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+")  # LungL is Lung and L; L1 is one word
_JOINED = re.compile(r"(left|right)(\w+)|(\w{3,})(left|right)")  # leftlung, lungright; not cleft


def require_mirrors(organs: Organs, names, purpose: str) -> None:
    """Checks that the table has a mirror image for each of these organs that has a side.

    purpose: What mirrors left to right, such as a flag; start of an error's message.

    Raises:
      InputError: An organ has none; the message proposes pairs by their names.
    """
    missing = [name for name in names if side_of(organs[name]) and not organs[name].mirror]
    if missing:
        pairs = [f"{left} and {right}" for left, right in proposed_pairs(missing)]
        proposal = f" (by their names {', '.join(pairs)})" if pairs else ""
        shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" * (len(missing) > 4))
        raise InputError(
            f"{purpose}: the table of organs does not say what {shown} become in an image "
            f"mirrored left to right; add each one's mirror image{proposal} in the column 'mirror' "
            "of the --organ_table, build and train again; or leave the flag out"
        )


def side_of(organ: Organ) -> str:
    """'left' or 'right', from the table's column `side` or the organ's names; '' for neither."""
    if organ.side:
        return organ.side
    names = (organ.name, organ.tg263, *organ.synonyms)
    sides = {side for name in names for side in _sides_and_rest(name)[0]}
    return sides.pop() if len(sides) == 1 else ""


def proposed_pairs(names) -> list[tuple[str, str]]:
    """(left, right) pairs of names that differ only in their side."""
    by_stem = {}
    for name in names:
        sides, rest = _sides_and_rest(name)
        if len(sides) == 1:
            by_stem.setdefault(rest, {})[sides.pop()] = name
    return [(pair["left"], pair["right"]) for pair in by_stem.values() if len(pair) == 2]


def mirrored_labels(organs: Organs) -> np.ndarray:
    """uint8 [256]: label value in an image -> label value in the mirrored image."""
    values = np.arange(MOST_LABEL + 1, dtype=np.uint8)
    for organ in organs:
        if organ.mirror:
            values[organ.label] = organs[organ.mirror].label
    return values


def mirrored_places(organs: Organs, names) -> list[int]:
    """For each organ of `names`, the index in `names` of its mirror image.

    Raises:
      InputError: `names` lacks the mirror image of one of its organs.
    """
    images = [organs[name].mirror or name for name in names]
    for name, image in zip(names, images, strict=True):
        if image not in names:
            raise InputError(f"{name} without its mirror image {image}; expected both or neither")
    return [list(names).index(image) for image in images]


def _sides_and_rest(name: str) -> tuple[set[str], tuple[str, ...]]:
    """The sides among the words of a name, and its other words."""
    sides, rest = set(), []
    for word in map(str.lower, _WORD.findall(name)):
        joined = _JOINED.fullmatch(word)
        if joined:
            side, stem = joined.group(1, 2) if joined.group(1) else joined.group(4, 3)
            sides.add(side)
            rest.append(stem)
            continue
        matching = {side for side, words in _WORDS.items() if word in words}
        sides |= matching
        rest += [] if matching else [word]
    return sides, tuple(rest)
