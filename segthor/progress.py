"""Progress of a long step: one line that is rewritten on a terminal, plain lines in a log."""

import contextlib
import sys
import threading
import time

_TERMINAL_SECONDS, _LOG_SECONDS = 0.5, 15


@contextlib.contextmanager
def watch(count_done, total: int, unit: str, stream=None):
    """Prints count, rate and time left while the block runs.

    Args:
      count_done: Returns how many of `total` are done; called from another thread.
      total: The number at the end.
      unit: Name of what is counted.
      stream: Where to print; None: stderr.
    """
    stream = stream or sys.stderr
    stop = threading.Event()
    thread = threading.Thread(target=_show, args=(count_done, total, unit, stream, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _show(count_done, total, unit, stream, stop):
    terminal = stream.isatty()
    started, first, shown = time.monotonic(), count_done(), None
    while True:
        ended = stop.wait(_TERMINAL_SECONDS if terminal else _LOG_SECONDS)
        text = line(first, count_done(), total, unit, time.monotonic() - started)
        if terminal:
            print(f"\r{text:<78}", end="\n" if ended else "", file=stream, flush=True)
        elif text != shown:
            print(text, file=stream, flush=True)
        shown = text
        if ended:
            return


def line(first: int, done: int, total: int, unit: str, seconds: float) -> str:
    """The text to show after `seconds`. first: The number that were done at the start."""
    text = f"{done} of {total} {unit}"
    rate = (done - first) / seconds if seconds else 0
    if rate:
        text += f", {rate:.2g} per second"
        text += f", {duration((total - done) / rate)} left" if done < total else ""
    return text


def duration(seconds: float) -> str:
    """'48 s', '12 min', '3 h 05 min'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def case_line(number: int, total: int, text: str, began_s: float) -> str:
    """'[3/9] TEXT  (2 min left)'. began_s: Start of the first case, by time.monotonic()."""
    left_s = (time.monotonic() - began_s) / number * (total - number)
    return f"[{number}/{total}] {text}  ({duration(left_s)} left)"
