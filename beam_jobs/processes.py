"""Processes of this machine, so that Beam's local runner writes shards on every core.

Not threads: they would share Python's one lock, and two of them took 0.7 of the time of one where
two processes take little more than half. Engines such as Flink bring workers of their own; there,
and where one process is enough, a call runs at once where it is made.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import connection

_AHEAD = 4  # calls that wait for each process: enough to keep it busy, few enough to hold

_pool: ProcessPoolExecutor | None = None
_count = 0


@contextlib.contextmanager
def started(count: int, afresh: bool = False):
    """While the block lasts, `submit` hands its calls to `count` processes; at 1, to this one.

    afresh: whether they import everything themselves, as is safe where this process holds
    connections, which a fork would break; otherwise they are made in the system's usual way.
    """
    global _pool, _count
    if count == 1:
        yield
        return
    context = multiprocessing.get_context("spawn" if afresh else None)
    with ProcessPoolExecutor(count, context, initializer=_join) as pool:
        pool.submit(os.getpid).result()  # starts them now, before this process has other threads
        _pool, _count = pool, count
        try:
            yield
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        finally:
            _pool, _count = None, 0
            pool.shutdown(cancel_futures=True)


def submit(function, *arguments) -> Future:
    """The result to come of function(*arguments)."""
    if _pool:
        return _pool.submit(function, *arguments)
    done = Future()
    done.set_result(function(*arguments))
    return done


def most_waiting() -> int:
    """How many calls may be under way before the first one's result is waited for."""
    return _count * (1 + _AHEAD)


def _join():
    """What a new process does first: it ends with the one that started it, in whatever way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers it, for all
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
