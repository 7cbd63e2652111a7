"""Export, prediction, evaluation and reports."""

import importlib

_MODULES = {"Segmenter": "segmenter", "Result": "segmenter"}  # name to its module


def __getattr__(name: str):
    """Imports the module of a name in `_MODULES`, such as `serving.Segmenter`, on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'serving' has no attribute {name!r}")
    return getattr(importlib.import_module(f"serving.{_MODULES[name]}"), name)


def __dir__():
    return sorted({*globals(), *_MODULES})
