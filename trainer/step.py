"""One training step, in the order of its operations.

XLA compiles two parts of it into one function each: the forward and backward pass of a replica
(with --xla), and the update of the weights (on GPUs; on a CPU compilation costs more than it
gains). The sum over replicas lies between them and cannot be compiled.
"""

import tensorflow as tf

from segthor import records
from trainer import augment, data, losses, update
from trainer.exchange import exchange_sides


def train_step(learner, batch, step, learning_rate):
    """Takes one training step; returns the loss of the global batch, float32 [].

    Must be called in cross-replica context, inside a tf.function.

    learner: `trainer.learner.Learner`.
    batch: A global batch of `data.training`, distributed over the devices.
    step: int32 [], the number of steps taken before.
    learning_rate: float32 [].
    """
    strategy = learner.strategy
    loss, gradients = strategy.run(lambda part: summed_gradients(learner, part, step), (batch,))
    for index, device in enumerate(learner.devices):
        # Every device applies the same update to its own copy, so no weights are sent.
        with tf.device(device):
            local = [update.copy_on(gradient, index, strategy) for gradient in gradients]
            # Compiled for a GPU: one launch instead of about twenty for each weight.
            apply = tf.function(_update_weights, jit_compile=learner.compiles_update)
            apply(learner, index, local, step, learning_rate)
    learner.optimizer.iterations.assign_add(1)
    return strategy.reduce("SUM", loss, None)


def summed_gradients(learner, batch, step):
    """Returns a replica's share of the loss, and the gradients summed over all replicas.

    Must be called in replica context. The gradients are of `learner.model.trainable_variables`,
    multiplied by the loss scale.
    """
    compute = _compute_gradients
    if learner.config.xla:
        compute = tf.function(compute, jit_compile=True)
    loss, gradients = compute(learner, batch, step)
    # The weights stay equal on all devices only if all apply the gradients of the global batch.
    return loss, tf.distribute.get_replica_context().all_reduce("SUM", gradients)


def _compute_gradients(learner, batch, step):
    """Returns the loss and the gradients of one replica's slices."""
    config, targets = learner.config, learner.targets
    # Random numbers depend on seed, step and index in the global batch alone: a resumed run and
    # another number of replicas see the same augmented slices.
    draw = batch[data.INDEX], tf.stack([config.seed, step]), config.augment
    images, labels = augment.augment(batch[records.IMAGE], batch[records.LABELS], *draw)
    # A mirrored left lung is a right lung.
    labels, contoured = exchange_sides(labels, batch[records.CONTOURED], *draw, targets.table)
    # Last, since augmentation and exchange need the label values of the dataset.
    truth = targets.channels(labels)
    contoured = targets.contoured(contoured)
    with tf.GradientTape() as tape:
        logits = learner.logits(images, training=True)  # BatchNorm uses this replica's statistics
        annotated = targets.annotated(labels)
        loss = losses.slice_losses(config, logits, truth, targets, contoured, annotated)
        # Divided by the global batch size, so that the sum over replicas is the global mean.
        loss = tf.reduce_sum(loss) / learner.global_batch
        # float16 would round small gradients to 0.
        scaled = loss * learner.loss_scale()
    return loss, tape.gradient(scaled, learner.model.trainable_variables)


def _update_weights(learner, index, gradients, step, learning_rate):
    """Clips the gradients, updates weights and moving average, on device `index`."""
    config, scaling = learner.config, learner.scaling_on(index)
    if scaling:
        gradients = [gradient / scaling[0] for gradient in gradients]
        finite = tf.math.is_finite(tf.linalg.global_norm(gradients))
    if config.clip_norm:
        # One factor for all gradients preserves their direction.
        gradients, _ = tf.clip_by_global_norm(gradients, config.clip_norm)
    weights = learner.weights_on(index)

    def change():
        for weight, gradient in zip(weights, gradients, strict=True):
            update.change(config, weight, gradient, step, learning_rate)

    if scaling:
        # After an overflow of float16 the step changes nothing but the loss scale.
        tf.cond(finite, change, lambda: None)
        for variable, value in zip(scaling, update.rescale(*scaling, finite), strict=True):
            variable.assign(value)
    else:
        change()
    decay = update.average_decay(config, step)
    for weight in weights:
        if weight.average is not None:
            weight.average.assign_sub((1 - decay) * (weight.average - weight.value))
