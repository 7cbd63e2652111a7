"""What computes a SavedModel's outputs: TensorFlow, or OpenVINO on a processor."""

import sys
import threading

import numpy as np

from segthor.errors import InputError

TENSORFLOW, OPENVINO = "tensorflow", "openvino"
ENGINES = (TENSORFLOW, OPENVINO)
# Slices at once, by measuring: larger batches win nothing and fill the cache (docs/performance.md).
BATCH_SLICES = {TENSORFLOW: 16, OPENVINO: 4}


def require(engine: str) -> None:
    """Raises InputError where the engine's package is missing."""
    if engine == OPENVINO:
        _openvino()


def with_openvino(path: str) -> dict:
    """Output -> its callable, of the signature that a SavedModel serves by default.

    The callable takes uint8 [N, H, W, C] and gives float32. It computes in float32 also where the
    processor has half precisions, which OpenVINO would take by itself.

    Raises:
      InputError: OpenVINO is missing or cannot read the model.
    """
    openvino = _openvino()
    try:
        model = openvino.Core().read_model(path)
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        compiled = openvino.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or ["no reason"])[-1]
        raise InputError(f"{path}: OpenVINO cannot read the model ({reason})") from error
    request, alone = compiled.create_infer_request(), threading.Lock()

    def call(images: np.ndarray) -> np.ndarray:
        with alone:  # the thread of a case that was given up may still be in here
            return request.infer([np.ascontiguousarray(images)], share_inputs=True)[0]

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
