"""The parts of a network by name: its weights, its encoder, the layers of its outputs.

Keras numbers unnamed layers within the process, so that the names of a network depend on how many
were built before it. Here they are numbered within their network.
"""

import re

import tensorflow as tf

from trainer.config import CLASSIFY, SEGMENT

SEGMENT_HEAD, CLASSIFY_HEAD = f"{SEGMENT}_head", f"{CLASSIFY}_head"
# Number of channels of a head before that of the first organ: the background of a segmentation.
BEFORE_ORGANS = {SEGMENT_HEAD: 1, CLASSIFY_HEAD: 0}

# Prefixes of segmentation_models' decoder layers, the last layer aside; see `_name_layers`.
_DECODER = re.compile(r"(decoder|center|fpn|segm|aggregation|psp|final_stage)_")
_NUMBERED = re.compile(r"(conv2d|batch_normalization)(_\d+)?")


def weights_by_name(network: tf.keras.Model) -> dict[str, tf.Variable]:
    """Maps 'layer/weight' to the variable, in the order of `network.variables`.

    All networks of one backbone and decoder have the same names.
    """
    names = {
        id(variable): f"{name}/{variable.name.rpartition('/')[2].removesuffix(':0')}"
        for name, layer in _name_layers(network).items()
        for variable in layer.variables
    }
    variables = {names[id(variable)]: variable for variable in network.variables}
    assert len(variables) == len(network.variables), "two weights of one name"
    return variables


def encoder(network: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    """Returns the layers of the encoder that have weights."""
    return [
        layer
        for name, layer in _name_layers(network).items()
        if name not in BEFORE_ORGANS and not _DECODER.match(name)
    ]


def last_numbered(network: tf.keras.Model, kind: str) -> tf.keras.layers.Layer:
    """Returns the newest of the layers whose name is `kind` and Keras' number."""
    layers = [layer for layer in _leaves(network) if re.fullmatch(rf"{kind}(_\d+)?", layer.name)]
    return max(layers, key=lambda layer: _number(layer.name))


def _name_layers(network) -> dict[str, tf.keras.layers.Layer]:
    """Maps names to the layers that have weights, those of nested models included."""
    layers = [layer for layer in _leaves(network) if layer.variables]
    head = None
    if SEGMENT in network.output:  # by position, since its name depends on the decoder
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
    """Yields the layers of a model and of the models in it."""
    for layer in network.layers:
        yield from _leaves(layer) if isinstance(layer, tf.keras.Model) else [layer]


def _number(name: str) -> int:
    """Keras' number of a layer within the process; 0 where it has none."""
    return int(re.search(r"_(\d+)$|$", name)[1] or 0)
