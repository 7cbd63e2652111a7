"""Keeps one case's trouble to that case: a time limit, and errors that nobody foresaw.

A library's message may quote a header, and so the patient. Of an error that is none of ours only
its kind and its place in our code are told.
"""

import functools
import os
import threading
import traceback
from concurrent.futures import Future, TimeoutError

from absl import logging

from segthor.errors import InputError, ReadError, message_line

SECONDS = 1800  # for one case, as serving.predict --case_timeout has it
UNFORESEEN = "unforeseen"  # the code of `ReadError`
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def describe(error: BaseException) -> str:
    """An error in one line that quotes no file: our own message, else kind and place."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}"
    if isinstance(error, MemoryError):
        return "no memory left"
    if type(error).__module__.startswith("tensorflow"):  # it computes, and knows no header
        return f"{type(error).__name__}: {message_line(error)}"
    frames = traceback.extract_tb(error.__traceback__)
    logging.debug("%s", "".join(traceback.format_list(frames)))
    own = [frame for frame in frames if frame.filename.startswith(_ROOT + os.sep)]
    place = ""
    if own:
        name = os.path.relpath(own[-1].filename, _ROOT).replace(os.sep, "/")
        place = f" at {name}:{own[-1].lineno}"
    return f"an error that was not foreseen, {type(error).__name__}{place}"


def read_error(path: str, error: Exception) -> ReadError:
    """What is raised for a file, or noted for a patient, in place of an error of any kind."""
    if isinstance(error, ReadError):
        return error
    if isinstance(error, InputError | OSError):
        return ReadError("file_missing", describe(error))
    return ReadError(UNFORESEEN, f"{path}: {describe(error)}")


def reader(function):
    """For a function that reads the file or folder that is its first argument.

    It gets SECONDS, and raises ReadError, whatever was raised in it; MemoryError passes.
    """

    @functools.wraps(function)
    def guarded(path, *arguments, **named):
        try:
            return within(SECONDS, path, function, path, *arguments, **named)
        except (InputError, MemoryError):
            raise
        except Exception as error:
            raise read_error(path, error) from error

    return guarded


def within(seconds: float, what: str, function, *arguments, **named):
    """The result of function(*arguments, **named), which may take so long.

    A call that takes longer goes on in a thread of its own, which ends with the process.

    Raises:
      ReadError: 'file_missing': it takes longer.
    """
    future = start(function, *arguments, **named)
    try:
        return future.result(seconds)
    except TimeoutError as error:
        if future.done():  # the call itself raised it
            raise
        message = f"{what}: took longer than {seconds:g} s to read; is its disk or network there?"
        raise ReadError("file_missing", message) from error


def start(function, *arguments, **named) -> Future:
    """The result to come of a call in a new thread, which does not keep the process alive."""
    future = Future()

    def call():
        try:
            future.set_result(function(*arguments, **named))
        except BaseException as error:  # raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future
