"""Published ImageNet weights of the encoders, and the image scaling that each expects.

Files, addresses and checksums are those of classification_models, efficientnet and
keras_applications; a test compares them. Combinations that are not listed were not published.
"""

import hashlib
import os

import numpy as np
import tensorflow as tf
from classification_models.weights import WEIGHTS_COLLECTION
from efficientnet.model import BASE_WEIGHTS_PATH, WEIGHTS_HASHES

from segthor import files
from segthor.errors import InputError

_CHOLLET = "https://github.com/fchollet/deep-learning-models/releases/download/"
_KERAS = "https://github.com/keras-team/keras-applications/releases/download/densenet/"
_MOBILE = "https://github.com/JonathanCMitchell/mobilenet_v2_keras/releases/download/v1.1/"
_ORDER = "_weights_tf_dim_ordering_tf_kernels_notop.h5"
# (backbone, weights) to (file, URL of its folder, checksum). The checksum is an md5; a sha256 for
# efficientnet; '' for the mobilenets, whose library has none.
PUBLISHED = {
    (row["model"], row["dataset"]): (row["name"], row["url"].removesuffix(row["name"]), row["md5"])
    for row in WEIGHTS_COLLECTION
    if not row["include_top"]
}
for _name, _folder, _md5 in (
    ("vgg16", _CHOLLET + "v0.1/", "6d6bbae143d832006294945121d1f1fc"),
    ("vgg19", _CHOLLET + "v0.1/", "253f8cb515780f3b799900260a226db6"),
    ("densenet121", _KERAS, "30ee3e1110167f948a6b9946edeeb738"),
    ("densenet169", _KERAS, "b8c4d4c20dd625c148057b9ff1c1176b"),
    ("densenet201", _KERAS, "c13680b51ded0fb44dff2d8f86ac8bb1"),
    ("inception_v3", _CHOLLET + "v0.5/", "bcbd6486424b2319ff4ef7d526e38f63"),
    ("inception_resnet_v2", _CHOLLET + "v0.7/", "d19885ff4a710c122648d3b5c3b684e4"),
):
    PUBLISHED[_name.replace("_", ""), "imagenet"] = (_name + _ORDER, _folder, _md5)
for _number in range(8):
    _name = f"efficientnet-b{_number}"
    _file = _name + _ORDER.replace("notop", "autoaugment_notop")
    _sha256 = WEIGHTS_HASHES[_name][1]
    PUBLISHED[f"efficientnetb{_number}", "imagenet"] = (_file, BASE_WEIGHTS_PATH, _sha256)
_name = "mobilenet_1_0_224_tf_no_top.h5"
PUBLISHED["mobilenet", "imagenet"] = (_name, _CHOLLET + "v0.6/", "")
_name = "mobilenet_v2" + _ORDER.replace("notop", "1.0_224_no_top")
PUBLISHED["mobilenetv2", "imagenet"] = (_name, _MOBILE, "")

NONE = "none"
_CACHE = "~/.keras/models"
_CAFFE_MEAN_RGB = [123.68, 116.779, 103.939]
_TORCH_MEAN_RGB, _TORCH_STD_RGB = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def find_file(choice: str, backbone: str) -> str | None:
    """Returns the path of the file that `--encoder_weights` names; None for random weights.

    choice: 'none', a published set such as 'imagenet' (downloaded once into Keras' cache), a file,
      or a folder with the published file of this backbone.

    Raises:
      InputError: The set was not published, or the file is missing, damaged or not available.
    """
    if choice == NONE:
        return None
    if (backbone, choice) in PUBLISHED:  # even where a file of this name exists; ./imagenet is one
        return _download(*PUBLISHED[backbone, choice])
    if choice not in {name for _, name in PUBLISHED}:
        if os.path.isfile(choice):
            return choice
        if os.path.isdir(choice):
            return _find_in_folder(choice, backbone)
    sets = [NONE, *(name for owner, name in PUBLISHED if owner == backbone)]
    raise InputError(
        f"--encoder_weights: expected one of {', '.join(sets)} for {backbone}, a file or a folder, "
        f"found {choice}"
    )


