"""Converts the values of a file of contours to the labels of a table of organs."""

import numpy as np

from segthor import ignored
from segthor.boxes import MemoryOrder
from segthor.findings import Finding
from segthor.organs import Organs

_MOST_ROUNDED = 1e-3  # largest error that scaling and storing a whole number may cause


def to_labels(
    stored: np.ndarray, label_values=(), *, organs: Organs
) -> tuple[np.ndarray | None, list[Finding]]:
    """Converts stored values to the organs' labels.

    Args:
      stored: Numbers of any type and shape; floats within 0.001 of whole numbers are rounded.
      label_values: (organ, value in `stored`), where they differ from the table; all other values
        are then background. `ignored.NAME` stands for voxels that are not annotated; alone, it
        leaves the organs' values as they are.
      organs: The table of organs.

    Returns:
      uint8 labels of the same shape, or None where values are not whole or stand for no organ; and
      findings, the last of which then says why.
    """
    order = MemoryOrder.of(stored)
    findings = []

    def add(code: str, message: str) -> None:
        findings.append(Finding.of(code, message))

    whole = _whole_numbers(order.view(stored), add)
    labels = None if whole is None else _table_labels(whole, label_values, organs, add)
    return labels if labels is None else order.undo(labels), findings


def _whole_numbers(stored, add):
    """The values rounded to whole numbers; None where one is too far from a whole number."""
    if stored.dtype.kind != "f":
        return stored
    with np.errstate(invalid="ignore"):  # NaN and infinity give NaN, which the test below refuses
        whole = np.rint(stored)
        off = np.abs(stored - whole)
    largest = float(off.max())
    if not largest <= _MOST_ROUNDED:
        count = int(np.count_nonzero(~(off <= _MOST_ROUNDED)))
        which = f"{count} voxels of the contours are not whole numbers: up to {largest:.4g} off"
        add("labels_not_integer", f"{which}, expected at most {_MOST_ROUNDED:g}")
        return None
    if largest:
        add("labels_rounded", f"label values up to {largest:.2g} off whole numbers were rounded")
    return whole


def _table_labels(stored, label_values, organs: Organs, add):
    """Whole numbers to the table's labels, uint8; None where a value stands for no organ."""
    named = [(name, value) for name, value in label_values if name != ignored.NAME]
    left_out = stored == ignored.value_in(label_values) if len(named) < len(label_values) else None
    if named:
        given, stored = stored, np.zeros_like(stored, np.uint8)
        for name, value in named:
            if name in organs:
                stored[given == value] = organs[name].label
    elif left_out is not None:
        stored = np.where(left_out, stored.dtype.type(0), stored)
    highest = stored.max()
    unknown, expected = _unknown(stored, highest, organs)
    if len(unknown):
        values = unknown[:5].tolist()
        add("labels_unknown", f"label values {values} stand for no organ; expected {expected}")
        return None
    if highest == 0:
        add("labels_empty", "no voxel is labelled")
    labels = stored.astype(np.uint8, copy=False)
    if left_out is not None:
        labels[left_out] = ignored.LABEL
    return labels


def _unknown(stored: np.ndarray, highest, organs: Organs) -> tuple[np.ndarray, str]:
    """The values that stand for no organ, sorted, and a text with the values that are allowed.

    highest: The largest value of `stored`.
    """
    labels, last = sorted(organs.labels(organs.names)), organs.highest_label
    if (stored.dtype.kind != "u" and stored.min() < 0) or highest > last:
        outside = stored[(stored < 0) | (stored > last)]
    elif len(labels) < last:  # the table leaves values out
        known = np.zeros(1 + last, bool)
        known[[0, *labels]] = True
        outside = stored[~known[stored.astype(np.uint8, copy=False)]]
    else:
        outside = stored[:0]
    gaps = len(labels) < last
    expected = ", ".join(map(str, [0, *labels])) if gaps else f"0 to {last}"
    return np.unique(outside), expected
