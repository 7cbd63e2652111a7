"""Synthetic patients for tests, the demo and benchmarks: `make` one, or `write_dataset` of many.

`python -m segthor.phantom` writes them in the SegTHOR data set's layout. Which organs are contoured
is a table's choice (`table`); `segthor.phantom.pieces` cuts them into as many as one likes.
"""

from segthor.phantom.contours import table
from segthor.phantom.dataset import patient_seed, write_dataset
from segthor.phantom.patient import Phantom, make, tiny
