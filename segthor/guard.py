"""Limits damage to one case: a time limit for reading, and one line for any unexpected error.

The message of a library may quote a header, and so name the patient. Only the type of such an error
and its place in our code are printed.
"""

import functools
import os
import threading
import traceback
from concurrent.futures import Future, TimeoutError, wait

from absl import logging

from segthor.errors import InputError, ReadError, message_line

SECONDS = 1800  # for one case; the default of serving.predict --case_timeout
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def describe(error: BaseException) -> str:
    """An error in one line that quotes no file: our own message, else its type and place."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}"
    if isinstance(error, MemoryError):
        return "no memory left"
    if type(error).__module__.startswith("tensorflow"):  # reads no headers, so it can quote none
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
    """The ReadError that stands for an error of any type."""
    if isinstance(error, ReadError):
        return error
    if isinstance(error, InputError | OSError):
        return ReadError("file_missing", describe(error))
    return ReadError("unforeseen", f"{path}: {describe(error)}")


def reader(function):
    """Decorates a function that reads the file or folder that is its first argument.

    The call may take `SECONDS`. Every error but InputError and MemoryError becomes a ReadError.
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
    """Calls function(*arguments, **named) with a time limit and returns its result.

    A call that exceeds the limit continues in its thread, which ends with the process.

    Args:
      seconds: The limit.
      what: What is read, for the message.
      function: The function.

    Raises:
      ReadError: 'file_missing': The call exceeds the limit.
    """
    future = start(function, *arguments, **named)
    try:
        return future.result(seconds)
    except TimeoutError as error:
        if future.done():  # the call itself raised it
            raise
        message = f"{what}: took longer than {seconds:g} s to read; check its disk or network"
        raise ReadError("file_missing", message) from error


def map_within(seconds: float, function, items, instead) -> list:
    """Calls a function for one item after the other, each with a time limit; returns the results.

    One thread makes many calls, since to start one takes as long as to read a small file.

    Args:
      seconds: The limit of each call.
      function: The function of an item.
      items: The items.
      instead: Makes the result of an item whose call exceeds the limit.
    """
    items, results = list(items), []
    while len(results) < len(items):
        rest, part = items[len(results) :], []
        future = start(_call_each, function, rest, part)
        before = -1
        while not future.done() and len(part) > before:
            before = len(part)
            wait([future], seconds)
        if future.done():
            future.result()  # raises what the thread raised
            results += part
        else:
            rest.clear()  # a thread that comes back late calls nothing more
            results += part[:before]
            results.append(instead(items[len(results)]))
    return results


def _call_each(function, items: list, results: list) -> None:
    for item in items:
        results.append(function(item))


def start(function, *arguments, **named) -> Future:
    """Calls a function in a new thread, which does not keep the process alive."""
    future = Future()

    def call():
        try:
            future.set_result(function(*arguments, **named))
        except BaseException as error:  # raised again by `Future.result`
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future
