"""The inference engines: TensorFlow, or OpenVINO on a CPU."""

import os
import queue
import sys

import numpy as np

from segthor.errors import InputError, message_line

TENSORFLOW, OPENVINO = "tensorflow", "openvino"
ENGINES = (TENSORFLOW, OPENVINO)
# Measured, see docs/performance.md. OpenVINO computes each batch on one core, so that no core waits
# for another. TensorFlow uses all cores for one batch; a second one would take a fifth more memory
# for 5 % more speed.
BATCH_SLICES = {TENSORFLOW: 16, OPENVINO: 2}
BATCHES_AT_ONCE = {TENSORFLOW: 1, OPENVINO: min(os.cpu_count() or 1, 8)}


def require(engine: str) -> None:
    """Raises InputError if the package of the engine is not installed."""
    if engine == OPENVINO:
        _openvino()


def with_openvino(path: str) -> dict:
    """Compiles the default signature of a SavedModel; returns its output's name to a callable.

    The callable takes uint8 [N, H, W, C], returns float32, and may be called from as many threads
    at once as BATCHES_AT_ONCE.

    Raises:
      InputError: OpenVINO is not installed or cannot read the model.
    """
    openvino = _openvino()
    try:
        model = openvino.Core().read_model(path)
        # By default OpenVINO computes in half precision where the CPU supports it.
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
    # OpenVINO reports its import to its vendor unless this package is missing; a clinic must not.
    sys.modules.setdefault("openvino_telemetry", None)
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise InputError(
            "--engine=openvino needs the package openvino; install it with "
            "pip install segthor[openvino]"
        ) from error
    return openvino
