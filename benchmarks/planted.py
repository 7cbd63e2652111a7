"""Plants typical mistakes of contouring into label maps."""

import numpy as np

KINDS = ("shift", "swap", "third", "gap")
_SHIFT_MM = (0.0, 12.0, 16.0)  # along z, y, x
_GAP_SLICES = 5


def plant(labels, kind, spacing_mm, numbers):
    """(Label map, names of the organs that are wrong in it).

    labels: uint8 [Z, Y, X]. spacing_mm: of z, y, x. numbers: name to label value.

    shift: the aorta lies 20 mm beside its place. swap: the aorta is drawn as the esophagus, which
    is not drawn at all. third: the upper third of the heart is missing. gap: the esophagus is
    missing in five slices of its middle.
    """
    labels = labels.copy()
    if kind == "shift":
        steps = [round(mm / side) for mm, side in zip(_SHIFT_MM, spacing_mm, strict=True)]
        moved = np.roll(labels == numbers["aorta"], steps, (0, 1, 2))
        labels[labels == numbers["aorta"]] = 0
        labels[moved] = numbers["aorta"]
        return labels, ("aorta",)
    if kind == "swap":
        labels[labels == numbers["esophagus"]] = 0
        labels[labels == numbers["aorta"]] = numbers["esophagus"]
        return labels, ("esophagus", "aorta")
    organ = "heart" if kind == "third" else "esophagus"
    held = np.flatnonzero((labels == numbers[organ]).any((1, 2)))
    middle = len(held) // 2
    gone = held[-len(held) // 3 :] if kind == "third" else held[middle - 2 :][:_GAP_SLICES]
    part = labels[gone]
    part[part == numbers[organ]] = 0
    labels[gone] = part
    return labels, (organ,)
