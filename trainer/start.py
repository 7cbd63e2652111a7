"""Where a run starts: the weights of an earlier run or an exported model, layer by layer."""

import dataclasses

import numpy as np

from segthor import fields, files, json_files, model_directory
from segthor.errors import InputError, message_line
from trainer import run
from trainer.config import Config

FLAG = "--start_from"


def settle(config: Config, workdir: str) -> Config:
    """The configuration with the scaling of images that `--start_from` brings along.

    A run that goes on does not look at what it once started from.

    Raises:
      InputError: nothing there to start from, or a network with another encoder.
    """
    if not config.start_from:
        return config
    if run.begun(workdir):
        there = run.read(workdir).config
    else:
        there = _record(config.start_from).config
        if there.backbone != config.backbone:
            raise InputError(
                f"{FLAG}={config.start_from}: a network with --backbone={there.backbone}, but this "
                f"run's is {config.backbone}; name the same"
            )
    return dataclasses.replace(config, encoder_weights=there.encoder_weights)


def begin(network, config: Config) -> dict:
    """Gives the network (tf.keras.Model) the weights that `--start_from` names; says which.

    A weight is taken where a layer of that name has one of that shape; the last layers' channel by
    channel, as organs have names. The others stay as they are.

    Returns:
      A dict for run.json: 'from', 'digest' of all weights there, 'taken' (how many), 'fresh' (names
      of weights that stayed), 'organs' and 'fresh_organs' (whose outputs were taken, and not).
    """
    from trainer import layers

    record, weights, digest = _read(config.start_from)
    known = {name: place for place, name in enumerate(record.organs)}
    fresh, organs = [], set()
    for name, variable in layers.by_name(network).items():
        found, layer = weights.get(name), name.partition("/")[0]
        head = layer in layers.BEFORE_ORGANS
        shape = variable.shape[:-1] if head else variable.shape
        if found is None or (found.shape[:-1] if head else found.shape) != tuple(shape):
            fresh.append(name)
        elif head:
            before = layers.BEFORE_ORGANS[layer]
            variable.assign(_channels(variable.numpy(), found, config.organs, known, before))
            organs |= set(config.organs) & set(known)
        else:
            variable.assign(found)
    return {
        "from": config.start_from,
        "digest": digest,
        "taken": len(network.variables) - len(fresh),
        "fresh": fresh,
        "organs": [name for name in config.organs if name in organs],
        "fresh_organs": [name for name in config.organs if name not in organs],
    }


def told(start: dict) -> str:
    """What `begin` did, for the terminal."""
    total = start["taken"] + len(start["fresh"])
    lines = [f"Started from {start['from']}: {start['taken']} of {total} weights taken"]
    parts = (("organs known there", "organs"), ("new organs", "fresh_organs"))
    lines += [f"{text}: {', '.join(start[key])}" for text, key in parts if start[key]]
    if start["fresh"]:
        layers = sorted({name.partition("/")[0] for name in start["fresh"]})
        more = f" and {len(layers) - 5} more" if len(layers) > 5 else ""
        lines.append(f"random weights in layers {', '.join(layers[:5])}{more}")
    return "; ".join(lines)


def _channels(value, found, organs, known: dict[str, int], before: int) -> np.ndarray:
    """`value` [..., before + organs] with the channels of `found` for the organs known there."""
    value = value.copy()
    value[..., :before] = found[..., :before]
    for place, name in enumerate(organs):
        if name in known:
            value[..., before + place] = found[..., before + known[name]]
    return value


def _record(path: str) -> run.RunRecord:
    """The record of a run, or of the run that a model was made from."""
    if files.exists(files.join(path, run.RUN)):
        run.check_trained(path, "best")
        return run.read(path)
    try:
        version = model_directory.newest(path)
    except InputError as error:
        raise InputError(
            f"{FLAG}={path}: expected a run or an exported model, found none"
        ) from error
    if model_directory.weight_names(version) is None:
        raise InputError(
            f"{FLAG}={path}: exported without the names of its weights; export it again, or start "
            "from its run"
        )
    training = json_files.read(model_directory.asset(version, model_directory.TRAINING))
    where = f"{FLAG}={path}: no model of trainer.main, start from a run; training.json"
    return fields.from_json(run.RunRecord, training, where)


def _read(path: str):
    """(the run's record, name -> array, digest) of a run's best checkpoint or of a model."""
    record = _record(path)
    if files.exists(files.join(path, run.RUN)):
        network, _ = run.restore(path)
        names, arrays = run.weight_names(network), [v.numpy() for v in network.variables]
        table = record.organ_table
    else:
        version = model_directory.newest(path)
        names, table = model_directory.weight_names(version), model_directory.table(version)
        arrays = _stored(version, len(names))
    recipe, organs = record.recipe, record.organs
    digest = model_directory.weights_digest(arrays, recipe, organs, table, names)
    if not files.exists(files.join(path, run.RUN)) and digest != model_directory.digest(version):
        raise InputError(
            f"{FLAG}={path}: the weights are not those that were exported; export the model again"
        )
    return record, dict(zip(names, arrays, strict=True)), digest


def _stored(version: str, count: int) -> list[np.ndarray]:
    """A SavedModel's weights in their order; its graph is not loaded."""
    import tensorflow as tf

    try:
        with model_directory.local(version) as folder:
            reader = tf.train.load_checkpoint(files.join(folder, "variables", "variables"))
            keys = [f"weights/{place}/.ATTRIBUTES/VARIABLE_VALUE" for place in range(count)]
            return [reader.get_tensor(key) for key in keys]
    except (tf.errors.OpError, IndexError, ValueError, RuntimeError) as error:
        reason = message_line(error)
        raise InputError(f"{version}: the weights cannot be read ({reason})") from error
