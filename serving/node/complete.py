"""Decides when a series is complete. DICOM has no message for that."""

import threading
import time
from dataclasses import replace

from segthor.dicom import received
from serving.node import rules
from serving.node.jobs import Job
from serving.node.spool import DISCARDED, INBOX, READY, Spool


class Completion:
    """Which series of the inbox are complete.

    A series is complete when no slice arrived for `quiet_s` and no association that sent one of its
    slices is open. After a restart the time counts from the restart.
    """

    def __init__(self, spool: Spool, quiet_s: float):
        self._spool, self._quiet_s = spool, quiet_s
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}  # series to when its last slice arrived
        self._senders: set[tuple[str, threading.Thread]] = set()  # series, association

    def note_slice(self, series: str, association: threading.Thread | None = None) -> None:
        """Notes that a slice arrived. association: Its thread, which is alive while it is open."""
        with self._lock:
            self._last[series] = time.monotonic()
            if association:
                self._senders.add((series, association))

    def idle(self) -> dict[str, bool]:
        """Series that no open association sends, to whether each is complete."""
        names, now = self._spool.names(INBOX), time.monotonic()
        with self._lock:
            self._last = {name: self._last.get(name, now) for name in names}
            self._senders = {one for one in self._senders if one[1].is_alive()}
            idle = set(names) - {series for series, _ in self._senders}
            return {name: now - self._last[name] >= self._quiet_s for name in sorted(idle)}

    def wait_again(self, series: str) -> None:
        """Waits `quiet_s` again for a series."""
        with self._lock:
            self._last[series] = time.monotonic()


def decide(job: Job, images: list[str], current_rules) -> tuple[str, Job]:
    """The folder that a complete series goes to, and its job with the order of its rule."""
    series = received.read_series(images)
    order, results = rules.choose(current_rules, series, job.calling)
    if order is None:
        return DISCARDED, replace(job, order=None, reason=f"no rule matches: {'; '.join(results)}")
    if not order.models:
        return DISCARDED, replace(job, order=order, reason=f"discarded by line {order.line}")
    return READY, replace(job, order=order, reason="")
