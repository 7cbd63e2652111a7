"""Checks a dataset against its manifest and names every difference.

python -m beam_jobs.verify --data=DIR

Checks the size, checksum and records of every shard; shape, labels, box, affine and window of every
record; and that each slice of every patient is there exactly once. Exit status: 0, or 2 where
something differs.
"""

from absl import flags

from beam_jobs.checks import verify
from segthor.errors import run
from segthor.manifest import DEFAULT_DATASET

_DATA = flags.DEFINE_string("data", DEFAULT_DATASET, "Folder of the dataset.")


def main(argv):
    """Checks the dataset and prints its size."""
    del argv
    dataset = verify(_DATA.value)
    slices = sum(shard.records for shard in dataset.shards)
    print(
        f"{_DATA.value}: {len(dataset.shards)} shards with {slices} slices of "
        f"{len(dataset.patients)} patients agree with the manifest"
    )


if __name__ == "__main__":
    run(main)
