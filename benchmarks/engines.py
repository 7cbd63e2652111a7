"""Compares TensorFlow with other engines on this processor: Unet-resnet34, 256x256x3, forward.

Run from the project's root: python -m benchmarks.engines PYTHON
PYTHON is the interpreter of another environment, since torch and TensorFlow do not load into one
process: pip install openvino torch segmentation-models-pytorch

tensorflow  the exported model, as serving.predict calls it
ours        the same by serving.predict --engine=openvino, a batch on each core
frozen      the same with its weights as constants, so that TensorFlow can fold batch normalisation;
            its start and its difference from the first are printed too
openvino    the same SavedModel by OpenVINO alone, batch by batch
streams     the same with a batch on each core
torch       a network of the same shape, by the same author, in channels_last, without gradients

The engines take turns; the fastest round of each counts. Batches of 16, 4 and 2 slices.
"""

import trainer  # noqa: F401, I001  before tensorflow: sets up its environment
import os
import subprocess
import sys
import time
from multiprocessing.pool import ThreadPool

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from benchmarks import predict
from segthor import memory, model_directory
from serving.prediction import bundle, engine

ROUNDS, SLICES, SIZE_PX, BATCHES = 5, 32, 256, (16, 4, 2)
OTHERS = ("openvino", "streams", "torch")


def main(python: str) -> int:
    """Prints slices per second of each engine, and its ratio to TensorFlow."""
    memory.keep_freed()
    folder = predict.model_folder(4)
    tensorflow, frozen = bundle.load(folder).probabilities, _frozen(folder)
    openvino = bundle.load(folder, engine.OPENVINO).probabilities
    ours = {"tensorflow": tensorflow, "frozen": frozen, "ours": openvino}
    images = np.random.default_rng(0).integers(0, 256, (SLICES, SIZE_PX, SIZE_PX, 3), np.uint8)
    far = np.abs(tensorflow(images[:4]) - frozen(images[:4])).max()
    print(f"frozen: probabilities differ by at most {far:.1e}")
    command = [python, "benchmarks/other_engines.py", model_directory.newest(folder)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for size in BATCHES:
        batches = np.split(images, SLICES // size)
        seconds = {name: [] for name in (*ours, *OTHERS)}
        for _ in range(ROUNDS + 1):  # the first one compiles
            for name, forward in ours.items():
                at_once = engine.BATCHES_AT_ONCE[engine.OPENVINO] if name == "ours" else 1
                with ThreadPool(at_once) as threads:
                    began = time.perf_counter()
                    threads.map(forward, batches, 1)
                    seconds[name].append(time.perf_counter() - began)
            for name in OTHERS:
                print(name, size, SLICES, SIZE_PX, file=other.stdin, flush=True)
                seconds[name].append(float(other.stdout.readline()))
        best = {name: min(each[1:]) for name, each in seconds.items()}
        for name, each in best.items():
            ratio = best["tensorflow"] / each
            print(
                f"batch {size:2}  {name:12}{SLICES / each:6.1f} slices/s  {ratio:.2f} x", flush=True
            )
    other.stdin.close()
    print(f"{os.cpu_count()} cores, float32")
    return other.wait()


def _frozen(folder: str):
    loaded = tf.saved_model.load(model_directory.newest(folder))
    began = time.perf_counter()
    constant = convert_variables_to_constants_v2(loaded.signatures[bundle.PROBABILITIES])
    print(f"frozen: made in {time.perf_counter() - began:.1f} s")
    return lambda images: constant(images=tf.constant(images))[0].numpy()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("expected one argument: the interpreter of an environment with torch and OpenVINO")
    sys.exit(main(sys.argv[1]))
