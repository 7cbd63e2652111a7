"""The spool: a queue of folders, in which every step of a job is one rename.

  incoming    files that are being received; none of them was acknowledged
  inbox       series that may not be complete: <hash of series>/<hash of instance>.dcm
  ready       complete series: <hash of series>-<number>; late slices make the next number
  work        the job that is being predicted
  outbox      results that are to be sent
  sent, failed, discarded   jobs that ended; one moved from failed to ready is tried again
  aside       instances that arrived again with other bytes

Nothing is acknowledged before it lies in the inbox. A process that is killed at any moment leaves
every job in exactly one of these folders. Hashes are keyed with a number of the spool's own, so
that a list of UIDs or PatientIDs does not tell which folder is whose.
"""

import contextlib
import filecmp
import hmac
import os
import secrets
import shutil
import threading
import time
from dataclasses import replace

from segthor import fields, files, json_files
from segthor.dicom.received import Instance
from segthor.errors import InputError
from serving.node.jobs import FILE_NAME, Job

INCOMING, INBOX, READY, WORK, OUTBOX = "incoming", "inbox", "ready", "work", "outbox"
SENT, FAILED, DISCARDED, ASIDE = "sent", "failed", "discarded", "aside"
STATES = (READY, WORK, OUTBOX, SENT, FAILED, DISCARDED)
_KEY = "key"
_ALL = (INCOMING, INBOX, *STATES, ASIDE)
# A series that failed or was discarded is tried again when it is sent again.
_KNOWN_IN = (READY, WORK, OUTBOX, SENT)
STORED, KNOWN, CONFLICT = "stored", "known", "conflict"


