"""Sets the libraries' environment variables, so that a user's settings do not change results.

Imports only Python's own modules: it must run before TensorFlow and matplotlib are imported.
"""

import os
import shutil

_SET = {
    # segmentation_models needs Keras 2; TensorFlow chooses the version on its first import.
    "TF_USE_LEGACY_KERAS": "1",
    "SM_FRAMEWORK": "tf.keras",
    "KERAS_BACKEND": "tensorflow",
    # An impossible folder, so that Keras neither reads nor writes a keras.json (order of axes,
    # precision). Pretrained weights stay in ~/.keras/models.
    "KERAS_HOME": os.path.join(os.devnull, "keras"),
    "TF2_BEHAVIOR": "1",
    # By default TensorFlow takes all of a GPU's memory at its start, also from other processes.
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "MPLBACKEND": "Agg",
}
# These change TensorFlow's results: precision, kernels or their order.
_REMOVED = (
    "AUTOGRAPH_STRICT_CONVERSION NVIDIA_TF32_OVERRIDE TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_LEVEL "
    "TF_CONV2D_USE_FP16_ACCUMULATE TF_CUDNN_DETERMINISTIC TF_DETERMINISTIC_OPS "
    "TF_DISABLE_JIT_KERNELS TF_ENABLE_AUTO_MIXED_PRECISION "
    "TF_ENABLE_AUTO_MIXED_PRECISION_GRAPH_REWRITE TF_ENABLE_ONEDNN_OPTS TF_ENABLE_ZENDNN_OPTS "
    "TF_FP16_CONV_USE_FP32_COMPUTE TF_FP16_MATMUL_USE_FP32_COMPUTE TF_SET_ONEDNN_FPMATH_MODE "
    "TF_USE_DEEP_CONV2D TF_XLA_FLAGS"
).split()
_removed_here: list[str] = []


def has_nvidia_gpu() -> bool:
    """Whether the machine has an NVIDIA GPU that the user has not hidden."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return False
    return os.path.exists("/dev/nvidia0") or shutil.which("nvidia-smi") is not None


def prepare() -> list[str]:
    """Sets the variables; returns the names of the user's variables that this process removed."""
    _removed_here.extend(name for name in _REMOVED if os.environ.pop(name, None) is not None)
    os.environ.update(_SET)
    if has_nvidia_gpu():
        # Separate threads launch each GPU's kernels, so that decoding does not delay them.
        os.environ.setdefault("TF_GPU_THREAD_MODE", "gpu_private")
    return _removed_here
