"""Synthetic patients for tests, the demo and benchmarks: `make` one, or `write_dataset` of many.

`python -m segthor.phantom` writes them in the layout of the SegTHOR data set. A table (`table`)
selects the organs that are contoured.
"""

from segthor.phantom.contours import table
from segthor.phantom.dataset import patient_seed, write_dataset
from segthor.phantom.patient import Phantom, make, tiny
