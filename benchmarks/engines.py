"""Is another engine faster than TensorFlow on this processor? Unet-resnet34, 256x256x3, forward.

Run from the project's root: python -m benchmarks.engines
It needs packages that the project does not: pip install openvino torch segmentation-models-pytorch

tensorflow  the exported model, as serving.predict calls it
frozen      the same with its weights as constants, so that TensorFlow can fold batch normalisation
openvino    the same SavedModel
torch       a network of the same shape, by the same author, in channels_last, without gradients

The contenders take turns; of each, the quietest round counts. Batches of 16 slices and of 4.
"""

import trainer  # noqa: F401, I001  before tensorflow: sets up its environment
import os
import sys
import time

import numpy as np

from benchmarks import predict
from segthor import memory, model_directory
from serving.prediction import bundle

ROUNDS, SLICES, SIZE_PX, BATCHES = 5, 32, 256, (16, 4)


def main() -> int:
    """Prints slices per second of each engine, and each beside TensorFlow."""
    memory.keep_freed()
    folder = predict._model(4)
    images = np.random.default_rng(0).integers(0, 256, (SLICES, SIZE_PX, SIZE_PX, 3), np.uint8)
    ours = bundle.load(folder).probabilities
    engines = {"tensorflow": ours} | {
        name: make(folder)
        for name, make in (("frozen", _frozen), ("openvino", _openvino), ("torch", _torch))
    }
    far = np.abs(engines["openvino"](images[:4]) - ours(images[:4])).max()
    print(f"{os.cpu_count()} cores; OpenVINO's probabilities differ by at most {far:.1e}")
    for size in BATCHES:
        batches = np.split(images, SLICES // size)
        quickest = dict.fromkeys(engines, float("inf"))
        for round_ in range(ROUNDS + 1):
            for name, engine in engines.items():
                began = time.perf_counter()
                for batch in batches:
                    engine(batch)
                if round_:  # the first one compiles
                    quickest[name] = min(quickest[name], time.perf_counter() - began)
        for name, seconds in quickest.items():
            ratio = quickest["tensorflow"] / seconds
            rate = SLICES / seconds
            print(f"batch {size:3}  {name:12}{rate:6.1f} slices/s  {ratio:.2f} x", flush=True)
    return 0


def _frozen(folder: str):
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2 as freeze,
    )

    loaded = tf.saved_model.load(model_directory.newest(folder))
    constant = freeze(loaded.signatures[bundle.PROBABILITIES])
    return lambda images: constant(images=tf.constant(images))[0].numpy()


def _openvino(folder: str):
    import openvino

    model = openvino.convert_model(model_directory.newest(folder))
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [next(iter(output.names)) for output in compiled.outputs]
    place = next(n for n, name in enumerate(names) if bundle.PROBABILITIES in name)
    return lambda images: compiled([images])[place]


def _torch(_):
    import segmentation_models_pytorch
    import torch

    network = segmentation_models_pytorch.Unet("resnet34", encoder_weights=None, classes=5)
    network = network.eval().to(memory_format=torch.channels_last)

    def forward(images):
        with torch.inference_mode():
            given = torch.from_numpy(images).permute(0, 3, 1, 2).float()
            return network(given).softmax(1).permute(0, 2, 3, 1).numpy()

    return forward


if __name__ == "__main__":
    sys.exit(main())
