"""The parts of a network by name: every weight, the encoder, the organs' outputs.

Keras numbers layers without a name by how many the process has made, so that a second network of
one process has other names than the first. Here they are numbered within their network.
"""

import re

import tensorflow as tf

from trainer.config import CLASSIFY, SEGMENT

SEGMENT_HEAD, CLASSIFY_HEAD = f"{SEGMENT}_head", f"{CLASSIFY}_head"
# How many channels of a head come before the first organ's: the outlines' background.
BEFORE_ORGANS = {SEGMENT_HEAD: 1, CLASSIFY_HEAD: 0}

# segmentation_models' names of a decoder's layers; those of its last one differ, see `_named`.
_DECODER = re.compile(r"(decoder|center|fpn|segm|aggregation|psp|final_stage)_")
_NUMBERED = re.compile(r"(conv2d|batch_normalization)(_\d+)?")


def by_name(network: tf.keras.Model) -> dict[str, tf.Variable]:
    """'layer/weight' -> variable, in the order of `network.variables`.

    The names are the same in every network of one backbone and decoder.
    """
    names = {
        id(variable): f"{name}/{variable.name.rpartition('/')[2].removesuffix(':0')}"
        for name, layer in _named(network).items()
        for variable in layer.variables
    }
    found = {names[id(variable)]: variable for variable in network.variables}
    assert len(found) == len(network.variables), "two weights of one name"
    return found


def encoder(network: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    """The encoder's layers that have weights."""
    return [
        layer
        for name, layer in _named(network).items()
        if name not in BEFORE_ORGANS and not _DECODER.match(name)
    ]


def last_numbered(network: tf.keras.Model, kind: str) -> tf.keras.layers.Layer:
    """The last made of the layers that Keras numbered under this name."""
    found = [layer for layer in _leaves(network) if re.fullmatch(rf"{kind}(_\d+)?", layer.name)]
    return max(found, key=lambda layer: _number(layer.name))


def _named(network) -> dict[str, tf.keras.layers.Layer]:
    """The layers that have weights, those of the models within included."""
    layers = [layer for layer in _leaves(network) if layer.variables]
    head = None
    if SEGMENT in network.output:  # the library's last layer: its name depends on the decoder
        head = [layer for layer in layers if layer.name != CLASSIFY_HEAD][-1]
    counts, names = {}, {}
    for layer in sorted(layers, key=lambda layer: _number(layer.name)):
        kind = _NUMBERED.fullmatch(layer.name)
        if layer is head:
            names[id(layer)] = SEGMENT_HEAD
        elif kind:
            counts[kind[1]] = counts.get(kind[1], 0) + 1
            names[id(layer)] = f"{kind[1]}_{counts[kind[1]]}"
        else:
            names[id(layer)] = layer.name
    return {names[id(layer)]: layer for layer in layers}


def _leaves(network):
    for layer in network.layers:
        yield from _leaves(layer) if isinstance(layer, tf.keras.Model) else [layer]


def _number(name: str) -> int:
    """Which layer of its kind it was in the process."""
    return int(re.search(r"_(\d+)$|$", name)[1] or 0)
