"""The compiled update is Keras' optimizer: clipping, weight decay, moments, loss scale, average."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from trainer import step, update
from trainer.config import Config

STEPS = 6
NAMES = ("kernel", "bias", "gamma")


def variables():
    rng = np.random.default_rng(0)
    return [tf.Variable(rng.normal(size=(3, 4)).astype(np.float32), name=name) for name in NAMES]


def gradients(number, broken=()):
    rng = np.random.default_rng(number + 1)
    values = [rng.normal(size=(3, 4)).astype(np.float32) for _ in NAMES]
    if number in broken:
        values[1][0, 0] = np.inf
    return [tf.constant(value) for value in values]


def rate(number):
    return tf.constant(0.05 / (number + 1), tf.float32)


def ours(config, broken=()):
    """Weights, averages and loss scale after some steps of `step`."""
    weights, averages = variables(), variables()
    optimizer = update.make_optimizer(config, weights)
    rows = zip(weights, averages, update.moments_of(optimizer), strict=True)
    rows = [update.Weight(*row) for row in rows]
    scaling = update.scaling_of(optimizer)
    learner = SimpleNamespace(
        config=config, weights_on=lambda _: rows, scaling_on=lambda _: scaling
    )
    compiled = tf.function(functools.partial(step._update_weights, learner, 0), jit_compile=True)
    for number in range(STEPS):
        scale = scaling[0] if scaling else 1.0
        scaled = [gradient * scale for gradient in gradients(number, broken)]
        compiled(scaled, tf.constant(number), rate(number))
    return weights, averages, scaling


def keras(config, broken=()):
    """The same by Keras' own optimizers, step by step; the average by its definition."""
    weights = variables()
    averages = [weight.numpy() for weight in weights]
    common = {"learning_rate": 0.0, "weight_decay": config.weight_decay, "jit_compile": False}
    if config.optimizer == "adamw":
        optimizer = tf.keras.optimizers.AdamW(**common)
    else:
        optimizer = tf.keras.optimizers.SGD(momentum=0.9, nesterov=True, **common)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    plain = optimizer
    if config.precision == "float16":
        optimizer = tf.keras.mixed_precision.LossScaleOptimizer(optimizer)
    for number in range(STEPS):
        plain.learning_rate.assign(rate(number))
        given = gradients(number, broken)
        if config.precision == "float16":
            given = optimizer.get_unscaled_gradients([g * optimizer.loss_scale for g in given])
        if number not in broken:
            given, _ = tf.clip_by_global_norm(given, config.clip_norm)
        optimizer.apply_gradients(zip(given, weights, strict=True))
        decay = min(config.ema, (1 + number + 1) / (10 + number + 1))
        pairs = zip(averages, weights, strict=True)
        averages = [decay * old + (1 - decay) * new.numpy() for old, new in pairs]
    return weights, averages, getattr(optimizer, "loss_scale", None)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("precision, broken", [("float32", ()), ("float16", (2, 3))])
def test_the_update_is_that_of_keras(optimizer, precision, broken):
    config = Config(
        optimizer=optimizer, precision=precision, clip_norm=2.0, weight_decay=0.1, ema=0.9
    )
    (weights, averages, scaling), expected = ours(config, broken), keras(config, broken)
    for found, wanted in zip([*weights, *averages], [*expected[0], *expected[1]], strict=True):
        np.testing.assert_allclose(found.numpy(), np.asarray(wanted), rtol=1e-5, atol=1e-6)
    if scaling:
        assert scaling[0].numpy() == expected[2].numpy() == 2.0**15 / 4
        assert scaling[1].numpy() == STEPS - 4


def test_the_loss_scale_doubles_after_2000_finite_steps_and_never_overflows():
    for scale, since, finite, expected in (
        (8.0, 1998, True, (8.0, 1999)),
        (8.0, 1999, True, (16.0, 0)),
        (8.0, 1999, False, (4.0, 0)),
        (1.0, 5, False, (1.0, 0)),
        (2.0**127, 1999, True, (2.0**127, 0)),
    ):
        found = update.rescale(
            tf.constant(scale), tf.constant(since, tf.int64), tf.constant(finite)
        )
        assert tuple(float(value) for value in found) == expected