class Spool:
    """The folders of one node. All changes are made here, one at a time."""

    def __init__(self, root: str):
        """Makes the folders; `recover` is for the one process that works on them.

        Raises:
          InputError: the folder holds something else.
        """
        self.root = files.absolute(root)
        held = files.listdir(self.root) if os.path.isdir(self.root) else []
        if held and _KEY not in held:
            raise InputError(
                f"--spool={root}: expected a new folder or a spool, found {held[0]} in it; name "
                "another folder"
            )
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        self._key = self._read_key()
        for name in _ALL:
            os.makedirs(self.folder(name), mode=0o700, exist_ok=True)
        self._lock = threading.RLock()
        self._jobs: dict[str, set[str]] = {}  # series to the names of its jobs
        for state in STATES:
            for name in self.names(state):
                self._jobs.setdefault(name.rpartition("-")[0], set()).add(name)

    def recover(self) -> None:
        """Cleans up after a process that was killed."""
        shutil.rmtree(self.folder(INCOMING))
        os.makedirs(self.folder(INCOMING), mode=0o700)
        self.requeue()

    def requeue(self) -> None:
        """Moves jobs whose prediction did not end back to `ready`; none may be at work."""
        for name in self.names(WORK):
            self.move(name, WORK, READY)

    def folder(self, *names: str) -> str:
        """A path below the root."""
        return os.path.join(self.root, *names)

    def hash(self, kind: str, text: str) -> str:
        """Keyed hash of a UID or number; another spool has other hashes."""
        return hmac.digest(self._key, f"{kind}\0{text}".encode(), "sha256").hex()[:32]

    def names(self, state: str) -> list[str]:
        """Names of the jobs, or series, in a folder, sorted."""
        return sorted(one for one in os.listdir(self.folder(state)) if not one.startswith("."))

    def images(self, state: str, name: str) -> list[str]:
        """Paths of the received files of a job, sorted."""
        folder = self.folder(state, name)
        return [os.path.join(folder, one) for one in sorted(os.listdir(folder)) if _is_image(one)]

    def read(self, state: str, name: str) -> Job:
        """Reads a job; raises InputError if its file is damaged."""
        path = self.folder(state, name, FILE_NAME)
        return fields.from_json(Job, json_files.read(path), path)

    def jobs(self, state: str) -> list[tuple[str, Job]]:
        """(name, job) of a folder, sorted; without jobs whose file is damaged."""
        jobs = []
        for name in self.names(state):
            with contextlib.suppress(InputError):  # also of one that moved on meanwhile
                jobs.append((name, self.read(state, name)))
        return jobs

    def write(self, state: str, name: str, job: Job) -> None:
        """Writes `job.json`; raises FileNotFoundError if the job is not there."""
        if not os.path.isdir(self.folder(state, name)):
            raise FileNotFoundError(2, "no such job", self.folder(state, name))
        json_files.write(self.folder(state, name, FILE_NAME), vars(job))

    def move(self, name: str, source: str, target: str, job: Job | None = None) -> None:
        """Moves a job from one folder to another; writes `job` first."""
        with self._lock:
            if job:
                self.write(source, name, job)
            os.rename(self.folder(source, name), self.folder(target, name))

    def deliver(self, path: str, instance: Instance, calling: str, address: str) -> str:
        """Moves a received file into the inbox of its series.

        The file must be complete, synced and on the disk of the spool. After the return the
        instance is safe.

        Returns STORED, KNOWN (the same bytes were there; the file is removed) or CONFLICT (other
        bytes were there; the file is put aside).
        """
        series = self.hash("series", instance.series_uid)
        name = f"{self.hash('instance', instance.sop_instance_uid)}.dcm"
        folder = self.folder(INBOX, series)
        with self._lock:
            known = self._find(series, name)
            if known and filecmp.cmp(known, path, shallow=False):
                os.remove(path)
                return KNOWN
            if known:
                folder = self.folder(ASIDE, series)
                name = f"{name.removesuffix('.dcm')}-{files.sha256(path)[:16]}.dcm"
            elif not os.path.exists(os.path.join(folder, FILE_NAME)):
                self._open_series(series, instance, calling, address)
            os.makedirs(folder, mode=0o700, exist_ok=True)
            os.rename(path, os.path.join(folder, name))
            descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # the name; the bytes were synced by the caller
        finally:
            os.close(descriptor)
        return CONFLICT if known else STORED

    def _open_series(self, series: str, instance: Instance, calling: str, address: str) -> None:
        os.makedirs(self.folder(INBOX, series), mode=0o700, exist_ok=True)
        study = self.hash("study", instance.study_uid)
        patient = self.hash("patient", instance.patient_id)
        job = Job(series, study, patient, calling, address, time.time())
        self.write(INBOX, series, job)
        files.sync(self.folder(INBOX))

    def close_series(self, series: str, decide) -> tuple[str, str, Job] | None:
        """Makes a job of a series in the inbox.

        decide: Function of the job and the paths of its slices, with those of an earlier job;
        returns the folder that the job goes to, and the changed job.

        Returns (folder, name, job); None if the earlier job is being predicted or a slice arrived.
        """
        with self._lock:
            earlier = self._last(series)
            if earlier and earlier[0] == WORK:
                return None
            if not self.images(INBOX, series):  # the process was killed before the first one
                self.remove(INBOX, series)
                return None
            job = self._read_with_earlier(series, earlier)
            images = self.images(INBOX, series)
        state, job = decide(job, images)  # reads headers; slices may come meanwhile
        with self._lock:
            if self._last(series) != earlier or self.images(INBOX, series) != images:
                return None
            name = f"{series}-{1 + (_number(earlier[1]) if earlier else 0)}"
            self.write(INBOX, series, job)
            os.rename(self.folder(INBOX, series), self.folder(state, name))
            self._jobs.setdefault(series, set()).add(name)
            if earlier and earlier[0] == READY:
                late = replace(self.read(*earlier), reason=f"slices came late; see {name}")
                self.move(earlier[1], READY, DISCARDED, late)
        return state, name, job

    def remove(self, state: str, name: str) -> None:
        """Deletes a job."""
        with self._lock:
            gone = self.folder(INCOMING, f"removed-{name}-{secrets.token_hex(4)}")
            os.rename(self.folder(state, name), gone)
            self._jobs.get(name.rpartition("-")[0], set()).discard(name)
        shutil.rmtree(gone)

    def changed(self, state: str, name: str) -> float:
        """When a job was last written, in seconds since 1970."""
        return os.path.getmtime(self.folder(state, name, FILE_NAME))

    def free_bytes(self) -> int:
        """Free bytes of the spool's disk."""
        return shutil.disk_usage(self.root).free

    def _read_with_earlier(self, series: str, earlier: tuple[str, str] | None) -> Job:
        """Reads the job of a series, and adds the slices of an earlier job that it lacks."""
        job = self.read(INBOX, series)
        if not earlier:
            return job
        for path in self.images(*earlier):
            with contextlib.suppress(FileExistsError):
                os.link(path, self.folder(INBOX, series, os.path.basename(path)))
        return replace(job, replaces=earlier[1])

    def _find(self, series: str, name: str) -> str:
        """Path of an instance that was received before, or ''."""
        own = self.folder(INBOX, series, name)
        if os.path.exists(own):
            return own
        for job in self._jobs.get(series, ()):
            for state in _KNOWN_IN:
                path = self.folder(state, job, name)
                if os.path.exists(path):
                    return path
        return ""

    def _last(self, series: str) -> tuple[str, str] | None:
        """(folder, name) of the newest job of a series, or None."""
        for name in sorted(self._jobs.get(series, ()), key=_number, reverse=True):
            for state in STATES:
                if os.path.exists(self.folder(state, name, FILE_NAME)):
                    return state, name
        return None

    def _read_key(self) -> bytes:
        """The key of the hashes, which is made with the spool."""
        path = self.folder(_KEY)
        if not os.path.exists(path):
            with files.atomic_write(path) as stream:
                stream.write(secrets.token_hex(32).encode())
            os.chmod(path, 0o600)
        return files.read_bytes(path)


def _is_image(name: str) -> bool:
    return name.endswith(".dcm") and not name.startswith(".")


def _number(name: str) -> int:
    """The number at the end of a job's name."""
    number = name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0
