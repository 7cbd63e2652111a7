"""The trainer: from shards to checkpoints."""

import importlib

from segthor import environment

environment.prepare()  # before any module of the trainer imports TensorFlow

# Name to its module; all but `Strengths` load TensorFlow.
_MODULES = {"dataset": "batches", "steps_per_epoch": "batches", "Strengths": "strengths"}
_MODULES |= {"Augmentation": "augment_layer"}


def __getattr__(name: str):
    """Imports the module of a name in `_MODULES`, such as `trainer.dataset`, on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}")
    if _MODULES[name] != "strengths":
        from segthor import startup

        startup.load_tensorflow()
    return getattr(importlib.import_module(f"trainer.{_MODULES[name]}"), name)


def __dir__():
    return sorted({*globals(), *_MODULES})
