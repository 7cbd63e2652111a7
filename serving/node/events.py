"""Reports events: a line for people on stdout, and a JSON object per line in `audit.jsonl`.

Neither contains text of a header: patients, studies and series are keyed hashes (`spool`).
"""

import contextlib
import importlib.metadata
import json
import os
import threading
import time

from serving.node.jobs import Job

FILE_NAME = "audit.jsonl"


class Events:
    """Reports the events of a node. The file may be moved away at any time."""

    def __init__(self, folder: str):
        self._path = os.path.join(folder, FILE_NAME)
        self._lock = threading.Lock()
        self._version = importlib.metadata.version("segthor")

    def report(self, event: str, line: str, **facts) -> None:
        """Reports one event; never raises. facts: plain JSON values for the record."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        row = {"time": stamp, "event": event, "line": line, "version": self._version, **facts}
        with self._lock, contextlib.suppress(OSError, ValueError):  # stdout is closed
            print(f"{stamp}  {event}  {line}", flush=True)
        with self._lock, contextlib.suppress(OSError):  # a full disk must not end an association
            with open(self._path, "ab", buffering=0, opener=_open_private) as stream:
                stream.write(json.dumps(row).encode() + b"\n")

    def report_job(self, event: str, name: str, job: Job, line: str, **facts) -> None:
        """Reports an event of a job, as `report`."""
        known = {"job": name, "patient": job.patient, "study": job.study}
        self.report(event, f"job {name}: {line}", **known, **facts)


def _open_private(path: str, how: int) -> int:
    """Opens a file that only its owner may read if it is new."""
    return os.open(path, how, 0o600)
