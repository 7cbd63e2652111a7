"""The signatures of a SavedModel: what it computes, and by which names."""

import numpy as np
import tensorflow as tf

from segthor.recipe import Recipe

PROBABILITIES, PRESENCE = "probabilities", "presence"  # names of signatures and of their outputs


def make(network, recipe: Recipe, values: np.ndarray) -> dict:
    """Makes the signatures by name, as concrete functions.

    network: As in `bundle.save`.
    values: uint8 [K], label value of each class.
    """
    predict = _accept_empty_batches(network, recipe)
    slices = [None, recipe.size_px, recipe.size_px, recipe.context]

    def signature(function, **specs):
        specs = [tf.TensorSpec(*spec, name) for name, spec in specs.items()]
        return tf.function(function, input_signature=specs).get_concrete_function()

    outputs = signature(predict, images=(slices, tf.uint8)).structured_outputs
    signatures = {
        name: signature(lambda images, n=name: {n: predict(images)[n]}, images=(slices, tf.uint8))
        for name in outputs
    }
    if PROBABILITIES in outputs:
        labels_from_hu = _label_hu(predict, recipe, values)
        signatures["labels_from_hu"] = signature(
            labels_from_hu, hu=(slices, tf.float32), level_hu=([None], tf.float32)
        )
    first = PROBABILITIES if PROBABILITIES in outputs else PRESENCE
    signatures["serving_default"] = signatures[first]
    return signatures


def _accept_empty_batches(network, recipe: Recipe):
    """Makes a function that calls the network with a batch of any size, also with none."""

    def predict(images):
        # Batch normalisation on a CPU fails for an empty batch, so a slice is added to it.
        count = tf.shape(images)[0]
        shape = [recipe.size_px, recipe.size_px, recipe.context]
        filler = tf.zeros([tf.cast(tf.equal(count, 0), tf.int32), *shape])
        outputs = network(tf.concat([tf.cast(images, tf.float32), filler], 0))
        return {name: tf.identity(value[:count], name) for name, value in outputs.items()}

    return predict


def _label_hu(predict, recipe: Recipe, values: np.ndarray):
    """Makes a function from slices in HU and window levels to label values uint8 [N, H, W]."""
    scale = np.float32(255 / recipe.window_width_hu)

    def labels_from_hu(hu, level_hu):
        # The same operations as segthor.recipe.window, in the same precision.
        offset = 127.5 - tf.cast(level_hu, tf.float64) * 255 / recipe.window_width_hu
        scaled = hu * scale + tf.cast(offset, tf.float32)[:, None, None, None]
        images = tf.cast(tf.clip_by_value(scaled, 0.0, 255.0) + 0.5, tf.uint8)
        classes = tf.argmax(predict(images)[PROBABILITIES], -1, tf.int32)
        # GatherV2 has no GPU kernel for uint8.
        labels = tf.gather(tf.constant(values, tf.float32), classes)
        return {"labels": tf.cast(labels, tf.uint8)}

    return labels_from_hu
