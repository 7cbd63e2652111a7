"""Prints the state of this installation: versions, devices, memory, engines and missing extras.

  python -m segthor.doctor

Exit status 1 if a required package is missing or has another version than expected.
"""

import importlib.metadata
import os
import platform
from collections import defaultdict

from packaging.requirements import Requirement

from segthor import configs, memory, startup
from segthor.errors import message_line, run

_ENGINES = {"tensorflow": "tensorflow", "openvino": "openvino"}  # engine to its package
_FOR_DEVELOPERS = ("test", "bench")  # extras that users of the programs do not need


def main(_):
    """Prints one line for each part of the installation."""
    version = importlib.metadata.version("segthor")
    system = f"{platform.system()} {platform.machine()}"
    print(f"segthor {version}, Python {platform.python_version()} on {system}")
    print(f"{os.cpu_count()} processor cores, {memory.available_bytes() / 1e9:.1f} GB memory free")
    print(f"configurations: {configs.folder()}")
    needed, extras = _requirements()
    wrong = [problem for one in needed if (problem := _problem(one))]
    _print_packages(needed, wrong)
    print(f"devices: {_devices()}", flush=True)
    for engine, package in _ENGINES.items():
        print(f"engine {engine}: {_version(package) or f'missing; {_install(engine)}'}")
    for extra, requirements in extras.items():
        missing = [problem for one in requirements if (problem := _problem(one))]
        state = f"missing: {', '.join(missing)}; {_install(extra)}" if missing else "complete"
        print(f"extra {extra}: {state}")
    return 1 if wrong else 0


def _requirements() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """(requirements of every program, extra to its requirements)."""
    needed, extras = [], defaultdict(list)
    named = importlib.metadata.metadata("segthor").get_all("Provides-Extra") or ()
    for line in importlib.metadata.requires("segthor") or ():
        one = Requirement(line)
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            needed.append(one)
            continue
        for extra in named:
            if extra not in _FOR_DEVELOPERS and one.marker.evaluate({"extra": extra}):
                extras[extra].append(one)
    return needed, extras


def _problem(one: Requirement) -> str:
    """The problem of a required package, or ''."""
    version = _version(one.name)
    if not version:
        return one.name
    if not one.specifier.contains(version, prereleases=True):
        return f"{one.name} {version} (expected {one.specifier})"
    # An extra such as tensorflow[and-cuda] is installed if its requirements are.
    for line in importlib.metadata.requires(one.name) or () if one.extras else ():
        inner = Requirement(line)
        wanted = any(inner.marker and inner.marker.evaluate({"extra": e}) for e in one.extras)
        if wanted and not inner.marker.evaluate({"extra": ""}) and not _version(inner.name):
            return f"{one.name}[{','.join(sorted(one.extras))}]"
    return ""


def _print_packages(needed: list[Requirement], wrong: list[str]) -> None:
    versions = ", ".join(f"{one.name} {_version(one.name)}" for one in needed if _version(one.name))
    print(f"packages: {versions}")
    if wrong:
        again = "install segthor again with pip"
        print(f"packages that are missing or do not fit: {', '.join(wrong)}; {again}")


def _devices() -> str:
    """The devices that TensorFlow can use, as text."""
    try:
        startup.load_tensorflow()
        import tensorflow as tf
    except Exception as error:  # many types, as when a library of the system is missing
        return f"TensorFlow cannot be loaded ({message_line(error)})"
    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name") for gpu in gpus]
    return ", ".join(name or "a GPU" for name in names) or "no GPU; networks run on the processor"


def _install(extra: str) -> str:
    return f"pip install 'segthor[{extra}]'"


def _version(package: str) -> str:
    """The installed version of a package; '' where it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    run(main)
