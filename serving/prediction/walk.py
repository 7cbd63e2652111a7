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


def walk(
    cases: list,
    read: Callable,
    compute: Callable,
    write: Callable,
    timeout_s: float,
) -> Iterator[Outcome]:
    """Yields one outcome per case, in order.

    read(case) runs ahead of compute(case, what_was_read), and write(case, computed) behind it, one
    of each at a time. A case that takes longer than `timeout_s` in one of them is given up: its
    thread is left behind, and dies with the process.
    """
    reading = _start(read, cases[0]) if cases else None
    writing = None
    for index, case in enumerate(cases):
        current, reading = reading, None
        if index + 1 < len(cases):
            reading = _start(read, cases[index + 1])
        began, reason, computed = time.monotonic(), "", None
        try:
            given = current.get(timeout_s)
            computed = _start(compute, case, given).get(timeout_s)
            del given
        except Exception as error:  # whatever it is, the other cases must not suffer
            reason = guard.describe(error)
        seconds = time.monotonic() - began
        if writing:
            yield _finished(*writing, timeout_s)
            writing = None
        if reason:
            yield Outcome(case, seconds, reason)
        else:
            writing = case, seconds, _start(write, case, computed)
    if writing:
        yield _finished(*writing, timeout_s)


@dataclass(frozen=True)
class _Job:
    future: Future
    began: float

    def get(self, timeout_s: float):
        left = max(0.0, self.began + timeout_s - time.monotonic())
        try:
            return self.future.result(left)
        except TimeoutError as error:
            if self.future.done():
                raise
            raise InputError(f"took longer than --case_timeout ({timeout_s:g} s)") from error


def _start(function, *arguments) -> _Job:
    return _Job(guard.start(function, *arguments), time.monotonic())


def _finished(case, seconds: float, job: _Job, timeout_s: float) -> Outcome:
    try:
        job.get(timeout_s)
    except Exception as error:
        return Outcome(case, seconds, guard.describe(error))
    return Outcome(case, seconds)
