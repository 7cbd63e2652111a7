"""A process that has loaded TensorFlow and the project, and forks a program at each request.

tests/programs.py starts it and says what it is for. It runs no operation of TensorFlow: the first
one starts threads, and a fork would lack them.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import io
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types

import fsspec
from absl import app
from programs import ROOT, STARTS_OTHERS, Forked, adopt_orphans

import trainer  # noqa: F401  before tensorflow, which reads trainer's environment variables
from segthor import children, files, plots, records, sides, startup

PACKAGES = ("segthor", "beam_jobs", "trainer", "serving")
# Of the libraries, what the project's programs load only once they are at work.
LAZY = (
    "tf_keras",
    "segmentation_models",
    "apache_beam.options.pipeline_options",
    "apache_beam.runners.direct.direct_runner",
    "apache_beam.runners.portability.fn_api_runner",
    "matplotlib.pyplot",
    "s3fs",
)
# What programs load at their start; none of them loads TensorFlow or Beam.
LIGHT = ("absl.app", "fsspec", "nibabel", "numpy", "PIL.Image", "pydicom", "scipy.ndimage")
# Of the trainer, the modules that make a training's graph.
CONVERTED = (
    *("appearance", "augment", "data", "devices", "draws", "exchange", "learner", "losses"),
    *("schedules", "step", "strengths", "targets", "update", "warp"),
)
LONGEST_REQUEST = 1 << 18  # bytes


def load() -> None:
    """Imports the libraries, and all modules of the project but programs, which define flags."""
    for path in sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        if '__name__ == "__main__"' not in path.read_text():
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            with contextlib.suppress(ImportError):  # of a package that is not installed
                importlib.import_module(name.removesuffix(".__init__"))
    for name in LAZY:
        with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(ImportError):
            importlib.import_module(name)  # segmentation_models prints a line
    figure = plots.new_figure(figsize=(3, 3))
    figure.subplots().plot([0, 1], label="loads fonts")
    figure.savefig(io.BytesIO())
    app._init_callbacks.clear()  # those of TensorFlow's own tests look for GPUs
    gc.collect()
    gc.freeze()  # so that collections in the programs leave the shared pages alone


def serve(requests: socket.socket) -> dict | None:
    """Answers each request with the process id of a new child of this process's parent.

    Returns the request in the process that is to run it, and None in the server once the other end
    of the socket is closed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and that ends the server
    parent = os.getppid()
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, LONGEST_REQUEST, 3)
        if not message:
            return None
        program = " ".join(pickle.loads(message)["command"][:2])
        if "tensorflow" in sys.modules and ("train" in program or "replica" in program):
            convert_functions()
        pid = fork_beside(parent)
        if not pid:
            requests.close()
            for standard, descriptor in enumerate(descriptors):
                os.dup2(descriptor, standard)
            os.closerange(3, max(descriptors) + 1)
            return pickle.loads(message)
        for descriptor in descriptors:
            os.close(descriptor)
        requests.send(str(pid).encode())


@functools.cache
def convert_functions() -> None:
    """Does AutoGraph's work on the trainer's functions, half of what a short training takes.

    It is arithmetic on syntax trees and no operation of TensorFlow. Forks find it in its cache.
    """
    from tensorflow.python.autograph.core import converter
    from tensorflow.python.autograph.impl import api

    modules = [sys.modules[f"trainer.{name}"] for name in CONVERTED]
    functions = [function for module in modules for function in functions_of(module)]
    functions += [records.parse, sides.mirrored_labels, files.join, files.is_url]
    for function in functions:
        asked_for = hasattr(function, "python_function")  # by @tf.function
        options = converter.ConversionOptions(True, asked_for, optional_features=None)
        python_function = getattr(function, "python_function", function)
        for each in (python_function, *functions_in(python_function)):
            with contextlib.suppress(Exception):  # then the program does it, or says why not
                api._convert_actual(each, converter.ProgramContext(options))


def functions_of(module):
    """Functions and methods that a module defines."""
    for value in vars(module).values():
        if getattr(value, "__module__", "") == module.__name__:
            yield from vars(value).values() if isinstance(value, type) else [value]


def functions_in(function):
    """The functions that a function defines; AutoGraph looks at their code alone."""
    for code in getattr(getattr(function, "__code__", None), "co_consts", ()):
        if isinstance(code, types.CodeType) and not code.co_name.endswith(("comp>", "expr>")):
            cells = tuple(types.CellType(None) for _ in code.co_freevars)
            yield types.FunctionType(code, function.__globals__, code.co_name, None, cells)


def fork_beside(parent: int) -> int:
    """As os.fork, but the new process is a child of `parent`, which adopts orphans."""
    reader, writer = os.pipe()
    between = os.fork()
    if between:
        os.close(writer)
        os.waitpid(between, 0)  # the orphan is adopted now
        with open(reader, "rb") as stream:
            return int(stream.read())
    pid = os.fork()
    if pid:
        os.write(writer, str(pid).encode())
        os._exit(0)
    os.close(reader)
    os.close(writer)
    while os.getppid() != parent:
        time.sleep(0.001)
    return 0


def become(request: dict) -> None:
    """Takes over what the request says about the process, and runs the program to its end."""
    if request["before"]:
        request["before"]()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["new_session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(request["environment"])
    fsspec.config.set_conf_env(fsspec.config.conf)  # it reads variables when it is imported
    os.chdir(request["folder"])
    tempfile.tempdir = None  # the environment names it
    sys.stdin = sys.__stdin__ = open(0, closefd=False)
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = open(2, "w", 1, errors="backslashreplace", closefd=False)
    if request["tiny"]:
        import tiny_network

        tiny_network.install()
    if not set(STARTS_OTHERS).isdisjoint(request["command"][:2]):
        fork_others()
    try:
        run(*request["command"])
        status = 0
    except BaseException as error:
        status = status_of(error)
    end(status)


def fork_others() -> None:
    """From now on subprocess.Popen forks programs from a copy of this process as it is now."""
    adopt_orphans()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    if not os.fork():
        children.end_with(parent)
        ours.close()
        if request := serve(theirs):
            become(request)
        os._exit(0)
    theirs.close()
    Forked.server, subprocess.Popen = ours, Forked


def run(first: str, *arguments: str) -> None:
    """Does what `python FIRST ARGUMENTS` does."""
    if first == "-m":
        sys.path[0], sys.argv = os.getcwd(), [*arguments]
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.path[0], sys.argv = "", ["-c", *arguments[1:]]
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(arguments[0], "<string>", "exec"), sys.modules["__main__"].__dict__)
    else:
        sys.path[0], sys.argv = os.path.dirname(first), [first, *arguments]
        runpy.run_path(first, run_name="__main__")


def status_of(error: BaseException) -> int:
    """The exit status of a program that ends in this error; reports it as Python does."""
    if isinstance(error, SystemExit) and isinstance(error.code, int | None):
        return error.code or 0
    if isinstance(error, SystemExit):
        print(error.code, file=sys.stderr)
    else:
        sys.excepthook(type(error), error, error.__traceback__)
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return 1


def end(status: int) -> None:
    """Ends the process as Python does, but does not free the memory first, which takes 0.25 s."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it, or it is closed
            stream.flush()
    os._exit(status & 0xFF)


if __name__ == "__main__":
    descriptor, libraries = sys.argv[1:]
    if libraries == "light":
        for name in LIGHT:
            importlib.import_module(name)
    elif os.environ.get("SEGTHOR_TESTS_LOAD") != "0":
        with startup.quiet():
            load()
    if request := serve(socket.socket(fileno=int(descriptor))):
        become(request)
