"""Processes of this machine, so that Beam's local runner writes shards on every core.

Threads would share Python's global lock: two threads are 1.4 times as fast as one, two processes
1.9 times. Engines such as Flink bring workers of their own; there, and where one process is enough,
`submit` calls the function at once.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import connection

_AHEAD = 4  # waiting calls for each process: enough to keep it busy, few enough to hold in memory

_pool: ProcessPoolExecutor | None = None
_count = 0


@contextlib.contextmanager
def start_workers(count: int, spawn: bool = False):
    """While the block runs, `submit` hands its calls to `count` processes; with 1, to this one.

    spawn: Whether to start new interpreters instead of the system's default. Required where this
      process holds network connections, which a fork would break.
    """
    global _pool, _count
    if count == 1:
        yield
        return
    context = multiprocessing.get_context("spawn" if spawn else None)
    with ProcessPoolExecutor(count, context, initializer=_initialize_worker) as pool:
        pool.submit(os.getpid).result()  # fork now, before this process has other threads
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
    """Calls function(*arguments) in a worker, or here without workers; returns its future."""
    if _pool:
        return _pool.submit(function, *arguments)
    done = Future()
    done.set_result(function(*arguments))
    return done


def max_waiting() -> int:
    """How many calls may be in progress before the result of the first one is waited for."""
    return _count * (1 + _AHEAD)


def _initialize_worker():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles an interrupt for all workers
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent():
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
