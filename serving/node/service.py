"""The node: its threads, and the steps of a job. All state that lasts is in the spool."""

import contextlib
import functools
import importlib.metadata
import os
import threading
import time
from dataclasses import replace

from segthor import files, guard
from segthor.dicom import DicomError, refusal
from serving.node import complete, peers, rules
from serving.node.counts import SourceCounts
from serving.node.events import Events
from serving.node.jobs import Job, Object
from serving.node.receive import Receiver
from serving.node.send import RETRIES_S, Sender
from serving.node.settings import Settings
from serving.node.spool import DISCARDED, FAILED, OUTBOX, READY, SENT, WORK, Spool
from serving.node.watch import Watcher

MOST_STARTS = 3  # of a job whose prediction ends the process
_PAUSE_S, _SWEEP_S = 0.2, 5.0


class Node:
    """One node on one spool.

    The main thread predicts. One thread per association receives, one closes series and starts
    sending, and one per destination sends.
    """

    def __init__(self, settings: Settings, predict, retries_s: tuple[float, ...] = RETRIES_S):
        """predict: Called with a job's folder and its order; returns `work.Predicted`.

        Raises:
          InputError: rules, peers or TLS's files cannot be used.
        """
        self.settings, self._predict = settings, predict
        known = peers.read(settings)
        self._rules = rules.RuleBook(settings.rules, known, self._say)
        self.spool = Spool(settings.spool)
        self.events = Events(self.spool.root)
        self._completion = complete.Completion(self.spool, settings.quiet_s)
        self._receiver = Receiver(settings, known, self.spool, self._completion, self.events)
        self._counts = SourceCounts(settings, known, self.spool)
        self._watcher = None
        if settings.watch:
            self._watcher = Watcher(settings, self.spool, self._completion, self.events)
        self._sender = Sender(settings, known, self.spool, self.events, retries_s)
        self._stopped = threading.Event()
        self._next_sweep = 0.0
        self._said = ""

    def start(self) -> None:
        """Receives, closes series and sends from now on, in threads.

        Raises:
          InputError: the port cannot be listened on.
        """
        self.spool.recover()
        if self.settings.port:
            self._receiver.start()
        threading.Thread(target=self._attend, daemon=True).start()

    def stop(self) -> None:
        """Ends the threads. The next process repeats their unfinished work."""
        self._stopped.set()
        self._receiver.stop()

    def run(self) -> None:
        """Predicts what is ready until `stop`."""
        busy = False
        while busy or not self._stopped.wait(_PAUSE_S):
            try:
                busy = self.predict_next() and not self._stopped.is_set()
            except Exception as error:  # a full disk, or a folder that was changed by hand
                self._say_once(f"warning: {guard.describe(error)}")
                busy = False

    def predict_next(self) -> bool:
        """Predicts the first job of the queue; returns whether there was one."""
        self.spool.requeue()  # after an error, such as a full disk
        if not self._has_space():
            return False
        # A job without an order was moved here by hand.
        ready = [one for one in self.spool.jobs(READY) if one[1].order]
        if not ready:
            return False
        name, job = min(ready, key=lambda one: (-one[1].order.priority, one[1].received, one[0]))
        job = replace(job, starts=job.starts + 1)
        try:
            self.spool.move(name, READY, WORK, job)
        except FileNotFoundError:  # late slices replaced it
            return True
        if job.starts > MOST_STARTS:
            reason = f"the process ended {MOST_STARTS} times while it predicted this series"
            self._fail(name, job, reason)
        else:
            self._predict_job(name, job)
        return True

    def _predict_job(self, name: str, job: Job) -> None:
        began = time.monotonic()
        try:
            predicted = self._predict(self.spool.folder(WORK, name), job.order)
        except Exception as error:  # of any kind: other jobs go on
            return self._fail(name, job, guard.describe(error))
        reason = "; ".join(predicted.reasons)
        # Reset, for a job that failed before and was moved back.
        job = replace(job, model=predicted.model, objects=(), refused=False, destination=0)
        job = replace(job, attempts=0, due=0.0)
        if reason and not predicted.objects:
            return self._fail(name, job, reason)
        done = replace(job, objects=predicted.objects, reason=reason)
        self._report("predicted", name, done, f"{time.monotonic() - began:.1f} s")
        self.spool.move(name, WORK, OUTBOX, done)

    def attend(self) -> None:
        """Looks at the watched folder, closes series, sends what is due, removes what is old."""
        idle = self._completion.idle().items()
        steps = [functools.partial(self._close_complete, *one) for one in idle]
        steps.append(self._sender.start_due)
        if self._watcher and self._has_space():
            steps.insert(0, self._watcher.look)
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + _SWEEP_S
            steps += [self._receiver.sweep, self._remove_old]
        for step in steps:
            try:
                step()
            except Exception as error:  # a full disk, or a folder that was changed by hand
                self._say_once(f"warning: {guard.describe(error)}")

    def _attend(self) -> None:
        while not self._stopped.wait(_PAUSE_S):
            try:
                self.attend()
            except Exception as error:  # the spool is gone; it may come back
                self._say_once(f"warning: {guard.describe(error)}")

    def _close_complete(self, series: str, is_silent: bool) -> None:
        """Closes a series if it is complete, by time or by the count of its source."""
        is_all = self._counts.is_complete(series, is_silent)
        if is_all or (is_all is None and is_silent):
            self._close(series)
        elif is_silent:
            self._completion.wait_again(series)

    def _close(self, series: str) -> None:
        current = self._rules.current()
        closed = self.spool.close_series(
            series, lambda job, images: complete.decide(job, images, current)
        )
        if closed:
            state, name, job = closed
            self._receiver.forget(series)
            self._counts.forget(series)
            line = f"{state} by line {job.order.line} of the rules" if job.order else state
            line += f", replaces {job.replaces}" if job.replaces else ""
            line += f": {job.reason}" if job.reason else ""
            self._report("complete", name, job, line)

    def _fail(self, name: str, job: Job, reason: str) -> None:
        """Ends a job without a prediction; sends a document first if its rule says so."""
        folder = self.spool.folder(WORK, name)
        reason = reason.replace(folder + os.sep, "").replace(folder, "the series")
        # Reset, so that the job is tried again if it is moved back to `ready`.
        job = replace(job, reason=reason, refused=True, starts=0)
        self._report("failed", name, job, reason)
        if job.order.refusal:
            job = replace(job, objects=self._write_refusal(name, job))
        self.spool.move(name, WORK, OUTBOX if job.objects else FAILED, job)

    def _write_refusal(self, name: str, job: Job) -> tuple[Object, ...]:
        """Writes the document that states why; () if no image can be read."""
        file = f"{name}_refusal.sr"  # not *.dcm: those are what was received
        path = self.spool.folder(WORK, name, file)
        version = importlib.metadata.version("segthor")
        made = time.strftime("%Y%m%d %H%M%S", time.gmtime(job.received)).split()
        text = f"No structures were made of this series. Reason: {job.reason}"
        for image in self.spool.images(WORK, name):
            try:
                uid = refusal.write_refusal(path, image, text, version, *made)
            except DicomError:
                continue
            return (Object(file, uid, files.sha256(path)),)
        return ()

    def _remove_old(self) -> None:
        oldest = time.time() - self.settings.keep_days * 86400
        for state in (SENT, FAILED, DISCARDED):
            for name in self.spool.names(state):
                with contextlib.suppress(FileNotFoundError):  # its job.json, or all of it
                    if self.spool.changed(state, name) < oldest:
                        self.spool.remove(state, name)

    def _has_space(self) -> bool:
        has_space = self.spool.free_bytes() >= self.settings.least_free_gb * 1e9
        if not has_space:
            self._say_once(
                f"warning: {self.spool.root}: less than --least_free_gb="
                f"{self.settings.least_free_gb:g} free; nothing is received or predicted"
            )
        return has_space

    def _report(self, event: str, name: str, job: Job, line: str) -> None:
        rule = job.order.line if job.order else None
        self.events.report_job(event, name, job, line, rule=rule, model=job.model)

    def _say(self, line: str) -> None:
        self.events.report("note", line)

    def _say_once(self, line: str) -> None:
        """Reports a line unless it is the one reported last."""
        if line != self._said:
            self._said = line
            self._say(line)
