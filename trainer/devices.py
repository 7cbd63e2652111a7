"""The devices and processes of a run."""

import json
import os

from segthor.errors import InputError

_EXAMPLE = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'


def strategy():
    """Makes a tf.distribute.Strategy of all GPUs of this machine, or of the hosts in TF_CONFIG.

    Without a GPU the logical CPU devices are used. One device also gets a MirroredStrategy.
    """
    import tensorflow as tf  # slow import: an invalid TF_CONFIG is reported first

    if _hosts():
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def is_chief() -> bool:
    """Whether this process writes into the run's folder: the only one, or TF_CONFIG's chief.

    Raises:
      InputError: TF_CONFIG is invalid.
    """
    hosts = _hosts()
    if hosts and "chief" in hosts["cluster"]:
        return hosts["task"].get("type") == "chief"
    return not hosts or hosts["task"]["index"] == 0


def several_processes() -> bool:
    """Whether TF_CONFIG names several hosts."""
    return _hosts() is not None


def _hosts() -> dict | None:
    """The content of TF_CONFIG; None where it is not set."""
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        value = json.loads(text)
        value["cluster"].items(), value["task"]["index"] + 0
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"TF_CONFIG: expected JSON such as {_EXAMPLE}, found {text}") from error
    return value
