"""The trainer: from shards to checkpoints."""

import importlib

from segthor import environment

environment.prepare()  # above every module of the trainer, which import tensorflow

# Name to the module that has it; all but `Strengths` load TensorFlow.
_MODULES = {"dataset": "batches", "steps_per_epoch": "batches", "Strengths": "strengths"}
_MODULES |= {"Augmentation": "augment_layer"}


def __getattr__(name: str):
    """`trainer.dataset` and others of `_MODULES`; each module is loaded when it is needed."""
    if name not in _MODULES:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}")
    if _MODULES[name] != "strengths":
        from segthor import startup

        startup.load_tensorflow()
    return getattr(importlib.import_module(f"trainer.{_MODULES[name]}"), name)


def __dir__():
    return sorted({*globals(), *_MODULES})
