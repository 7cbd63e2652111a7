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
    if _hosts():
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def is_chief() -> bool:
    """Whether this process alone writes into the run's folder: the only one, or TF_CONFIG's first.

    Raises:
      InputError: TF_CONFIG makes no sense.
    """
    hosts = _hosts()
    if hosts and "chief" in hosts["cluster"]:
        return hosts["task"].get("type") == "chief"
    return not hosts or hosts["task"]["index"] == 0


def several_processes(strategy: tf.distribute.Strategy) -> bool:
    """Whether TF_CONFIG made this one of several hosts."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def _hosts() -> dict | None:
    """TF_CONFIG, where it is set."""
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        value = json.loads(text)
        value["cluster"].items(), value["task"]["index"] + 0
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"TF_CONFIG: expected JSON such as {_EXAMPLE}, found {text}") from error
    return value
