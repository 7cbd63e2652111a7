"""The networks: segmentation_models' encoders and decoders.

Every network takes [N, H, W, C] images of 0 to 255 and does its own scaling, so that whoever feeds
it (trainer, SavedModel, predictor) need not know how. On top stand a linear head and a float32
activation, whatever the arithmetic below: half precision would spoil the softmax.
"""

import contextlib
import functools
import io

import numpy as np
import tensorflow as tf

from segthor.errors import InputError, message_line
from trainer import layers, weights
from trainer.config import CLASSIFY, SEGMENT, Config

LOGITS = "_logits"

# The share of pixels that an organ begins with (Lin et al., ICCV 2017). Where all begin alike, the
# first steps push every organ down everywhere, and a small one may never come back.
_FIRST_SHARE = 0.01
_PSPNET_PX = 48  # its pyramid pools an eighth of the image in 1, 2, 3 and 6 parts
_INCEPTION_PX = 75  # keras.applications refuses less
_DEEPEST = {
    "vgg": "block5_pool",
    "res": "relu1",
    "densenet": "relu",
    "inceptionv3": "mixed10",
    "inceptionresnetv2": "conv_7b_ac",
    "mobilenetv2": "out_relu",
    "mobilenet": "conv_pw_13_relu",
    "seresnet18": "relu1",
    "seresnet34": "relu1",
    "efficientnet": "top_activation",
}
_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def build(config: Config, size_px: int, context: int, fetch: bool = True) -> tf.keras.Model:
    """A network with the configuration's first weights.

    Takes images [N, size_px, size_px, context], 0 to 255, of any dtype. Gives a dict, float32:
      'segment', of the tasks segment and joint: softmax probabilities [N, H, W, 1 + organs],
        background first;
      'classify', of the tasks classify and joint: the probability that a slice holds the organ,
        [N, organs].
    The logits are the outputs of the layers 'segment_logits' and 'classify_logits'.
    Where the configuration names published weights, images are scaled as these want them. fetch:
    whether they are loaded, too; never where all weights come from an earlier run.

    Raises:
      InputError: decoder or backbone cannot take this size, or the encoder weights this context.
    """
    if config.decoder == "pspnet" and config.task != CLASSIFY and size_px % _PSPNET_PX:
        raise InputError(
            f"--decoder=pspnet: expected slices of a multiple of {_PSPNET_PX} pixels, found "
            f"{size_px}; build the dataset with another --crop_mm, e.g. 288"
        )
    if config.backbone == "inceptionv3" and size_px < _INCEPTION_PX:
        raise InputError(
            f"--backbone=inceptionv3: expected slices of {_INCEPTION_PX} pixels or more, found "
            f"{size_px}; build the dataset with another --crop_mm"
        )
    pretrained = config.encoder_weights != weights.NONE
    scaling = weights.scaling(config.backbone if pretrained else None)
    path = None
    if fetch and not config.start_from:
        path = weights.find(config.encoder_weights, config.backbone)
    if (path or (pretrained and scaling)) and context != 3:
        flag = "start_from" if config.start_from else "encoder_weights"
        raise InputError(
            f"--{flag}={getattr(config, flag)}: expected a dataset of 3 channels, found "
            f"{context}; build it with --context=3, or train from random weights"
        )
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(_POLICIES[config.precision])
    try:
        return _build(config, size_px, context, path, scaling)
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


@functools.cache
def _decoders() -> dict:
    """segmentation_models' decoders by their names here."""
    if not tf.keras.Model.__module__.startswith("tf_keras"):
        raise InputError(
            "segmentation_models needs Keras 2, but tensorflow was imported with Keras 3: import "
            "trainer before tensorflow, or set TF_USE_LEGACY_KERAS=1 and SM_FRAMEWORK=tf.keras"
        )
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a line on import
        import segmentation_models as sm
    return {"unet": sm.Unet, "fpn": sm.FPN, "linknet": sm.Linknet, "pspnet": sm.PSPNet}


