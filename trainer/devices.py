"""The devices and processes of a run."""

import json
import os
import re

from segthor.errors import InputError, message_line
from trainer.config import AUTO

_KINDS = ("chief", "worker")
_CPU_INFO = "/proc/cpuinfo"
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}  # instructions that multiply bfloat16
_EXAMPLE = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'


def strategy():
    """Makes a tf.distribute.Strategy of all GPUs of this machine, or of the hosts in TF_CONFIG.

    Without a GPU the logical CPU devices are used. One device also gets a MirroredStrategy.
    """
    import tensorflow as tf  # slow import: an invalid TF_CONFIG is reported first

    if _hosts():
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.OpError as error:
            raise InputError(
                f"TF_CONFIG: this process cannot join the others ({message_line(error)}); expected "
                "an address of its own that is free, and each index on one host alone"
            ) from error
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def resolve_precision(precision: str) -> str:
    """Returns the precision to compute in, one of `config.PRECISIONS`; 'auto' depends on the CPU.

    Weights are stored in float32 in every precision, so another machine can continue a run.
    """
    if precision != AUTO:
        return precision
    import tensorflow as tf

    on_cpu = not tf.config.list_physical_devices("GPU")  # not every GPU multiplies bfloat16
    return "bfloat16" if on_cpu and _BFLOAT16_FLAGS & _cpu_flags() else "float32"


def _cpu_flags() -> set[str]:
    """The processor's features as Linux names them; none on other systems."""
    if not os.path.exists(_CPU_INFO):
        return set()
    with open(_CPU_INFO) as stream:
        lines = [line for line in stream if line.startswith("flags")]
    return set(lines[0].split()) if lines else set()


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
        cluster, task = value["cluster"], value["task"]
        kind, index = task["type"], task["index"]
        named = all(isinstance(hosts, list) and hosts for hosts in cluster.values())
        known = type(index) is int and 0 <= index < len(cluster[kind]) and kind in _KINDS
        addresses = [host for hosts in cluster.values() for host in hosts] if named else []
        is_sound = known and named and all(map(_is_address, addresses))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_sound = False
    if not is_sound or len(set(addresses)) < len(addresses):
        raise InputError(f"TF_CONFIG: expected JSON such as {_EXAMPLE}, found {text:.200}")
    return value


def _is_address(host) -> bool:
    return isinstance(host, str) and bool(re.fullmatch(r"[^\s/]+:[0-9]{1,5}", host))
