"""What computes a SavedModel's outputs: TensorFlow, or OpenVINO on a processor."""

import os
import queue
import sys

import numpy as np

from segthor.errors import InputError, message_line

TENSORFLOW, OPENVINO = "tensorflow", "openvino"
ENGINES = (TENSORFLOW, OPENVINO)
# Slices of a batch and batches at once, by measuring (docs/performance.md). OpenVINO gives each
# batch a core of its own, so that none waits for the slowest part of another; TensorFlow shares all
# cores in any case, and a second batch would cost it a fifth more memory for 5 % more speed.
BATCH_SLICES = {TENSORFLOW: 16, OPENVINO: 2}
BATCHES_AT_ONCE = {TENSORFLOW: 1, OPENVINO: min(os.cpu_count() or 1, 8)}


def require(engine: str) -> None:
    """Raises InputError where the engine's package is missing."""
    if engine == OPENVINO:
        _openvino()


def with_openvino(path: str) -> dict:
    """Output -> its callable, of the signature that a SavedModel serves by default.

    The callable takes uint8 [N, H, W, C] and gives float32, in as many threads at once as
    BATCHES_AT_ONCE says. It computes in float32 also where the processor has half precisions, which
    OpenVINO would take by itself.

    Raises:
      InputError: OpenVINO is missing or cannot read the model.
    """
    openvino = _openvino()
    try:
        model = openvino.Core().read_model(path)
        settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": BATCHES_AT_ONCE[OPENVINO]}
        compiled = openvino.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        reason = message_line(error, -1)
        raise InputError(f"{path}: OpenVINO cannot read the model ({reason})") from error
    free = queue.SimpleQueue()
    for _ in range(BATCHES_AT_ONCE[OPENVINO]):
        free.put(compiled.create_infer_request())

    def call(images: np.ndarray) -> np.ndarray:
        request = free.get()
        try:
            return request.infer([np.ascontiguousarray(images)], share_inputs=True)[0]
        finally:
            free.put(request)

    return {model.output(0).get_any_name(): call}


def _openvino():
    # It tells its makers of every import, unless its telemetry is missing: ours is a clinic's.
    sys.modules.setdefault("openvino_telemetry", None)
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise InputError(
            "--engine=openvino needs the package openvino; install it with "
            "pip install segthor[openvino]"
        ) from error
    return openvino
