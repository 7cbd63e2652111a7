"""Synthetic patients for tests, the demo and benchmarks: `make` one, or `write_dataset` of many.

`python -m segthor.phantom` writes them in the SegTHOR data set's layout.
"""

from segthor.phantom.dataset import patient_seed, write_dataset
from segthor.phantom.patient import Phantom, make, tiny

__all__ = ["Phantom", "make", "patient_seed", "tiny", "write_dataset"]
