"""Initial weights from an earlier run or an exported model, layer by layer."""

import dataclasses

import numpy as np

from segthor import fields, files, json_files, model_directory
from segthor.errors import InputError, message_line
from trainer import run
from trainer.config import Config

FLAG = "--start_from"


def resolve_start(config: Config, workdir: str) -> Config:
    """Returns the configuration with the image scaling of the network that `--start_from` names.

    A run that is resumed takes it from its own record and does not read `--start_from` again.

    Raises:
      InputError: There is nothing to start from, or its network has another encoder.
    """
    if not config.start_from:
        return config
    if run.has_checkpoint(workdir):
        earlier = run.read(workdir).config
    else:
        earlier = _read_record(config.start_from).config
        if earlier.backbone != config.backbone:
            raise InputError(
                f"{FLAG}={config.start_from}: expected a network with --backbone={config.backbone} "
                f"as in this run, found {earlier.backbone}; give both the same backbone"
            )
    return dataclasses.replace(config, encoder_weights=earlier.encoder_weights)


def load_weights(network, config: Config) -> dict:
    """Loads the weights that `--start_from` names into a network (tf.keras.Model).

    A weight is loaded if it has the same name and shape there. In the last layers the channels of
    organs that both networks know are loaded. All other weights stay as they are.

    Returns:
      A dict for run.json: 'from', the value of the flag; 'digest' of all weights there; 'taken',
      number of weights loaded; 'fresh', names of the others; 'organs' and 'fresh_organs', whose
      output channels were loaded and not loaded.
    """
    record, weights, digest = _read(config.start_from)
    fresh, organs = _assign_weights(network, weights, config.organs, record.organs)
    return {
        "from": config.start_from,
        "digest": digest,
        "taken": len(network.variables) - len(fresh),
        "fresh": fresh,
        "organs": [name for name in config.organs if name in organs],
        "fresh_organs": [name for name in config.organs if name not in organs],
    }


def _assign_weights(network, weights: dict, organs, stored_organs) -> tuple[list[str], set[str]]:
    """Assigns the weights that fit; returns the names of the others, and the organs of the rest.

    organs, stored_organs: Names of the organs of the network, and of that of the weights.
    """
    from trainer import layers

    channels = {name: channel for channel, name in enumerate(stored_organs)}
    fresh, known = [], set()
    for name, variable in layers.weights_by_name(network).items():
        stored, before = weights.get(name), layers.BEFORE_ORGANS.get(name.partition("/")[0])
        is_head = before is not None
        if stored is None or not _fits(stored, variable, is_head):
            fresh.append(name)
            continue
        if is_head:
            stored = _copy_channels(variable, stored, organs, channels, before)
            known = set(channels)
        variable.assign(stored)
    return fresh, known


def describe_start(start: dict) -> str:
    """Describes in one line what `load_weights` returned."""
    total = start["taken"] + len(start["fresh"])
    lines = [f"Started from {start['from']}: {start['taken']} of {total} weights taken"]
    parts = (("organs known there", "organs"), ("new organs", "fresh_organs"))
    lines += [f"{text}: {', '.join(start[key])}" for text, key in parts if start[key]]
    if start["fresh"]:
        layers = sorted({name.partition("/")[0] for name in start["fresh"]})
        more = f" and {len(layers) - 5} more" if len(layers) > 5 else ""
        lines.append(f"random weights in layers {', '.join(layers[:5])}{more}")
    return "; ".join(lines)


def _fits(stored: np.ndarray, variable, is_head: bool) -> bool:
    """Whether the shapes are equal; those of a head but for the last axis, its channels."""
    axes = slice(None, -1 if is_head else None)
    return stored.shape[axes] == tuple(variable.shape[axes])


def _copy_channels(variable, stored, organs, channels: dict[str, int], before: int) -> np.ndarray:
    """Returns the value [..., before + organs] with the stored channels of organs in `channels`.

    channels: Organ to its channel in `stored`, after the first `before`.
    """
    value = variable.numpy()
    value[..., :before] = stored[..., :before]
    for channel, name in enumerate(organs):
        if name in channels:
            value[..., before + channel] = stored[..., before + channels[name]]
    return value


def _read_record(path: str) -> run.RunRecord:
    """Reads the record of a run, or of the run that a model was exported from."""
    if files.exists(files.join(path, run.RUN)):
        return run.read_trained(path)
    try:
        version = model_directory.newest(path)
    except InputError as error:
        raise InputError(
            f"{FLAG}={path}: expected a run or an exported model, found none"
        ) from error
    if model_directory.weight_names(version) is None:
        raise InputError(
            f"{FLAG}={path}: exported without the names of its weights; export the model again, or "
            "start from its run"
        )
    training = json_files.read(model_directory.asset(version, model_directory.TRAINING))
    where = f"{FLAG}={path}: not a model of trainer.main, start from a run; training.json"
    return fields.from_json(run.RunRecord, training, where)


def _read(path: str):
    """Reads a run's best checkpoint or a model.

    Returns the record of the run, the weights by name, and their digest.
    """
    record = _read_record(path)
    if files.exists(files.join(path, run.RUN)):
        network, _ = run.restore(path)
        names, arrays = run.weight_names(network), [v.numpy() for v in network.variables]
        table = record.organ_table
    else:
        version = model_directory.newest(path)
        names, table = model_directory.weight_names(version), model_directory.table(version)
        arrays = _read_weights(version, len(names))
    recipe, organs = record.recipe, record.organs
    digest = model_directory.weights_digest(arrays, recipe, organs, table, names)
    if not files.exists(files.join(path, run.RUN)) and digest != model_directory.digest(version):
        raise InputError(
            f"{FLAG}={path}: the weights are not those that were exported; export the model again"
        )
    return record, dict(zip(names, arrays, strict=True)), digest


def _read_weights(version: str, count: int) -> list[np.ndarray]:
    """Reads the weights of a SavedModel in their order, without loading its graph."""
    import tensorflow as tf

    try:
        with model_directory.local(version) as folder:
            reader = tf.train.load_checkpoint(files.join(folder, "variables", "variables"))
            keys = [f"weights/{number}/.ATTRIBUTES/VARIABLE_VALUE" for number in range(count)]
            return [reader.get_tensor(key) for key in keys]
    except (tf.errors.OpError, IndexError, ValueError, RuntimeError) as error:
        reason = message_line(error)
        raise InputError(f"{version}: the weights cannot be read ({reason})") from error
