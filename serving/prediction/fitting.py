"""Networks on a shared GPU: limits their memory and the number of slices of a batch."""

import contextlib

import numpy as np
import tensorflow as tf

from segthor.errors import InputError


def limit_memory(gigabytes: float) -> None:
    """Limits TensorFlow's memory on each GPU; with 0 it takes memory only as it needs it.

    Must be called before anything is computed. Does nothing without a GPU.
    """
    for gpu in tf.config.list_physical_devices("GPU"):
        if gigabytes:
            limit = tf.config.LogicalDeviceConfiguration(memory_limit=int(gigabytes * 1024))
            tf.config.set_logical_device_configuration(gpu, [limit])
        else:
            with contextlib.suppress(RuntimeError):  # raised after the GPU's first use
                tf.config.experimental.set_memory_growth(gpu, True)


class AdaptiveBatches:
    """Runs a network, in smaller batches after a batch did not fit into memory."""

    def __init__(self):
        self._most = None

    def run(self, network, images: np.ndarray) -> np.ndarray:
        """Returns the network's output for all images, [N, ...].

        network: Callable from a tensor [N, ...] to a tensor [N, ...].

        Raises:
          InputError: A single slice does not fit.
        """
        while True:
            size = max(1, min(self._most or len(images), len(images)))
            try:
                return _run_batches(network, images, size)
            except tf.errors.ResourceExhaustedError as error:
                if size == 1:
                    raise InputError(
                        "out of memory with one slice at a time; raise --gpu_memory_gb, end other "
                        "programs on the GPU, or hide it with CUDA_VISIBLE_DEVICES=-1"
                    ) from error
                self._most = size // 2
            print(f"Out of memory: going on with {self._most} slices at a time", flush=True)


def _run_batches(network, images, size: int) -> np.ndarray:
    starts = range(0, max(len(images), 1), size)
    parts = [network(tf.constant(images[start : start + size])).numpy() for start in starts]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
