"""Times the trainer's input, its upper limit and the classic way, in one run.

Run from the project's root: python -m benchmarks.input

ceiling  TFRecordDataset, parse, batch: what TensorFlow can read at all
chain    trainer.data: the same with shards interleaved, slices mixed, places numbered
dataset  trainer.dataset: the chain as others use it, for a network of their own
classic  one PNG file per image and per label map, augmented one by one on the CPU's cores
Augmentation is excluded from the first three: the training step does it, on the device.
"""

import trainer  # noqa: I001  before tensorflow: sets up its environment
import multiprocessing
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import tensorflow as tf
from absl import app
from PIL import Image

from benchmarks import dataset
from segthor import files, records
from trainer import data
from segthor.organs import SEGTHOR
from trainer.config import Config

BATCH = 32
ROUNDS, WARM_UP, BATCHES = 5, 30, 200
PNG_SLICES = 512
LEAST_OF_CEILING, LEAST_OF_CLASSIC, LEAST_OF_CHAIN = 0.8, 10.0, 0.95


def main(argv):
    del argv
    source = dataset.source()
    print(
        f"{source.count(source.train)} slices of {source.size_px}x{source.size_px}x{source.context}"
        f" in {len(source.train)} shards, batches of {BATCH}, {os.cpu_count()} cores"
    )
    paths = write_pngs(source)
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        routes = {
            "ceiling": lambda: iter(ceiling(source)),
            "chain": lambda: iter(chain(source)),
            "dataset": lambda: iter(trainer.dataset(source.folder, batch=BATCH, fold=0)),
            "classic": lambda: classic(pool, paths),
        }
        rates = measure(routes)
    report(rates)
    passed = (
        rates["chain"] >= LEAST_OF_CEILING * rates["ceiling"]
        and rates["chain"] >= LEAST_OF_CLASSIC * rates["classic"]
        and rates["dataset"] >= LEAST_OF_CHAIN * rates["chain"]
    )
    return 0 if passed else 1


def ceiling(source):
    paths = [files.join(source.folder, shard.file) for shard in source.train]
    return (
        tf.data.TFRecordDataset(paths, buffer_size=8 << 20, num_parallel_reads=tf.data.AUTOTUNE)
        .repeat()
        .map(
            lambda s: records.parse(s, source.size_px, source.context, num_organs=len(SEGTHOR)),
            tf.data.AUTOTUNE,
        )
        .batch(BATCH, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def chain(source):
    return data.per_replica(data.training(source, Config(batch_size=BATCH), BATCH), BATCH)


def classic(pool, paths):
    """Batches of augmented slices in random order; a few are prepared at the same time."""
    rng = np.random.default_rng(0)
    waiting = []
    while True:
        while len(waiting) < 2 * os.cpu_count():
            waiting.append(pool.submit(classic_batch, list(rng.choice(paths, BATCH)), len(waiting)))
        yield waiting.pop(0).result()


def classic_batch(paths, seed):
    rng = np.random.default_rng(seed)
    pairs = [classic_example(path, rng) for path in paths]
    return tuple(np.stack(part) for part in zip(*pairs, strict=True))


def classic_example(path, rng):
    """Rotation, scale, shift and noise: a part of the augmentation of the training step."""
    image, labels = Image.open(f"{path}_image.png"), Image.open(f"{path}_labels.png")
    angle, scale = np.radians(rng.uniform(-15, 15)), rng.uniform(0.85, 1.15)
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    centre, (right, down) = image.width / 2, rng.uniform(-12, 12, 2)
    matrix = (
        *(cos, -sin, centre - cos * centre + sin * centre + right),
        *(sin, cos, centre - sin * centre - cos * centre + down),
    )
    affine = Image.Transform.AFFINE
    image = np.asarray(image.transform(image.size, affine, matrix, Image.Resampling.BILINEAR))
    labels = np.asarray(labels.transform(labels.size, affine, matrix, Image.Resampling.NEAREST))
    noisy = image + 5 * rng.standard_normal(image.shape, np.float32)
    return np.clip(noisy, 0, 255).astype(np.uint8), labels


def write_pngs(source):
    """The first slices of the dataset as pairs of PNG files; their common path beginnings."""
    folder = f"{dataset.FOLDER}/png"
    os.makedirs(folder, exist_ok=True)
    paths = [f"{folder}/{number:04d}" for number in range(PNG_SLICES)]
    if not os.path.exists(f"{paths[-1]}_labels.png"):
        rows = iter(data.training(source, Config(), 1).take(PNG_SLICES).as_numpy_iterator())
        for path, row in zip(paths, rows, strict=True):
            Image.fromarray(row[records.IMAGE]).save(f"{path}_image.png")
            Image.fromarray(row[records.LABELS]).save(f"{path}_labels.png")
    return paths


def measure(routes):
    """Slices per second: the median of rounds in which all ways take turns.

    A way is started for its turn and stopped after it; an idle one would continue to fill its
    buffers, which would slow down the others and speed up its own next turn.
    """
    rates = {name: [] for name in routes}
    for _ in range(ROUNDS):
        for name, make in routes.items():
            route, share = make(), 10 if name == "classic" else 1
            for _ in range(WARM_UP // share):
                next(route)
            start = time.perf_counter()
            for _ in range(BATCHES // share):
                next(route)
            rates[name].append(BATCHES // share * BATCH / (time.perf_counter() - start))
            del route
    return {name: statistics.median(values) for name, values in rates.items()}


def report(rates):
    print(f"\n{'route':10}{'slices/s':>10}{'of ceiling':>12}{'x classic':>11}")
    for name, rate in rates.items():
        of_ceiling, of_classic = rate / rates["ceiling"], rate / rates["classic"]
        print(f"{name:10}{rate:10.0f}{of_ceiling:12.2f}{of_classic:11.1f}")
    print(
        f"\nthe chain is to deliver at least {LEAST_OF_CEILING} of the ceiling and "
        f"{LEAST_OF_CLASSIC:g} times the classic route, the dataset {LEAST_OF_CHAIN} of the chain"
    )


if __name__ == "__main__":
    app.run(lambda argv: sys.exit(main(argv)))
