"""The arithmetic of the optimizers, and the variables that they keep between steps."""

import re
from dataclasses import dataclass

import tensorflow as tf

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7  # AdamW: Keras' values
MOMENTUM = 0.9  # SGD, with Nesterov's correction
_NOT_DECAYED = re.compile("bias|gamma|beta")
_DOUBLE_AFTER = 2000  # steps with finite gradients after which the loss scale doubles; as in Keras


@dataclass(frozen=True)
class Weight:
    """A trainable weight with its optimizer variables, all of one shape.

    value: The network's weight.
    average: The moving average of the value, or None.
    moments: AdamW's first and second moment, or SGD's momentum.
    """

    value: tf.Variable
    average: tf.Variable | None
    moments: tuple[tf.Variable, ...]

    def on_device(self, index: int, strategy) -> "Weight":
        """The copies on device `index` of this process."""
        average = self.average
        if average is not None:
            average = copy_on(average, index, strategy)
        moments = tuple(copy_on(moment, index, strategy) for moment in self.moments)
        return Weight(copy_on(self.value, index, strategy), average, moments)


def copy_on(variable, index: int, strategy):
    """The copy of a distributed variable or value on device `index` of this process."""
    return strategy.experimental_local_results(variable)[index]


def make_optimizer(config, variables):
    """Makes the Keras optimizer that holds step, learning rate, moments and loss scale.

    It only stores these variables, in the layout of Keras' checkpoints. `change` computes the
    update, since Keras launches about twenty operations for each weight.
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
    """The moments of each variable that the optimizer was built for; see `Weight.moments`."""
    plain = without_scaling(optimizer)
    if isinstance(plain, tf.keras.optimizers.AdamW):
        return list(zip(plain._momentums, plain._velocities, strict=True))
    return [(momentum,) for momentum in plain.momentums]


def without_scaling(optimizer):
    """The optimizer inside a LossScaleOptimizer; any other optimizer itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def scaling_of(optimizer):
    """Loss scale of float16 and the number of steps since it changed; None without scaling."""
    if optimizer is without_scaling(optimizer):
        return None
    return optimizer._loss_scale.current_loss_scale, optimizer.dynamic_counter


def change(config, weight: Weight, gradient, step, rate) -> None:
    """Changes a weight and its moments in place.

    TensorFlow's fused operations need one pass over memory; XLA compiles them, too.

    step: int32 [], the number of steps taken before.
    rate: float32 [], the learning rate.
    """
    value = weight.value
    if config.weight_decay and not _NOT_DECAYED.search(value.name):
        value.assign_sub(value * (config.weight_decay * rate))  # decoupled: no moment sees it
    apply = _apply_sgd if config.optimizer == "sgd" else _apply_adam
    apply(value.handle, [moment.handle for moment in weight.moments], gradient, step, rate)


def _apply_sgd(value, moments, gradient, step, rate):
    del step
    tf.raw_ops.ResourceApplyKerasMomentum(
        var=value, accum=moments[0], grad=gradient, lr=rate, momentum=MOMENTUM, use_nesterov=True
    )


def _apply_adam(value, moments, gradient, step, rate):
    taken = tf.cast(step + 1, tf.float32)
    tf.raw_ops.ResourceApplyAdam(
        var=value,
        m=moments[0],
        v=moments[1],
        # Bias correction: the moments start at 0 (Kingma and Ba, Adam, ICLR 2015, section 3).
        beta1_power=BETA_1**taken,
        beta2_power=BETA_2**taken,
        lr=rate,
        beta1=BETA_1,
        beta2=BETA_2,
        epsilon=EPSILON,
        grad=gradient,
    )


def average_decay(config, step):
    """Decay of the moving average, float32 []; smaller at first, to forget the random start."""
    taken = tf.cast(step + 1, tf.float32)
    return tf.minimum(config.ema, (1 + taken) / (10 + taken))


def rescale(scale, since, finite):
    """Returns the next loss scale and the steps since it changed.

    The scale is halved after an overflow and doubled after `_DOUBLE_AFTER` steps without.

    finite: bool [], whether the gradients of this step were finite.
    """
    double = since + 1 >= _DOUBLE_AFTER
    larger = tf.where(double & tf.math.is_finite(scale * 2), scale * 2, scale)
    smaller = tf.maximum(scale / 2, 1.0)
    next_since = tf.where(finite & ~double, since + 1, tf.zeros_like(since))
    return tf.where(finite, larger, smaller), next_since
