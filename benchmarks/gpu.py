"""Measures all that docs/performance.md calls not measured, on a machine with a GPU.

  python -m benchmarks.gpu --data=DATASET [flags of trainer.main]

Takes about five minutes with one GPU and prints a table to paste. Without a GPU it runs with small
numbers on the processor, to try the program itself: such figures say nothing about a GPU.

first losses   of three steps, beside those of the processor: the same but for rounding
slices/s       of training, after compilation
waiting        share of the time in which the device waits for input
operations     that a step launches, by `trainer.placement`; a compiled function counts as one
peak           memory of the first device
"""

import trainer  # noqa: F401, I001  before tensorflow: sets up its environment
import dataclasses
import sys
import tempfile
import time

import numpy as np
import tensorflow as tf
from absl import app, flags

from segthor import flags_of
from serving.prediction import bundle
from serving.prediction.engine import BATCH_SLICES, TENSORFLOW
from trainer import journal, loop, placement, sources
from trainer.config import PRECISIONS, SEGMENT, Config
from trainer.learner import Learner

DATA = flags.DEFINE_string("data", None, "Folder of the dataset.", required=True)
flags_of.define(Config)


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much to measure.

    steps: Steps that are timed.
    precisions: Arithmetics of the network.
    compiled: Values of --xla.
    slices: Slices of the scan that is predicted.
    """

    steps: int
    precisions: tuple[str, ...]
    compiled: tuple[bool, ...]
    slices: int


FULL, SMALL = Effort(60, PRECISIONS, (False, True), 284), Effort(2, PRECISIONS[:1], (False,), 4)
COMPARED = 3  # steps whose losses are compared


@dataclasses.dataclass(frozen=True)
class Run:
    """What training in one way gave; see the module's text."""

    losses: np.ndarray
    slices_per_s: float
    waiting: float
    operations: int
    peak_gb: float
    learner: Learner


def main(_):
    config = flags_of.read(Config)
    source = sources.open_source(DATA.value, config.held_out_fold)
    config = config.of_table(source.organs)
    gpus = [device.name for device in tf.config.list_logical_devices("GPU")]
    effort, used = (FULL, gpus) if gpus else (SMALL, ["CPU:0"])
    describe_devices()
    print("\n| network | devices | first losses | slices/s | waiting | operations | peak, GB |")
    print("|---|---|---|---|---|---|---|")
    processor = train(config, source, ["CPU:0"], SMALL.steps)
    print(row("float32, processor", 1, processor), flush=True)
    for precision in effort.precisions if gpus else ():
        for xla in effort.compiled:
            chosen = dataclasses.replace(config, precision=precision, xla=xla)
            run = train(chosen, source, used[:1], effort.steps)
            print(row(f"{precision}{', --xla' * xla}", 1, run), flush=True)
    for count in range(2, len(gpus) + 1):
        run = train(config, source, used[:count], effort.steps)
        print(row(config.precision, count, run), flush=True)
    if config.task == SEGMENT:
        print(predict(processor.learner, source, effort.slices))
    print(repeat(config, source, used[:1]))
    return 0


def describe_devices() -> None:
    """Prints the GPUs with their drivers' versions, or that there is none."""
    build = tf.sysconfig.get_build_info()
    print(f"TensorFlow {tf.__version__}, CUDA {build.get('cuda_version', 'none')}")
    devices = tf.config.list_physical_devices("GPU")
    for device in devices:
        details = tf.config.experimental.get_device_details(device)
        print(", ".join(f"{key} {value}" for key, value in details.items()))
    if not devices:
        print("No GPU: small numbers on the processor, which say nothing about a GPU")


def train(config, source, devices, steps: int) -> Run:
    """Trains a new network on these devices: first steps, then timed ones."""
    tf.keras.utils.set_random_seed(config.seed)
    strategy = tf.distribute.MirroredStrategy(devices)
    learner = Learner(config, source, strategy, total_steps=1000)
    batches, _ = loop.distribute_inputs(config, source, strategy, 0)
    iterator = iter(batches)
    losses = learner.train(iterator, tf.constant(COMPARED))[0].numpy()
    began = time.perf_counter()
    timed, waited = learner.train(iterator, tf.constant(steps))
    timed.numpy()  # waits for the device
    seconds = time.perf_counter() - began
    audit = placement.audit(learner.trace_training(iterator))
    rate = steps * learner.global_batch / seconds
    share, operations = float(waited) / seconds, audit.launches.total()
    return Run(losses, rate, share, operations, journal.memory_gb(), learner)


def row(name: str, devices: int, run: Run) -> str:
    """A line of the table."""
    losses = " ".join(f"{loss:.4f}" for loss in run.losses)
    return (
        f"| {name} | {devices} | {losses} | {run.slices_per_s:.1f} | {run.waiting:.1%} "
        f"| {run.operations} | {run.peak_gb:.2f} |"
    )


def predict(learner, source, slices: int) -> str:
    """Exports the network and times it on so many slices, as prediction calls it."""
    recipe = source.dataset.recipe
    network = learner.scored_model
    with tempfile.TemporaryDirectory() as folder:
        version = bundle.save(
            folder,
            lambda images: {bundle.PROBABILITIES: network(images, training=False)[SEGMENT]},
            network.variables,
            bundle.Contents(recipe, learner.config.organs, source.organs),
        )
        model = bundle.load(version)
    images = np.zeros([slices, recipe.size_px, recipe.size_px, recipe.context], np.uint8)
    batches = np.array_split(images, -(-slices // BATCH_SLICES[TENSORFLOW]))
    for batch in (batches[0], batches[-1]):
        model.probabilities(batch)  # compiles
    began = time.perf_counter()
    given = [model.probabilities(batch) for batch in batches]
    seconds = time.perf_counter() - began
    moved = (images.nbytes + sum(one.nbytes for one in given)) / slices / 1e6
    return (
        f"\nPrediction: {slices} slices in {seconds:.2f} s, {slices / seconds:.1f} slices/s; "
        f"{moved:.2f} MB a slice move between host and device"
    )


def repeat(config, source, devices) -> str:
    """Trains twice with --deterministic; the weights must be the same bytes."""
    tf.config.experimental.enable_op_determinism()
    chosen = dataclasses.replace(config, deterministic=True)
    first, second = (
        [v.numpy() for v in train(chosen, source, devices, 1).learner.model.variables]
        for _ in range(2)
    )
    same = all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    return f"Determinism: two runs gave {'the same weights' if same else 'OTHER weights'}"


if __name__ == "__main__":
    app.run(lambda argv: sys.exit(main(argv)))
