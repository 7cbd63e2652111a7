"""Takes DICOM files from a folder, for export programs that write files.

A file is taken when its size and time did not change for some seconds. It is copied, and its owner
removes it. The spool notes which files were taken.
"""

import os
import shutil
import time

from segthor import files
from segthor.dicom import DicomError, index, received
from segthor.errors import InputError
from serving.node.complete import Completion
from serving.node.events import Events
from serving.node.settings import Settings
from serving.node.spool import INCOMING, Spool

ADDRESS = "folder"
_NOTES = "watched"  # a line for each file that was taken


class Watcher:
    """Watches one folder."""

    def __init__(self, settings: Settings, spool: Spool, completion: Completion, events: Events):
        """Raises InputError where there is no such folder, or the spool lies in it."""
        folder, self._stable_s = settings.watch, settings.quiet_s
        self._folder = os.path.abspath(folder)
        if not os.path.isdir(self._folder):
            raise InputError(f"--watch={folder}: expected a folder, found none")
        if os.path.commonpath([self._folder, spool.root]) == self._folder:
            raise InputError(f"--watch={folder}: the spool lies in it; expected another folder")
        self._spool, self._completion, self._events = spool, completion, events
        self._seen: dict[str, tuple[str, float]] = {}  # path to stamp, and when it was first seen
        self._notes = spool.folder(_NOTES)
        notes = files.read_bytes(self._notes) if os.path.exists(self._notes) else b""
        self._taken = set(notes.decode().split())

    def look(self) -> None:
        """Takes the files that did not change for `stable_s`."""
        now, seen = time.monotonic(), {}
        for path in index.find(self._folder):
            try:
                status = os.stat(path)
            except OSError:  # removed meanwhile
                continue
            stamp = self._spool.hash("file", f"{path}\0{status.st_size}\0{status.st_mtime_ns}")
            if stamp in self._taken:
                continue
            before = self._seen.get(path, ("", now))
            seen[path] = before if before[0] == stamp else (stamp, now)
            if now - seen[path][1] >= self._stable_s and self._take(path):
                self._note(stamp)
        self._seen = seen

    def _take(self, path: str) -> bool:
        """Whether the file need not be looked at again."""
        copy = self._spool.folder(INCOMING, f"watched-{os.getpid()}.dcm")
        try:
            shutil.copyfile(path, copy)
            files.sync(copy)
        except OSError:  # not readable, or removed; tried again
            return False
        try:
            instance = received.read_instance(copy)
        except DicomError as error:
            self._events.report("not_stored", f"a file of the watched folder: {error.code}")
            return True
        series = self._spool.hash("series", instance.series_uid)
        self._completion.note_slice(series)
        self._spool.deliver(copy, instance, "", ADDRESS)
        return True

    def _note(self, stamp: str) -> None:
        self._taken.add(stamp)
        with open(self._notes, "a") as stream:
            stream.write(f"{stamp}\n")
