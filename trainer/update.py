"""What the optimizers do to a weight, and the variables that they remember between steps."""

import re
from dataclasses import dataclass

import tensorflow as tf

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7  # AdamW: Keras' values
MOMENTUM = 0.9  # SGD, with Nesterov's correction
_NOT_DECAYED = re.compile("bias|gamma|beta")
_DOUBLE_AFTER = 2000  # steps with finite gradients, after which float16's loss scale doubles


@dataclass(frozen=True)
class Weight:
    """A trainable weight and what belongs to it; variables of one shape.

    value: The network's weight.
    average: The moving average of the value, or None.
    moments: AdamW's first and second moment, or SGD's momentum.
    """

    value: tf.Variable
    average: tf.Variable | None
    moments: tuple[tf.Variable, ...]

    def on_device(self, place: int, strategy) -> "Weight":
        """The copies on device number `place` of this process."""
        average = self.average
        if average is not None:
            average = copy_on(average, place, strategy)
        moments = tuple(copy_on(moment, place, strategy) for moment in self.moments)
        return Weight(copy_on(self.value, place, strategy), average, moments)


def copy_on(variable, place: int, strategy):
    """The copy of a distributed variable or value on device number `place` of this process."""
    return strategy.experimental_local_results(variable)[place]


def make_optimizer(config, variables):
    """The Keras optimizer that holds step, learning rate, moments and float16's loss scale.

    It holds them for the sake of checkpoints; `change` computes. Keras itself launches some twenty
    operations for each weight.
    """
    if config.optimizer == "adamw":
        optimizer = tf.keras.optimizers.AdamW(config.learning_rate)
    else:
        optimizer = tf.keras.optimizers.SGD(config.learning_rate, MOMENTUM, nesterov=True)
    if config.precision == "float16":
        optimizer = tf.keras.mixed_precision.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    return optimizer


def moments_of(optimizer) -> list[tuple]:
    """The optimizer's variables for each of the variables that it was built for."""
    plain = without_scaling(optimizer)
    if isinstance(plain, tf.keras.optimizers.AdamW):
        return list(zip(plain._momentums, plain._velocities, strict=True))
    return [(momentum,) for momentum in plain.momentums]


def without_scaling(optimizer):
    """The optimizer itself, or the one that scales no loss inside it."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def scaling_of(optimizer):
    """float16's variables: the loss scale, and the steps since it changed; None without."""
    if optimizer is without_scaling(optimizer):
        return None
    return optimizer._loss_scale.current_loss_scale, optimizer.dynamic_counter


def change(config, weight: Weight, gradient, step, rate) -> None:
    """Changes a weight and its moments in place.

    TensorFlow's fused operations do it in one pass over memory, and XLA compiles them.

    step: the steps taken before, int32 []. rate: the learning rate, float32 [].
    """
    value = weight.value
    if config.weight_decay and not _NOT_DECAYED.search(value.name):
        value.assign_sub(value * (config.weight_decay * rate))  # decoupled: no moment sees it
    moments = [moment.handle for moment in weight.moments]
    if config.optimizer == "sgd":
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=value.handle,
            accum=moments[0],
            lr=rate,
            grad=gradient,
            momentum=MOMENTUM,
            use_nesterov=True,
        )
        return
    taken = tf.cast(step + 1, tf.float32)
    tf.raw_ops.ResourceApplyAdam(
        var=value.handle,
        m=moments[0],
        v=moments[1],
        beta1_power=BETA_1**taken,  # the moments start at 0; these make up for it
        beta2_power=BETA_2**taken,
        lr=rate,
        beta1=BETA_1,
        beta2=BETA_2,
        epsilon=EPSILON,
        grad=gradient,
    )


def average_decay(config, step):
    """The share of the moving average that stays: less at first, to forget the random start."""
    taken = tf.cast(step + 1, tf.float32)
    return tf.minimum(config.ema, (1 + taken) / (10 + taken))


def rescale(scale, since, finite):
    """The next loss scale (halved after an overflow, doubled after many steps without), its age."""
    double = since + 1 >= _DOUBLE_AFTER
    larger = tf.where(double & tf.math.is_finite(scale * 2), scale * 2, scale)
    smaller = tf.maximum(scale / 2, 1.0)
    counted = tf.where(finite & ~double, since + 1, tf.zeros_like(since))
    return tf.where(finite, larger, smaller), counted
