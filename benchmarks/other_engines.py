"""The engines of `benchmarks.engines` that need another environment; imports nothing of ours.

Reads lines 'ENGINE BATCH SLICES SIZE_PX' and prints the seconds for each.
"""

import os
import sys
import time

import numpy as np
import openvino
import segmentation_models_pytorch
import torch


def main(folder: str) -> None:
    engines = {
        "openvino": with_openvino(folder, 1),
        "streams": with_openvino(folder, os.cpu_count()),
        "torch": with_torch(),
    }
    for line in sys.stdin:
        name, *numbers = line.split()
        batch, slices, size_px = map(int, numbers)
        images = np.random.default_rng(0).integers(0, 256, (batch, size_px, size_px, 3), np.uint8)
        began = time.perf_counter()
        engines[name](images, slices // batch)
        print(time.perf_counter() - began, flush=True)


def with_openvino(folder: str, streams: int):
    model = openvino.convert_model(folder)
    # Without the first, half precision where the processor has it.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": streams}
    requests = openvino.AsyncInferQueue(openvino.compile_model(model, "CPU", settings), streams)

    def forward(images, count):
        for _ in range(count):
            requests.start_async([images])
        requests.wait_all()

    return forward


def with_torch():
    network = segmentation_models_pytorch.Unet("resnet34", encoder_weights=None, classes=5)
    network = network.eval().to(memory_format=torch.channels_last)

    def forward(images, count):
        with torch.inference_mode():
            for _ in range(count):
                given = torch.from_numpy(images).permute(0, 3, 1, 2).float()
                network(given).softmax(1).permute(0, 2, 3, 1).numpy()

    return forward


if __name__ == "__main__":
    main(*sys.argv[1:])