def scaling(backbone: str | None, context: int = 3) -> list[tf.keras.layers.Layer]:
    """Makes the layers that scale images from 0..255 to the range of the published weights.

    context: Number of channels, at least 3 unless the backbone is None.

    The ranges are those of `segmentation_models.get_preprocessing`, with which a test compares
    them. For random weights (backbone None) the range is -1..1.
    """
    rescale, family = tf.keras.layers.Rescaling, backbone or "inception"
    if family.startswith("res") or family in ("seresnet18", "seresnet34"):
        return []  # the first layer is a BatchNorm
    if family.startswith("vgg"):
        swap = tf.keras.layers.Lambda(lambda rgb: rgb[..., ::-1], name="rgb_to_bgr")
        offset = [-_CAFFE_MEAN_RGB[colour] for colour in colours(context)]
        return [rescale(1.0, offset, dtype="float32"), swap]
    if family.startswith(("densenet", "se", "efficientnet")):
        means = [_TORCH_MEAN_RGB[colour] for colour in colours(context)]
        stds = [_TORCH_STD_RGB[colour] for colour in colours(context)]
        offset = [-mean / std for mean, std in zip(means, stds, strict=True)]
        return [rescale([1 / 255 / std for std in stds], offset, dtype="float32")]
    return [rescale(1 / 127.5, -1.0, dtype="float32")]


def colours(context: int) -> list[int]:
    """The colour of the published weights (0, 1 or 2) that each of `context` channels takes.

    The slices below take the first colour, the middle one the second, those above the third.
    """
    outer = context // 2
    return [0] * outer + [1] + [2] * outer


def spread(value: np.ndarray, context: int) -> np.ndarray:
    """Spreads a weight of the first layers, made for three colours, over `context` channels.

    value: Kernel [h, w, 3, n], or one number for each colour, [3], of a BatchNorm.

    The kernels of the channels that take one colour sum to its kernel, and the nearer a slice is to
    the middle the larger is its share: equal slices give what they give the published network.
    """
    if value.ndim == 1:
        return value[colours(context)]
    distance = np.maximum(np.abs(np.arange(context) - context // 2), 1)
    share = 1 / distance
    outer = np.arange(context) != context // 2
    share[outer] /= share[outer].sum() / 2
    return value[:, :, colours(context)] * share[:, None].astype(value.dtype)


def _find_in_folder(folder: str, backbone: str) -> str:
    published = [entry for (owner, _), entry in PUBLISHED.items() if owner == backbone]
    for name, _, checksum in published:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return _check(path, checksum)
    wanted = "; ".join(
        f"{n} from {url}{n} ({_describe(checksum)})" for n, url, checksum in published
    )
    raise InputError(
        f"--encoder_weights: {folder} holds no weights of {backbone}; put there: {wanted}"
    )


def _download(name: str, folder_url: str, checksum: str) -> str:
    path = os.path.join(os.path.expanduser(_CACHE), name)
    if os.path.isfile(path):
        return _check(path, checksum)
    print(f"Downloading {folder_url}{name}", flush=True)
    try:
        return tf.keras.utils.get_file(
            name, folder_url + name, cache_subdir="models", file_hash=checksum or None
        )
    except Exception as error:  # Keras raises no more specific class
        raise InputError(
            f"--encoder_weights: {folder_url}{name} could not be downloaded ({error}); put the "
            f"file ({_describe(checksum)}) at {path}, or name a file or folder that holds it"
        ) from error


def _check(path: str, checksum: str) -> str:
    """Returns the path; raises InputError if the file has another checksum than published."""
    digest = hashlib.new(_kind(checksum), files.read_bytes(path)).hexdigest()
    if checksum and digest != checksum:
        raise InputError(
            f"{path}: expected {_describe(checksum)}, found {digest}; download the file again"
        )
    return path


def _kind(checksum: str) -> str:
    return "sha256" if len(checksum) == 64 else "md5"


def _describe(checksum: str) -> str:
    return f"{_kind(checksum)} {checksum}" if checksum else "no checksum is published"
