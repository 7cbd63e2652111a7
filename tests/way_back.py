"""The way back of labels, as a prediction's probabilities go it."""

import numpy as np

from segthor import organs


def labels_back(placement, labels):
    """Prepared labels [Z, H, W] on the scan's grid [Z, Y, X], as if a network were sure of them."""
    one_hot = np.eye(1 + organs.SEGTHOR.highest_label, dtype=np.float32)
    planes = [placement.most_probable(one_hot[plane][None])[0][0] for plane in labels]
    return np.stack(planes)
