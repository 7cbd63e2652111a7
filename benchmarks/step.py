"""Times the training step alone, with augmentation and with real input, for defaults and demo.

Run from the project's root: python -m benchmarks.step

bare       the step on a batch that lies ready, without augmentation
augmented  the same with the configuration's augmentation
real       the augmented step on batches that the input chain reads from shards

The defaults are Unet-resnet34 at 224x224x3, batch 8; the demo's network (configs/smoke.flags) is
Unet-resnet18 at 96x96x3, batch 8. The page faults of a step are printed, too, since they do not
depend on the machine's load. Each is repeated in a process that returns freed memory to the system,
which is the C library's default. To run one of the four:
`python -m benchmarks.step demo given_back`.
"""

import trainer  # noqa: F401, I001  before tensorflow: sets up its environment
import dataclasses
import resource
import statistics
import subprocess
import sys
import time

import tensorflow as tf
from absl import app, flags

from benchmarks import dataset
from segthor import flags_of, memory
from trainer import data
from trainer.strengths import Strengths
from trainer.config import Config
from trainer.learner import Learner

ROUNDS, STEPS_PER_ROUND = 9, 3
MOST_OF_BARE, MOST_OF_CACHED, MOST_FAULTS = 1.10, 1.05, 2000
KEPT, GIVEN_BACK = "kept", "given_back"
CASES = {
    "default": ("full", ("--backbone=resnet34", "--batch_size=8")),
    "demo": ("small", ("--flagfile=configs/smoke.flags",)),
}
flags_of.define(Config)


def main(argv):
    if len(argv) == 1:
        commands = [(case, memory_is) for case in CASES for memory_is in (KEPT, GIVEN_BACK)]
        return max(one_of_four(*command) for command in commands)
    case, memory_is = argv[1:]
    if memory_is == KEPT:  # as in every program of the project
        memory.keep_freed()
    size, settings = CASES[case]
    flags.FLAGS([argv[0], *settings])
    source = dataset.source(size)
    config = flags_of.read(Config).of_table(source.organs)
    strategy = tf.distribute.get_strategy()
    bare = dataclasses.replace(config, augment=Strengths.none())
    batch = config.batch_size
    rows = data.per_replica(data.training(source, config, batch), batch)
    cached = rows.take(1).cache().repeat()
    learners = {
        name: Learner(chosen, source, strategy, 1000)
        for name, chosen in {"bare": bare, "augmented": config}.items()
    }
    contenders = {
        "bare": (learners["bare"], iter(cached)),
        "augmented": (learners["augmented"], iter(cached)),
        "real": (learners["augmented"], iter(rows)),
    }
    print(f"{case}, freed memory is {memory_is.replace('_', ' ')}")
    return report(*measure(contenders), batch)


def one_of_four(case, memory_is):
    """Runs one of the four measurements in a separate process."""
    command = [sys.executable, "-m", "benchmarks.step", case, memory_is]
    status = subprocess.run(command, check=False).returncode
    return status if memory_is == KEPT else 0


def measure(contenders):
    """Seconds and page faults per step: medians of rounds in which all contenders take turns."""
    times, faults = ({name: [] for name in contenders} for _ in range(2))
    for round_ in range(ROUNDS + 1):
        for name, (learner, iterator) in contenders.items():
            start, before = time.perf_counter(), memory.page_faults()
            losses, _ = learner.train(iterator, tf.constant(STEPS_PER_ROUND))
            losses.numpy()
            if round_:  # the first one compiles
                times[name].append((time.perf_counter() - start) / STEPS_PER_ROUND)
                faults[name].append((memory.page_faults() - before) / STEPS_PER_ROUND)
    return [{name: statistics.median(v) for name, v in each.items()} for each in (times, faults)]


def report(seconds, faults, batch):
    ratios = {
        "augmented / bare": (seconds["augmented"] / seconds["bare"], MOST_OF_BARE),
        "real / augmented": (seconds["real"] / seconds["augmented"], MOST_OF_CACHED),
        "real / bare": (seconds["real"] / seconds["bare"], MOST_OF_BARE),
    }
    for name, value in seconds.items():
        print(
            f"{name:18}{value:8.3f} s per step{batch / value:8.2f} slices/s"
            f"{faults[name]:10.0f} page faults per step"
        )
    for name, (ratio, most) in ratios.items():
        print(f"{name:18}{ratio:8.3f} (at most {most})")
    print(
        f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB\n",
        flush=True,
    )
    fast = all(ratio <= most for ratio, most in ratios.values())
    return 0 if fast and faults["real"] <= MOST_FAULTS else 1


if __name__ == "__main__":
    app.run(lambda argv: sys.exit(main(argv)))
