"""Converts stored numbers of a scan's file to HU, by slope and intercept."""

import numpy as np


def to_hu(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """stored * slope + intercept, a new array of the same shape.

    Integers become the smaller of int16 and int32 that holds the result, where slope and intercept
    are whole numbers. Everything else becomes float32.
    """
    if stored.dtype.kind in "iu" and slope.is_integer() and intercept.is_integer():
        slope, intercept = int(slope), int(intercept)
        bounds = [int(bound) * slope + intercept for bound in (stored.min(), stored.max())]
        for dtype in (np.int16, np.int32):
            limits = np.iinfo(dtype)
            if limits.min <= min(bounds) and max(bounds) <= limits.max:
                # Integers wrap around, so a product that overflows still gives the right sum.
                slope, intercept = _wrap(slope, dtype), _wrap(intercept, dtype)
                return _times_plus(stored.astype(dtype), slope, intercept)
    with np.errstate(all="ignore"):  # the audit reports values that are not finite
        return _times_plus(stored.astype(np.float32), np.float32(slope), np.float32(intercept))


def _wrap(number: int, dtype) -> np.ndarray:
    """The number modulo 2^bits, as a 0-dimensional array: its overflow gives no warning."""
    return np.array(number % (1 << 64), np.uint64).astype(dtype)


def _times_plus(array: np.ndarray, slope, intercept) -> np.ndarray:
    """array * slope + intercept, in place to save memory."""
    array *= slope
    array += intercept
    return array
