"""Which devices train together."""

import json
import os

from segthor.errors import InputError

_EXAMPLE = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'


def strategy():
    """A tf.distribute.Strategy of all visible devices of this machine, or of those of TF_CONFIG.

    Without a GPU the logical CPU devices stand in. MirroredStrategy serves one device as well as
    eight.
    """
    import tensorflow as tf  # here, so that whether TF_CONFIG makes sense is known before

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


def several_processes() -> bool:
    """Whether TF_CONFIG makes this one of several hosts."""
    return _hosts() is not None


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
