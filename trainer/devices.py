"""Which devices train together."""

import json
import os

import tensorflow as tf

from segthor.errors import InputError


def strategy() -> tf.distribute.Strategy:
    """All visible devices of this machine, or of the machines that TF_CONFIG names.

    Without a GPU the logical CPU devices stand in. MirroredStrategy serves one device as well as
    eight.
    """
    if os.environ.get("TF_CONFIG"):
        try:
            json.loads(os.environ["TF_CONFIG"])["task"]["index"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                'TF_CONFIG: expected JSON such as {"cluster": {"worker": ["host:port", ...]}, '
                f'"task": {{"type": "worker", "index": 0}}}}, found {os.environ["TF_CONFIG"]}'
            ) from error
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process alone writes into the run's folder."""
    resolver = strategy.cluster_resolver
    return resolver is None or resolver.task_type == "chief" or resolver.task_id in (0, None)
