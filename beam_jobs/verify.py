"""Re-reads a dataset against its manifest and names what is wrong.

python -m beam_jobs.verify --data=DIR

Every shard's size, checksum and records; every record's shape, labels, place and level; every
patient's slices, each exactly once. Exit status: 0, or 2 where something is wrong.
"""

from absl import flags

from beam_jobs.checks import verify
from segthor.errors import run
from segthor.manifest import DEFAULT_DATASET

_DATA = flags.DEFINE_string("data", DEFAULT_DATASET, "Folder of the dataset.")


def main(argv):
    """Checks one shard after the other."""
    del argv
    dataset = verify(_DATA.value)
    slices = sum(shard.records for shard in dataset.shards)
    print(
        f"{_DATA.value}: {len(dataset.shards)} shards with {slices} slices of "
        f"{len(dataset.patients)} patients are as the manifest says"
    )


if __name__ == "__main__":
    run(main)
