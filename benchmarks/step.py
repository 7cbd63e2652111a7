"""Times the training step of Unet-resnet34 at 224x224x3, batch 8: bare, augmented, on real input.

Run from the project's root: python -m benchmarks.step

bare       the step on a batch that lies ready, without augmentation
augmented  the same with the default augmentation
real       the augmented step on batches that the input chain reads from shards
"""

import trainer  # noqa: F401, I001  before tensorflow: sets up its environment
import dataclasses
import statistics
import sys
import time

import tensorflow as tf
from absl import app

from benchmarks import dataset
from trainer import data
from trainer.strengths import Strengths
from trainer.config import Config
from trainer.learner import Learner

BATCH, ROUNDS, STEPS_PER_ROUND = 8, 9, 3
MOST_OF_BARE, MOST_OF_CACHED = 1.15, 1.05


def main(argv):
    del argv
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
    seconds = measure(contenders)
    return report(seconds)


def measure(contenders):
    """Seconds per step: the median of rounds in which every contender has its turn."""
    times = {name: [] for name in contenders}
    for round_ in range(ROUNDS + 1):
        for name, (learner, iterator) in contenders.items():
            start = time.perf_counter()
            losses, _ = learner.train(iterator, tf.constant(STEPS_PER_ROUND))
            losses.numpy()
            if round_:  # the first one compiles
                times[name].append((time.perf_counter() - start) / STEPS_PER_ROUND)
    return {name: statistics.median(values) for name, values in times.items()}


def report(seconds):
    ratios = {
        "augmented / bare": (seconds["augmented"] / seconds["bare"], MOST_OF_BARE),
        "real / augmented": (seconds["real"] / seconds["augmented"], MOST_OF_CACHED),
    }
    for name, value in seconds.items():
        print(f"{name:18}{value:8.3f} s per step{BATCH / value:8.2f} slices/s")
    for name, (ratio, most) in ratios.items():
        print(f"{name:18}{ratio:8.3f} (at most {most})")
    return 0 if all(ratio <= most for ratio, most in ratios.values()) else 1


if __name__ == "__main__":
    app.run(lambda argv: sys.exit(main(argv)))
