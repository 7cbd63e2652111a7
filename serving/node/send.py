"""Sends results: the files of the outbox as they are, so that a repeated send has the same UIDs.

An object that a receiver stored is not sent again. A refused one is sent again after 1, 5 and 25
minutes, then to the second destination in the same way; then the job fails.
"""

import contextlib
import os
import shutil
import threading
import time
from dataclasses import replace

from segthor import files, guard
from segthor.dicom import received
from segthor.errors import InputError
from serving.node.call import Caller
from serving.node.events import Events
from serving.node.jobs import Job, Object
from serving.node.peers import Peer, Peers
from serving.node.rules import FOLDER, SENDER
from serving.node.settings import Settings
from serving.node.spool import FAILED, OUTBOX, SENT, Spool

RETRIES_S = (60.0, 300.0, 1500.0)
# Warnings, with which an object is stored; and the status for an object that is there already.
_STORED_AFTER_ALL = (0xB000, 0xB006, 0xB007, 0x0111)
_CONNECT_S = 30.0
_PAUSE_S = 10.0  # after an error of the spool


class Sender:
    """Sends the jobs of the outbox, in one thread per destination: a slow one delays no other."""

    def __init__(
        self,
        settings: Settings,
        peers: Peers,
        spool: Spool,
        events: Events,
        retries_s: tuple[float, ...] = RETRIES_S,
    ):
        """Raises InputError where TLS's files cannot be used."""
        self._peers, self._spool, self._answer_s = peers, spool, settings.answer_s
        self._events, self._retries_s = events, retries_s
        self._caller = Caller(settings)
        self._later: dict[str, float] = {}  # job to when it is due, so that few files are read
        self._busy: dict[str, threading.Thread] = {}  # destination to the thread that sends there

    def start_due(self) -> None:
        """Starts to send the jobs that are due."""
        due: dict[str, list[str]] = {}
        names = self._spool.names(OUTBOX)
        self._later = {name: moment for name, moment in self._later.items() if name in names}
        for name in names:
            if self._later.get(name, 0.0) > time.time():
                continue
            with contextlib.suppress(InputError):  # it was sent meanwhile, or its file is damaged
                job = self._spool.read(OUTBOX, name)
                self._later[name] = job.due
                if job.due <= time.time():
                    due.setdefault(_destination(job), []).append(name)
        self._busy = {to: one for to, one in self._busy.items() if one.is_alive()}
        for destination in due.keys() - self._busy.keys():
            arguments = (destination, due[destination])
            thread = threading.Thread(target=self._send_jobs, args=arguments, daemon=True)
            self._busy[destination] = thread
            thread.start()

    def _send_jobs(self, destination: str, names: list[str]) -> None:
        for name in names:
            try:
                self._conclude(name, *self._try_job(name, destination), destination)
            except Exception as error:  # a full disk, or a folder that was changed by hand
                self._events.report("note", f"job {name}: {guard.describe(error)}")
                time.sleep(_PAUSE_S)

    def _try_job(self, name: str, destination: str) -> tuple[Job, str]:
        """As `_send_job`; any error becomes a reason to try again."""
        job = self._spool.read(OUTBOX, name)
        try:
            return self._send_job(name, job, destination)
        except Exception as error:
            return job, guard.describe(error)

    def _send_job(self, name: str, job: Job, destination: str) -> tuple[Job, str]:
        """The job with the responses noted, and why an object was not sent; '' if all were."""
        if not destination:
            return job, ""
        if destination.startswith(FOLDER):
            return self._copy(name, job, destination.removeprefix(FOLDER)), ""
        peer = self._peers.receiver(destination)
        if peer is None:
            return job, f"no peer {destination!r} with a port"
        objects = [one for one in job.objects if one.uid and not one.sent_to]
        if not objects:
            return job, ""
        paths = {one: self._spool.folder(OUTBOX, name, one.file) for one in objects}
        answers, why = self._store(peer, paths)
        noted = tuple(_note_answer(one, answers, destination) for one in job.objects)
        return replace(job, objects=noted), why

    def _store(self, peer: Peer, paths: dict[Object, str]) -> tuple[dict[Object, int], str]:
        """Object to the status of its response, and the problems in words."""
        contexts = sorted({received.read_classes(path) for path in paths.values()})
        association = self._caller.call(peer, contexts, _CONNECT_S, self._answer_s)
        if not association.is_established:
            why = "refused the association" if association.is_rejected else "cannot be reached"
            return {}, why
        answers, problems = {}, []
        for one, path in paths.items():
            if not association.is_established:
                problems.append("broke off the association")
                break
            try:
                answer = association.send_c_store(path)
            except ValueError:  # no presentation context
                problems.append("does not take this kind of object")
                continue
            if "Status" not in answer:
                problems.append("did not answer")
                break
            answers[one] = answer.Status
            if not _is_stored(answer.Status):
                problems.append(f"answered status 0x{answer.Status:04X}")
        if association.is_established:
            association.release()
        return answers, "; ".join(dict.fromkeys(problems))

    def _copy(self, name: str, job: Job, folder: str) -> Job:
        """Copies the files to a folder; each gets its name when it is complete."""
        objects = []
        for one in job.objects:
            source = self._spool.folder(OUTBOX, name, one.file)
            with files.atomic_write(files.join(folder, os.path.basename(source))) as stream:
                with open(source, "rb") as original:
                    shutil.copyfileobj(original, stream)
            objects.append(replace(one, sent_to=FOLDER + folder, status=0))
        return replace(job, objects=tuple(objects))

    def _conclude(self, name: str, job: Job, why: str, destination: str) -> None:
        """Moves the job on, or notes when it is tried again. why: As `_send_job` returns it."""
        if not why:
            state = FAILED if job.refused else SENT
            warnings = {one.status for one in job.objects} & set(_STORED_AFTER_ALL)
            note = f", with warning 0x{min(warnings):04X}" if warnings else ""
            self._report("sent", name, job, destination, f"{destination or 'nowhere'}{note}")
            self._spool.move(name, OUTBOX, state, job)
            return
        if job.attempts < len(self._retries_s):
            wait_s = self._retries_s[job.attempts]
            job = replace(job, attempts=job.attempts + 1, due=time.time() + wait_s)
            self._spool.write(OUTBOX, name, job)
            later = f"tried again in {wait_s:g} s"
        elif job.destination + 1 < len(_destinations(job)):
            job = replace(job, destination=job.destination + 1, attempts=0, due=0.0)
            self._spool.write(OUTBOX, name, job)
            later = "the second destination is tried"
        else:
            reason = f"{destination} {why}; not delivered"
            reason = f"{job.reason}; {reason}" if job.reason else reason
            # Reset, so that the job is sent again if it is moved back to the outbox.
            job = replace(job, reason=reason, destination=0, attempts=0, due=0.0)
            self._spool.move(name, OUTBOX, FAILED, job)
            later = "given up"
        self._report("not_sent", name, job, destination, f"{destination} {why}; {later}")

    def _report(self, event: str, name: str, job: Job, destination: str, line: str) -> None:
        objects = [
            {"uid": one.uid, "sha256": one.sha256, "status": one.status} for one in job.objects
        ]
        facts = {"destination": destination, "objects": objects}
        self._events.report_job(event, name, job, line, **facts)


def _destinations(job: Job) -> tuple[str, ...]:
    named = job.order.destinations if job.order else ()
    return tuple(job.calling if one == SENDER else one for one in named)


def _destination(job: Job) -> str:
    """Where the job goes next; '' if it stays in the spool."""
    destinations = _destinations(job)
    return destinations[job.destination] if destinations else ""


def _note_answer(one: Object, answers: dict, destination: str) -> Object:
    if one not in answers:
        return one
    status = answers[one]
    return replace(one, status=status, sent_to=destination if _is_stored(status) else "")


def _is_stored(status: int) -> bool:
    return status == 0 or status in _STORED_AFTER_ALL
