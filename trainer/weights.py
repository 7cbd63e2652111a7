"""Published ImageNet weights of the encoders, and the image scaling that each expects.

Files, addresses and checksums are those of classification_models, keras_applications and
efficientnet, with which a test compares them. Combinations that are not listed were not published.
"""

import hashlib
import os

import numpy as np
import tensorflow as tf

from segthor import files
from segthor.errors import InputError

_QUBVEL = "https://github.com/qubvel/classification_models/releases/download/0.0.1/"
_CHOLLET = "https://github.com/fchollet/deep-learning-models/releases/download/"
_KERAS = "https://github.com/keras-team/keras-applications/releases/download/densenet/"
_MOBILE = "https://github.com/JonathanCMitchell/mobilenet_v2_keras/releases/download/v1.1/"
_EFFICIENT = "https://github.com/Callidior/keras-applications/releases/download/efficientnet/"
_ORDER = "_weights_tf_dim_ordering_tf_kernels_notop.h5"
_RESNETS = (
    ("resnet18_imagenet_1000", "318e3ac0cd98d51e917526c9f62f0b50"),
    ("resnet34_imagenet_1000", "8caaa0ad39d927cb8ba5385bf945d582"),
    ("resnet50_imagenet_1000", "db3b217156506944570ac220086f09b6"),
    ("resnet50_imagenet11k-places365ch_11586", "d8bf4e7ea082d9d43e37644da217324a"),
    ("resnet101_imagenet_1000", "1016e7663980d5597a4e224d915c342d"),
    ("resnet152_imagenet_1000", "5867b94098df4640918941115db93734"),
    ("resnet152_imagenet11k_11221", "25ab66dec217cb774a27d0f3659cafb3"),
    ("resnext50_imagenet_1000", "7ade5c8aac9194af79b1724229bdaa50"),
    ("resnext101_imagenet_1000", "91fe0126320e49f6ee607a0719828c7e"),
    ("seresnet50_imagenet_1000", "043777781b0d5ca756474d60bf115ef1"),
    ("seresnet101_imagenet_1000", "1c373b0c196918713da86951d1239007"),
    ("seresnet152_imagenet_1000", "f58d4c1a511c7445ab9a2c2b83ee4e7b"),
    ("seresnext50_imagenet_1000", "b0f23d2e1cd406d67335fb92d85cc279"),
    ("seresnext101_imagenet_1000", "e48708cbe40071cc3356016c37f6c9c7"),
    ("senet154_imagenet_1000", "d854ff2cd7e6a87b05a8124cd283e0f2"),
    ("seresnet18_imagenet_1000", "a46e5cd4114ac946ecdc58741e8d92ea"),
    ("seresnet34_imagenet_1000", "3348fd049f1f9ad307c070ff2b6ec4cb"),
)
_EFFICIENT_SHA256 = (
    "c1421ad80a9fc67c2cc4000f666aa50789ce39eedb4e06d531b0c593890ccff3",  # b0
    "75de265d03ac52fa74f2f510455ba64f9c7c5fd96dc923cd4bfefa3d680c4b68",  # b1
    "433b60584fafba1ea3de07443b74cfd32ce004a012020b07ef69e22ba8669333",  # b2
    "c5d42eb6cfae8567b418ad3845cfd63aa48b87f1bd5df8658a49375a9f3135c7",  # b3
    "7942c1407ff1feb34113995864970cd4d9d91ea64877e8d9c38b6c1e0767c411",  # b4
    "9d197bc2bfe29165c10a2af8c2ebc67507f5d70456f09e584c71b822941b1952",  # b5
    "1d0923bb038f2f8060faaf0a0449db4b96549a881747b7c7678724ac79f427ed",  # b6
    "60b56ff3a8daccc8d96edfd40b204c113e51748da657afd58034d54d3cec2bac",  # b7
)
# (backbone, weights) to (file, URL of its folder, checksum). The checksum is an md5; a sha256 for
# efficientnet; '' for the mobilenets, whose library has none.
PUBLISHED = {
    tuple(stem.split("_")[:2]): (f"{stem}_no_top.h5", _QUBVEL, md5) for stem, md5 in _RESNETS
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
for _number, _sha256 in enumerate(_EFFICIENT_SHA256):
    _name = f"efficientnet-b{_number}" + _ORDER.replace("notop", "autoaugment_notop")
    PUBLISHED[f"efficientnetb{_number}", "imagenet"] = (_name, _EFFICIENT, _sha256)
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
