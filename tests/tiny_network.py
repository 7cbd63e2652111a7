"""A network of two convolutions in place of segmentation_models', for laws about everything else.

The trainer's laws about files, locks, signals and steps are the same for any network, and this one
is built and traced in a fraction of the time.

python tests/tiny_network.py -m MODULE FLAGS   runs a program with it in a new interpreter
"""

import os
import runpy
import sys

from segthor import startup


def install() -> None:
    """From now on, in this process, the trainer builds this network for every decoder."""
    from trainer import model

    model._decoders = decoders


def decoders() -> dict:
    """What `model._decoders` is replaced by."""
    return dict.fromkeys(("unet", "fpn", "linknet", "pspnet"), network)


def network(backbone, input_shape, classes, activation, encoder_weights):
    """Takes what segmentation_models' networks take; the names of its layers are theirs."""
    import tensorflow as tf

    del backbone, activation, encoder_weights
    layers = tf.keras.layers
    images = layers.Input(input_shape)
    x = layers.Conv2D(4, 3, 4, padding="same", use_bias=False, name="conv0")(images)
    x = layers.BatchNormalization(name="bn0")(x)
    # The deepest features, by the names that resnet18 has with the decoders unet and pspnet.
    x = layers.Activation("relu", name="relu1")(x)
    x = layers.Activation("linear", name="aggregation_relu")(x)
    # Outlined on a coarse grid, as by PSPNet: sums over fewer pixels have smaller rounding errors.
    x = layers.Conv2D(classes, 3, padding="same", name="final_conv")(x)
    return tf.keras.Model(images, layers.UpSampling2D(4)(x))


def install_when_loaded() -> None:
    """`install` once the program has loaded TensorFlow, as it does without this network."""
    load = startup.load_tensorflow

    def load_and_install():
        load()
        install()

    startup.load_tensorflow = load_and_install


if __name__ == "__main__":
    install_when_loaded()
    sys.path[0], sys.argv = os.getcwd(), sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
