"""Predicts case after case: reads the next one and writes the last one while the networks run.

An error of one case is caught and becomes its outcome; the other cases are predicted.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, TimeoutError
from dataclasses import dataclass

from segthor import guard


@dataclass(frozen=True)
class Outcome:
    """The outcome of one case.

    case: The case.
    seconds: Duration of reading and predicting.
    reason: Why it failed; '' for success.
    """

    case: object
    seconds: float
    reason: str = ""

    @property
    def line(self) -> str:
        """The outcome as a line for the terminal."""
        state = f"FAILED: {self.reason}" if self.reason else f"{self.seconds:.1f} s"
        return f"{self.case.name}  {state}"


def walk(cases: list, predict: Callable, timeout_s: float) -> Iterator[Outcome]:
    """Yields one outcome per case, in order.

    The first part of the next case and the last part of the case before run in threads beside the
    second part. A case is abandoned if one of its parts takes longer than `timeout_s`; its thread
    ends with the process.

    predict: Callable from a case to a generator of three parts, see `case.predict_case`.
    """
    reading = _start_part(predict(cases[0])) if cases else None
    writing = None
    for index, case in enumerate(cases):
        current, reading = reading, None
        if index + 1 < len(cases):
            reading = _start_part(predict(cases[index + 1]))
        began = time.monotonic()
        reason = current.wait(timeout_s)
        if not reason:
            current = _start_part(current.parts)
            reason = current.wait(timeout_s)
        seconds = time.monotonic() - began
        if writing:
            yield _wait_for_last(*writing, timeout_s)
        writing = None if reason else (case, seconds, _start_part(current.parts))
        if reason:
            yield Outcome(case, seconds, reason)
    if writing:
        yield _wait_for_last(*writing, timeout_s)


@dataclass(frozen=True)
class _Part:
    """One part of a case, which runs in a thread of its own.

    parts: Generator of the case.
    future: Result of the part.
    began: Start, by time.monotonic().
    """

    parts: Iterator
    future: Future
    began: float

    def wait(self, timeout_s: float) -> str:
        """Waits for the end of the part; returns why it failed, or ''."""
        try:
            self.future.result(max(0.0, self.began + timeout_s - time.monotonic()))
        except Exception as error:  # an unforeseen error must not stop the other cases
            if isinstance(error, TimeoutError) and not self.future.done():
                return f"took longer than --case_timeout ({timeout_s:g} s)"
            return guard.describe(error)
        return ""


def _start_part(parts: Iterator) -> _Part:
    # After its last part the generator ends, so `next` has a default.
    return _Part(parts, guard.start(next, parts, None), time.monotonic())


def _wait_for_last(case, seconds: float, last: _Part, timeout_s: float) -> Outcome:
    return Outcome(case, seconds, last.wait(timeout_s))
