"""Describes a spool for people: queue, oldest job, jobs per day, last failures."""

import os
import time

from segthor import progress
from segthor.errors import InputError
from serving.node.spool import FAILED, INBOX, OUTBOX, READY, SENT, STATES, WORK, Spool

_SHOWN = 5  # failures
_DAY_S = 86400


def describe(root: str) -> str:
    """The state of a spool as lines; changes nothing.

    Raises:
      InputError: there is no spool.
    """
    if not os.path.isdir(os.path.join(root, INBOX)):
        raise InputError(f"--spool={root}: expected the spool of a node, found none")
    spool, now = Spool(root), time.time()
    counts = [f"{state} {len(spool.names(state))}" for state in (INBOX, *STATES)]
    lines = [", ".join(counts), _oldest(spool, now)]
    ended = [
        spool.changed(state, name) for state in (SENT, FAILED) for name, _ in spool.jobs(state)
    ]
    last_day = sum(now - moment < _DAY_S for moment in ended)
    lines.append(f"{last_day} jobs ended within the last 24 hours")
    damaged = [
        f"damaged: {state}/{name}: its job.json cannot be read"
        for state in (INBOX, *STATES)
        for name in sorted({*spool.names(state)} - {name for name, _ in spool.jobs(state)})
    ]
    failed = sorted(spool.jobs(FAILED), key=lambda one: spool.changed(FAILED, one[0]))
    lines += [f"failed: {name}: {job.reason}" for name, job in failed[-_SHOWN:]]
    return "\n".join([*lines, *damaged])


def _oldest(spool: Spool, now: float) -> str:
    waiting = [
        (job.received, state, name)
        for state in (INBOX, READY, WORK, OUTBOX)
        for name, job in spool.jobs(state)
    ]
    if not waiting:
        return "nothing waits"
    received, state, name = min(waiting)
    return f"oldest: {name}, in {state}, received {progress.duration(now - received)} ago"
