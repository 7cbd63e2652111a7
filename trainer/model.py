"""The networks: encoders and decoders of segmentation_models.

Every network takes images [N, H, W, C] of 0 to 255 and contains its own scaling, so that trainer,
SavedModel and predictor feed it alike. Head and last activation are float32 in every precision,
since a softmax in half precision does not sum to 1.
"""

import contextlib
import functools
import io

import numpy as np
import tensorflow as tf

from segthor.errors import InputError, message_line
from trainer import devices, layers, weights
from trainer.config import CLASSIFY, SEGMENT, Config

LOGITS = "_logits"

# Initial probability of every organ relative to the background (Lin et al., ICCV 2017). With equal
# probabilities the first steps suppress every organ, and a small one may never recover.
_FIRST_SHARE = 0.01
_PSPNET_PX = 48  # its pyramid pools an eighth of the image in 1, 2, 3 and 6 parts
_INCEPTION_PX = 75  # smallest size in keras.applications
# Prefix of a backbone's name to the name of its last layer.
_DEEPEST_LAYERS = {
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


def build(
    config: Config, size_px: int, context: int, load_published: bool = True
) -> tf.keras.Model:
    """Builds a network with its initial weights.

    It takes images [N, size_px, size_px, context] of 0 to 255 and of any dtype, and returns a dict
    of float32:
      'segment', for the tasks segment and joint: softmax probabilities [N, H, W, 1 + organs],
        background first;
      'classify', for the tasks classify and joint: the probability that a slice holds each organ,
        [N, organs].
    The logits are the outputs of the layers 'segment_logits' and 'classify_logits'.

    size_px: Height and width.
    context: Number of channels.
    load_published: Whether to load the published weights that the configuration names; False where
      all weights are replaced anyway. Images are scaled for these weights in any case.

    Raises:
      InputError: Decoder or backbone do not support this size, or the weights file is damaged or
        of another backbone.
    """
    _check_size(config, size_px)
    pretrained = config.encoder_weights != weights.NONE
    path = None
    if load_published and not config.start_from:
        path = weights.find_file(config.encoder_weights, config.backbone)
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(
        _POLICIES[devices.resolve_precision(config.precision)]
    )
    try:
        return _build(config, size_px, context, path, pretrained)
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


def _check_size(config: Config, size_px: int) -> None:
    """Raises InputError if decoder or backbone do not support slices of this size."""
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


@functools.cache
def _decoders() -> dict:
    """Decoder names to the classes of segmentation_models."""
    if not tf.keras.Model.__module__.startswith("tf_keras"):
        raise InputError(
            "segmentation_models needs Keras 2, but tensorflow was imported with Keras 3: import "
            "trainer before tensorflow, or set TF_USE_LEGACY_KERAS=1 and SM_FRAMEWORK=tf.keras"
        )
    with contextlib.redirect_stdout(io.StringIO()):  # the import prints a line
        import segmentation_models as sm
    return {"unet": sm.Unet, "fpn": sm.FPN, "linknet": sm.Linknet, "pspnet": sm.PSPNet}


def _build(config, size_px, context, path, pretrained) -> tf.keras.Model:
    images = x = tf.keras.Input([size_px, size_px, context], name="images")
    if pretrained and context == 1:  # published weights scale each of three colours differently
        x = tf.keras.layers.Concatenate(name="grey_to_rgb")([x, x, x])
    channels = x.shape[-1]
    for layer in weights.scaling(config.backbone if pretrained else None, channels):
        x = layer(x)
    features = _body(config, [size_px, size_px, channels], path)(x)
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
    """Builds the library's network: images to segmentation logits and deepest encoder features."""
    decoder = "unet" if config.task == CLASSIFY else config.decoder  # unet keeps all encoder stages
    make = functools.partial(
        _decoders()[decoder],
        config.backbone,
        classes=1 + len(config.organs),
        activation="linear",
    )
    if path is None:
        body = make(input_shape=shape, encoder_weights=None)
    else:
        body = _load_published(config, make, shape, path)
    # By position, since the name of the last layer depends on the decoder.
    head = [layer for layer in body.layers if layer.weights][-1]
    head.bias.assign([0.0] + [np.log(_FIRST_SHARE)] * len(config.organs))
    if config.xla:
        body = _replace_upsampling(body)
    outputs = {}
    if config.task != CLASSIFY:
        outputs[SEGMENT] = body.output
    if config.task != SEGMENT:
        outputs[CLASSIFY] = _deepest_layer(body, decoder, config.backbone).output
    return tf.keras.Model(body.input, outputs, name=config.backbone)


def _load_published(config, make, shape, path) -> tf.keras.Model:
    """Builds the library's network with published weights, spread over the channels of `shape`."""
    try:
        published = make(input_shape=[*shape[:2], 3], encoder_weights=path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--encoder_weights: {path} holds no weights of {config.backbone} "
            f"({message_line(error)})"
        ) from error
    channels = shape[2]
    if channels == 3:
        return published
    body = make(input_shape=shape, encoder_weights=None)
    for source, weight in zip(published.weights, body.weights, strict=True):
        value = source.numpy()
        if value.shape != weight.shape:  # of the first convolution, or the BatchNorm before it
            value = weights.spread(value, channels)
        weight.assign(value)
    return body


class Enlarge(tf.keras.layers.Layer):
    """Nearest-neighbour upsampling whose gradient XLA can compile, unlike TensorFlow's own."""

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


def _replace_upsampling(body: tf.keras.Model) -> tf.keras.Model:
    """Copies the network with `Enlarge` for its upsampling layers; the weights are the same."""

    def replace(layer):
        nearest = getattr(layer, "interpolation", None) == "nearest"
        if isinstance(layer, tf.keras.layers.UpSampling2D) and nearest:
            return Enlarge(layer.size[0], name=layer.name)
        return type(layer).from_config(layer.get_config())

    copy = tf.keras.models.clone_model(body, clone_function=replace)
    copy.set_weights(body.get_weights())
    return copy


def _deepest_layer(body, decoder: str, backbone: str) -> tf.keras.layers.Layer:
    """Returns the layer whose features the classifier pools."""
    if decoder == "pspnet":  # its encoder ends before the last stages
        return body.get_layer("aggregation_relu")
    for family, name in _DEEPEST_LAYERS.items():
        if backbone.startswith(family):
            return body.get_layer(name)
    # In the deeper squeeze-and-excitation networks only the layers of the encoder are unnamed.
    return layers.last_numbered(body, "activation")


def _head(logits, name: str, activation: str):
    """Names the logits and applies the last activation, both in float32."""
    logits = tf.keras.layers.Activation("linear", dtype="float32", name=name + LOGITS)(logits)
    return tf.keras.layers.Activation(activation, dtype="float32", name=name)(logits)
