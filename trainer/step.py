"""One training step, in the order in which it happens.

XLA compiles two parts into one function each: what a replica does with its own slices, with --xla;
and the update, on GPUs (on a processor compiling takes memory and time and gains little). Summing
over the replicas lies between them and cannot be compiled.
"""

import tensorflow as tf

from segthor import records
from trainer import augment, data, losses, update
from trainer.exchange import exchange_sides


def train_step(learner, batch, step, rate):
    """Takes one training step; returns the loss of the global batch, float32 [].

    To be called in cross-replica context, inside a tf.function.

    learner: `trainer.learner.Learner`. batch: of `data.training`, shared out to the devices. step:
    int32 [], the steps taken before. rate: the learning rate, float32 [].
    """
    strategy = learner.strategy
    loss, gradients = strategy.run(lambda part: summed_gradients(learner, part, step), (batch,))
    for place, device in enumerate(learner.devices):
        # Each device changes its own copy, all of them alike: no weight has to be sent.
        with tf.device(device):
            own = [update.copy_on(gradient, place, strategy) for gradient in gradients]
            # Compiled for a GPU: one launch instead of some twenty for each weight.
            change = tf.function(_update_weights, jit_compile=learner.compiles_update)
            change(learner, place, own, step, rate)
    learner.optimizer.iterations.assign_add(1)
    return strategy.reduce("SUM", loss, None)


def summed_gradients(learner, batch, step):
    """In one replica: its share of the loss, and the gradients summed over all replicas.

    The gradients are of `learner.model.trainable_variables`, times the loss scale.
    """
    own = tf.function(_own_gradients, jit_compile=True) if learner.config.xla else _own_gradients
    loss, gradients = own(learner, batch, step)
    # Equal weights on all devices need equal gradients, those of the global batch.
    return loss, tf.distribute.get_replica_context().all_reduce("SUM", gradients)


def _own_gradients(learner, batch, step):
    """Loss and gradients of one replica's slices."""
    config, targets = learner.config, learner.targets
    # Run, step and each slice's place in the global batch decide all draws: a resumed run and
    # another number of replicas see the same pictures.
    drawn = batch[data.INDEX], tf.stack([config.seed, step]), config.augment
    images, labels = augment.augment(batch[records.IMAGE], batch[records.LABELS], *drawn)
    # A mirrored left lung is a right lung.
    labels, contoured = exchange_sides(labels, batch[records.CONTOURED], *drawn, targets.table)
    truth = targets.channels(labels)  # after the two, which know the dataset's labels alone
    contoured = targets.contoured(contoured)
    with tf.GradientTape() as tape:
        logits = learner.logits(images, training=True)  # BatchNorm takes this replica's statistics
        annotated = targets.annotated(labels)
        loss = losses.of_slices(config, logits, truth, targets, contoured, annotated)
        # Divided by the global batch, the shares of all replicas sum up to its mean.
        loss = tf.reduce_sum(loss) / learner.global_batch
        scaled = loss * learner.loss_scale()  # small gradients would be 0 in float16
    return loss, tape.gradient(scaled, learner.model.trainable_variables)


def _update_weights(learner, place, gradients, step, rate):
    """Clips the gradients, changes the weights and averages them, on one device of this process."""
    config, scaling = learner.config, learner.scaling_on(place)
    if scaling:
        gradients = [gradient / scaling[0] for gradient in gradients]
        finite = tf.math.is_finite(tf.linalg.global_norm(gradients))
    if config.clip_norm:
        # One factor for all of them keeps the gradient's direction.
        gradients, _ = tf.clip_by_global_norm(gradients, config.clip_norm)
    weights = learner.weights_on(place)

    def change():
        for weight, gradient in zip(weights, gradients, strict=True):
            update.change(config, weight, gradient, step, rate)

    if scaling:
        # Where float16 overflowed, the step changes nothing but the scale.
        tf.cond(finite, change, lambda: None)
        for variable, value in zip(scaling, update.rescale(*scaling, finite), strict=True):
            variable.assign(value)
    else:
        change()
    decay = update.average_decay(config, step)
    for weight in weights:
        if weight.average is not None:
            weight.average.assign_sub((1 - decay) * (weight.average - weight.value))