def _build(config, size_px, context, path, scaling) -> tf.keras.Model:
    images = x = tf.keras.Input([size_px, size_px, context], name="images")
    for layer in scaling:
        x = layer(x)
    features = _body(config, [size_px, size_px, context], path)(x)
    outputs = {}
    if config.task != CLASSIFY:
        outputs[SEGMENT] = _head(features[SEGMENT], SEGMENT, "softmax")
    if config.task != SEGMENT:
        pooled = tf.keras.layers.GlobalAveragePooling2D(dtype="float32")(features[CLASSIFY])
        dense = tf.keras.layers.Dense(
            len(config.organs), dtype="float32", name=layers.CLASSIFY_HEAD
        )
        logits = dense(pooled)
        outputs[CLASSIFY] = _head(logits, CLASSIFY, "sigmoid")
    return tf.keras.Model(images, outputs)


def _body(config, shape, path) -> tf.keras.Model:
    """The library's network: images to the outlines' logits and the encoder's deepest features."""
    decoder = "unet" if config.task == CLASSIFY else config.decoder  # its encoder is whole
    try:
        body = _decoders()[decoder](
            config.backbone,
            input_shape=shape,
            classes=1 + len(config.organs),
            activation="linear",
            encoder_weights=path,
        )
    except (OSError, ValueError) as error:
        if path is None:
            raise
        raise InputError(
            f"--encoder_weights: {path} holds no weights of {config.backbone} "
            f"({message_line(error)})"
        ) from error
    head = [layer for layer in body.layers if layer.weights][-1]  # its name depends on the decoder
    head.bias.assign([0.0] + [np.log(_FIRST_SHARE)] * len(config.organs))
    if config.xla:
        body = _compilable(body)
    outputs = {}
    if config.task != CLASSIFY:
        outputs[SEGMENT] = body.output
    if config.task != SEGMENT:
        outputs[CLASSIFY] = _deepest(body, decoder, config.backbone).output
    return tf.keras.Model(body.input, outputs, name=config.backbone)


class Enlarge(tf.keras.layers.Layer):
    """Nearest-neighbour upsampling by copying: XLA has no gradient of TensorFlow's own."""

    def __init__(self, factor: int, **options):
        super().__init__(**options)
        self._factor = factor

    def call(self, images):
        """[N, H, W, C] to [N, factor H, factor W, C]."""
        _, height, width, channels = images.shape
        factor, count = self._factor, tf.shape(images)[0]
        spread = images[:, :, None, :, None, :]
        copied = tf.broadcast_to(spread, [count, height, factor, width, factor, channels])
        return tf.reshape(copied, [count, height * factor, width * factor, channels])


def _compilable(body: tf.keras.Model) -> tf.keras.Model:
    """The same network and weights with upsampling that XLA can differentiate."""

    def replace(layer):
        nearest = getattr(layer, "interpolation", None) == "nearest"
        if isinstance(layer, tf.keras.layers.UpSampling2D) and nearest:
            return Enlarge(layer.size[0], name=layer.name)
        return type(layer).from_config(layer.get_config())

    copy = tf.keras.models.clone_model(body, clone_function=replace)
    copy.set_weights(body.get_weights())
    return copy


def _deepest(body, decoder: str, backbone: str) -> tf.keras.layers.Layer:
    """The layer that the classifier looks at; the pyramid decoder leaves out the last stages."""
    if decoder == "pspnet":
        return body.get_layer("aggregation_relu")
    for family, name in _DEEPEST.items():
        if backbone.startswith(family):
            return body.get_layer(name)
    # The deeper squeeze-and-excitation networks name no layer; the decoders name theirs.
    return layers.last_numbered(body, "activation")


def _head(logits, name: str, activation: str):
    logits = tf.keras.layers.Activation("linear", dtype="float32", name=name + LOGITS)(logits)
    return tf.keras.layers.Activation(activation, dtype="float32", name=name)(logits)
