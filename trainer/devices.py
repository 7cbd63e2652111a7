"""Which devices train together."""

import json
import os

import tensorflow as tf

from segthor.errors import InputError

_EXAMPLE = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'


def strategy() -> tf.distribute.Strategy:
    """All visible devices of this machine, or of the machines that TF_CONFIG names.

    Without a GPU the logical CPU devices stand in. MirroredStrategy serves one device as well as
    eight.
    """
    text = os.environ.get("TF_CONFIG")
    if text:
        try:
            value = json.loads(text)
            value["cluster"], value["task"]["index"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"TF_CONFIG: expected JSON such as {_EXAMPLE}, found {text}"
            ) from error
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process alone writes into the run's folder."""
    if not several_processes(strategy):
        return True
    resolver = strategy.cluster_resolver
    if "chief" in resolver.cluster_spec().jobs:
        return resolver.task_type == "chief"
    return resolver.task_id == 0


def several_processes(strategy: tf.distribute.Strategy) -> bool:
    """Whether TF_CONFIG made this one of several hosts."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
