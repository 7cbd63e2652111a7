"""Times the training step of Unet-resnet34 at 224x224x3, batch 8: bare, augmented, on real input.

Run from the project's root: python -m benchmarks.step

bare       the step on a batch that lies ready, without augmentation
augmented  the same with the default augmentation
real       the augmented step on batches that the input chain reads from shards

Beside the seconds stand the page faults of a step, which are alike however busy the machine. Then
all is repeated in a process that gives freed memory back to the system, as the C library does
unless told otherwise; `python -m benchmarks.step given_back` does that alone.
"""

import trainer  # noqa: F401, I001  before tensorflow: sets up its environment
import dataclasses
import resource
import statistics
import subprocess
import sys
import time

import tensorflow as tf
from absl import app

from benchmarks import dataset
from segthor import memory
from trainer import data
from trainer.strengths import Strengths
from trainer.config import Config
from trainer.learner import Learner

BATCH, ROUNDS, STEPS_PER_ROUND = 8, 9, 3
MOST_OF_BARE, MOST_OF_CACHED, MOST_FAULTS = 1.15, 1.05, 2000
GIVEN_BACK = "given_back"


def main(argv):
    kept = GIVEN_BACK not in argv
    if kept:  # as in every program of the project
        memory.keep_freed()
    source = dataset.source()
    strategy = tf.distribute.get_strategy()
    config = Config(backbone="resnet34", batch_size=BATCH).of_table(source.organs)
    bare = dataclasses.replace(config, augment=Strengths.none())
    rows = data.per_replica(data.training(source, config, BATCH), BATCH)
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
    status = report(*measure(contenders), kept)
    if kept:
        subprocess.run([sys.executable, "-m", "benchmarks.step", GIVEN_BACK], check=False)
    return status


def measure(contenders):
    """Seconds and page faults per step: medians of rounds in which each contender has its turn."""
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


def report(seconds, faults, kept):
    print("freed memory is kept" if kept else "\nfreed memory is given back")
    ratios = {
        "augmented / bare": (seconds["augmented"] / seconds["bare"], MOST_OF_BARE),
        "real / augmented": (seconds["real"] / seconds["augmented"], MOST_OF_CACHED),
    }
    for name, value in seconds.items():
        print(
            f"{name:18}{value:8.3f} s per step{BATCH / value:8.2f} slices/s"
            f"{faults[name]:10.0f} page faults per step"
        )
    for name, (ratio, most) in ratios.items():
        print(f"{name:18}{ratio:8.3f} (at most {most})")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    fast = all(ratio <= most for ratio, most in ratios.values())
    return 0 if fast and faults["real"] <= MOST_FAULTS else 1


if __name__ == "__main__":
    app.run(lambda argv: sys.exit(main(argv)))
