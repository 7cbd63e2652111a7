"""Export, prediction, evaluation and reports."""

import importlib

_MODULES = {"Segmenter": "segmenter", "Result": "segmenter"}  # name to the module that has it


def __getattr__(name: str):
    """`serving.Segmenter` and others of `_MODULES`; each module is loaded when it is needed."""
    if name not in _MODULES:
        raise AttributeError(f"module 'serving' has no attribute {name!r}")
    return getattr(importlib.import_module(f"serving.{_MODULES[name]}"), name)


def __dir__():
    return sorted({*globals(), *_MODULES})
