"""The learning rate as a function of the step, in TensorFlow operations."""

import math

import tensorflow as tf

ONECYCLE_START, ONECYCLE_END = 1 / 25, 1e-4  # shares of the peak; Smith and Topin, 2018


def learning_rate(config, step, total_steps, drop, offset=0.0):
    """The learning rate at a step, float32 [].

    onecycle rises from 1/25 of the peak and falls to nearly 0, both along a half cosine; cosine
    rises linearly from 0 and falls to 0 along a half cosine; plateau is the peak times `drop`.

    step: int32 [], from 0.
    total_steps: float32 [].
    drop: float32 [], which the loop halves after `patience` validations without a better score.
    offset: float32 [], see `length.Length`.
    """
    # TensorFlow replaces a division by a constant by this product. Written out, it gives the same
    # bits in a run with --minutes, where the number of steps is a variable.
    per_step = (1 - offset) / total_steps
    done = tf.cast(step, tf.float32) * per_step + offset
    warmup = max(config.warmup, 1e-9)
    falling = (done - config.warmup) / (1 - config.warmup)
    if config.schedule == "onecycle":
        share = tf.where(
            done < warmup,
            _half_cosine(ONECYCLE_START, 1.0, done / warmup),
            _half_cosine(1.0, ONECYCLE_END, falling),
        )
    elif config.schedule == "cosine":
        rising = (done + per_step) / warmup  # a first step at rate 0 would be wasted
        share = tf.where(done < warmup, tf.minimum(rising, 1.0), _half_cosine(1.0, 0.0, falling))
    else:
        share = drop if config.schedule == "plateau" else 1.0
    return config.learning_rate * share


def _half_cosine(start, end, progress):
    progress = tf.clip_by_value(progress, 0.0, 1.0)
    return end + (start - end) * (1 + tf.cos(math.pi * progress)) / 2
