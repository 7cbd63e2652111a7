"""The walk over the cases: reading ahead and writing behind while the network runs.

One case's trouble is its own: it is caught, named, and the walk goes on.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, TimeoutError
from dataclasses import dataclass

from segthor import guard
from segthor.errors import InputError


@dataclass(frozen=True)
class Outcome:
    """How one case ended. reason: '' where it went well."""

    case: object
    seconds: float
    reason: str = ""

    @property
    def line(self) -> str:
        """For people."""
        state = f"FAILED: {self.reason}" if self.reason else f"{self.seconds:.1f} s"
        return f"{self.case.name}  {state}"


def walk(cases: list, predict: Callable, timeout_s: float) -> Iterator[Outcome]:
    """Yields one outcome per case, in order.

    predict(case) is a generator of three parts, as `case.predict_case` is. The first part of the
    next case and the last part of the case before run beside the second part. A case whose part
    takes longer than `timeout_s` is given up: its thread is left behind, and ends with the process.
    """
    reading = _start(predict(cases[0])) if cases else None
    writing = None
    for index, case in enumerate(cases):
        current, reading = reading, None
        if index + 1 < len(cases):
            reading = _start(predict(cases[index + 1]))
        began, reason = time.monotonic(), ""
        try:
            current.wait(timeout_s)
            current = _start(current.parts)
            current.wait(timeout_s)
        except Exception as error:  # whatever it is, the other cases must not suffer
            reason = guard.describe(error)
        seconds = time.monotonic() - began
        if writing:
            yield _finished(*writing, timeout_s)
            writing = None
        if reason:
            yield Outcome(case, seconds, reason)
        else:
            writing = case, seconds, _start(current.parts)
    if writing:
        yield _finished(*writing, timeout_s)


@dataclass(frozen=True)
class _Part:
    """One part of a case, at work in a thread of its own. parts: the case's generator."""

    parts: Iterator
    future: Future
    began: float

    def wait(self, timeout_s: float) -> None:
        left = max(0.0, self.began + timeout_s - time.monotonic())
        try:
            self.future.result(left)
        except TimeoutError as error:
            if self.future.done():
                raise
            raise InputError(f"took longer than --case_timeout ({timeout_s:g} s)") from error


def _start(parts: Iterator) -> _Part:
    # After its last part the generator ends, so `next` has a default.
    return _Part(parts, guard.start(next, parts, None), time.monotonic())


def _finished(case, seconds: float, last: _Part, timeout_s: float) -> Outcome:
    try:
        last.wait(timeout_s)
    except Exception as error:
        return Outcome(case, seconds, guard.describe(error))
    return Outcome(case, seconds)
