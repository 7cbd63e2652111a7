"""A process of test_replicas: takes steps with BatchNorm aside and writes what came of them.

python tests/replica_child.py DATA OUT.npz DEVICES BATCH_PER_DEVICE
"""

import sys

import trainer  # isort: skip  # noqa: F401  before tensorflow
import numpy as np
import tensorflow as tf

from segthor.organs import SEGTHOR
from trainer import data, devices, sources, step
from trainer.config import Config
from trainer.learner import Learner

STEPS = 20


def main(folder, out, count, batch_size):
    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration()] * int(count)
    tf.config.set_logical_device_configuration(cpu, logical)
    tf.keras.utils.set_random_seed(0)
    # AdamW would divide tiny gradients by themselves and blow up their rounding; so would higher
    # rates, since without BatchNorm's statistics they shake the network.
    config = Config(
        organs=SEGTHOR.names,
        decoder="pspnet",
        backbone="resnet18",
        batch_size=int(batch_size),
        optimizer="sgd",
        learning_rate=0.001,
        clip_norm=0.5,
        ema=0.9,
    )
    source = sources.open_source(folder, None)
    strategy = devices.strategy()
    learner = Learner(config, source, strategy, 10)
    for network in (learner.model, learner.averaged):
        _freeze_statistics(network)

    def stream(context):
        worker = (context.input_pipeline_id, context.num_input_pipelines)
        rows = data.training(source, config, learner.global_batch, 0, worker)
        return data.per_replica(rows, config.batch_size)

    before = learner.model.get_weights()
    batches = strategy.distribute_datasets_from_function(stream)
    loss, gradient = first_gradient(learner, next(iter(batches)))
    losses, _ = learner.train(iter(batches), tf.constant(STEPS))
    learner.finish_average()
    held_out = strategy.distribute_datasets_from_function(
        lambda context: data.per_replica(
            data.evaluation(
                source,
                learner.global_batch,
                (context.input_pipeline_id, context.num_input_pipelines),
            ),
            config.batch_size,
        )
    )
    places, _, counts = zip(*(learner.counts(batch) for batch in held_out), strict=True)
    found = {  # every process takes part in reading what replicas hold
        "loss": loss,
        "losses": losses,
        "places": np.concatenate(places),
        "counts": np.concatenate(counts),
        **{f"gradient{i}": g for i, g in enumerate(gradient)},
        **{f"before{i}": w for i, w in enumerate(before)},
        **{f"weight{i}": w for i, w in enumerate(learner.model.get_weights())},
        **{f"averaged{i}": w for i, w in enumerate(learner.averaged.get_weights())},
    }
    if devices.is_chief():
        np.savez(out, **found)


def first_gradient(learner, batch):
    @tf.function
    def both(batch):
        loss, gradient = learner.strategy.run(
            lambda part: step.summed_gradients(learner, part, tf.constant(0)), (batch,)
        )
        return learner.strategy.reduce("SUM", loss, None), [
            learner.strategy.experimental_local_results(g)[0] for g in gradient
        ]

    loss, gradient = both(batch)
    return loss.numpy(), [g.numpy() for g in gradient]


def _freeze_statistics(model):
    for layer in model.submodules:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.trainable = False


if __name__ == "__main__":
    main(*sys.argv[1:])
