"""Trains in several processes on this machine, in place of several hosts.

    python scripts/train_hosts.py 2 --data=DATASET --workdir=RUN ...

The number of processes comes first, then the flags of trainer.main. Each process gets a TF_CONFIG
with free ports of the loopback. Exit status: that of the processes if they agree; otherwise 1, with
one line about the process that was lost. The same command then continues from the last checkpoint.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

from segthor import children

EXAMPLE = "python scripts/train_hosts.py 2 --data=DATASET --workdir=RUN"
MOST = 64  # on one machine
GRACE_S = 90  # TensorFlow misses a silent process after a minute


def main() -> int:
    """Starts the processes and waits for all of them."""
    count = sys.argv[1] if len(sys.argv) > 1 else ""
    if not count.isdecimal() or not 1 <= int(count[:4]) <= MOST:
        print(
            f"error: expected a number of processes first, 1 to {MOST}: {EXAMPLE}", file=sys.stderr
        )
        return 2
    processes = [start(tf_config, sys.argv[2:]) for tf_config in tf_configs(int(count))]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: [process.terminate() for process in processes])
    printers = [
        threading.Thread(target=show, args=(index, process))
        for index, process in enumerate(processes)
    ]
    for printer in printers:
        printer.start()
    first = wait(processes)
    for printer in printers:
        printer.join()
    states = {process.returncode for process in processes}
    # A process that was still connecting cannot notice the loss of another: it is killed as well.
    if len(states) == 1 and min(states) >= 0:
        return states.pop()
    print(
        f"error: process {first} of {len(processes)} {ended(processes[first])}, and the others "
        "ended with it; the same command continues from the last checkpoint",
        file=sys.stderr,
    )
    return 1


def tf_configs(count: int) -> list[str]:
    """TF_CONFIG of each process, with ports that are free now and differ."""
    hosts = [f"127.0.0.1:{port}" for port in free_ports(count)]
    return [
        json.dumps({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}})
        for index in range(count)
    ]


def free_ports(count: int) -> list[int]:
    """Ports that no connection takes by chance before TensorFlow listens there.

    Outgoing connections get theirs from 32768 up (Linux; macOS and IANA: from 49152), and a process
    that calls another too early could even be connected with itself.
    """
    listeners = []
    while len(listeners) < count:
        with contextlib.suppress(OSError):  # taken
            listeners.append(socket.create_server(("127.0.0.1", random.randrange(10_000, 32_768))))
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def start(tf_config: str, arguments: list[str]) -> subprocess.Popen:
    """One process of the run."""
    return children.start(
        [sys.executable, "-m", "trainer.main", *arguments],
        env={**os.environ, "TF_CONFIG": tf_config},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def show(index: int, process: subprocess.Popen) -> None:
    """Passes a process's lines on, with its number before them."""
    for line in process.stdout:
        print(f"[{index}] {line}", end="", flush=True)


def wait(processes: list[subprocess.Popen]) -> int:
    """Returns when all have ended, with the number of the first that failed.

    The others notice its loss by themselves; one that does not is ended.
    """
    first, deadline = None, None
    while any(process.poll() is None for process in processes):
        failed = [index for index, process in enumerate(processes) if process.poll()]
        if failed and first is None:
            first, deadline = failed[0], time.monotonic() + GRACE_S
        if deadline and time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(0.1)
    return first or 0


def ended(process: subprocess.Popen) -> str:
    """How, in words."""
    code = process.returncode
    return f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"


if __name__ == "__main__":
    sys.exit(main())
