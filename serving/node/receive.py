"""Receives C-ECHO and C-STORE. A slice is on the disk before it is acknowledged.

Data sets are not decoded while they are received. pynetdicom writes them in chunks to files in the
spool's `incoming`; each is synced, its UIDs are read, and it is renamed into the inbox.
"""

import contextlib
import logging
import os
import socket
import socketserver
import tempfile
import threading
import time
from collections import Counter

from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import Verification
from pynetdicom.transport import ThreadedAssociationServer

from segthor import files
from segthor.dicom import DicomError, received
from segthor.errors import InputError
from serving.node import tls
from serving.node.complete import Completion
from serving.node.events import Events
from serving.node.peers import Peers
from serving.node.settings import Settings
from serving.node.spool import CONFLICT, INBOX, INCOMING, STORED, Spool

SUCCESS, NO_RESOURCES, MISMATCH, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000
_UNKNOWN_CALLING = (0x01, 0x01, 0x03)  # rejected, by the user, calling title not recognized
# pynetdicom writes a message in memory before it handles it, so an unlimited length lets a client
# fill the memory. DCMTK sends at most 128 KiB at once in any case.
_MOST_PDU_BYTES = 1 << 20
_QUICK_ACK = getattr(socket, "TCP_QUICKACK", 0)  # Linux alone has it

logging.getLogger("pynetdicom").propagate = False  # its messages may quote data sets
logging.getLogger("pynetdicom").addHandler(logging.NullHandler())
_config.LOG_HANDLER_LEVEL = "none"
_config.STORE_RECV_CHUNKED_DATASET = True
_config.STORE_SEND_CHUNKED_DATASET = True


class Receiver:
    """The server of one node."""

    def __init__(
        self, settings: Settings, peers: Peers, spool: Spool, completion: Completion, events: Events
    ):
        """Raises InputError where TLS's files cannot be used."""
        self._settings, self._peers, self._spool = settings, peers, spool
        self._completion, self._events = completion, events
        self._tls = tls.server_context(settings)
        self._usage = _Usage(spool, settings)
        self._counts: dict[int, Counter] = {}  # association to what came of its slices
        self._server = None

    def start(self) -> None:
        """Starts to listen, in threads; raises InputError if it cannot."""
        settings = self._settings
        # Where pynetdicom writes what it receives: a rename into the inbox must be possible.
        tempfile.tempdir = self._spool.folder(INCOMING)
        handlers = [
            (evt.EVT_CONN_OPEN, self._open),
            (evt.EVT_REQUESTED, self._request),
            (evt.EVT_REJECTED, self._reject),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_CONN_CLOSE, self._close),
        ]
        place = (settings.address, settings.port)
        try:
            self._server = _make_entity(settings).make_server(
                place, ssl_context=self._tls, evt_handlers=handlers, server_class=_Server
            )
        except OSError as error:
            raise InputError(
                f"--address={settings.address} --port={settings.port}: cannot listen there "
                f"({error.strerror}); is another node running?"
            ) from error
        self._server.start(settings.stall_s, self._events)

    def stop(self) -> None:
        """Stops to listen, and ends open associations."""
        if self._server:
            for association in self._server.active_associations:
                association.abort()
            self._server.shutdown()

    def forget(self, series: str) -> None:
        """Forgets the size of a series that left the inbox."""
        self._usage.forget(series)

    def sweep(self) -> None:
        """Removes files that interrupted associations left in `incoming`."""
        old = time.time() - 2 * self._settings.stall_s - 60
        for name in os.listdir(self._spool.folder(INCOMING)):
            path = self._spool.folder(INCOMING, name)
            with contextlib.suppress(OSError):
                if os.path.isfile(path) and os.path.getmtime(path) < old:
                    os.remove(path)

    def _open(self, event) -> None:
        transport = event.assoc.dul.socket
        limited = _LimitedReader(transport.socket, self._settings.stall_s)
        transport.recv = limited.read

    def _request(self, event) -> None:
        association = event.assoc
        title = association.requestor.primitive.calling_ae_title
        address = association.requestor.address
        if not self._peers.allows(title, address):
            self._events.report(
                "refused", f"association of {title!r} at {address}: not among the peers"
            )
            association.acse.send_reject(*_UNKNOWN_CALLING)
            association.kill()

    def _reject(self, event) -> None:
        requestor = event.assoc.requestor
        self._events.report(
            "refused",
            f"association of {requestor.ae_title!r} at {requestor.address}: too many associations, "
            "or another title was called",
        )

    def _store(self, event) -> int:
        try:
            status, what = self._take(event)
        except DicomError:
            status, what = NOT_UNDERSTOOD, "header cannot be read"
        except OSError as error:  # a full disk, or one that is gone
            status, what = NO_RESOURCES, f"cannot be written ({error.strerror})"
        counts = self._counts.setdefault(id(event.assoc), Counter())
        counts[what] += 1
        if status != SUCCESS and counts[what] == 1:
            requestor = event.assoc.requestor
            self._events.report(
                "not_stored",
                f"an instance of {requestor.ae_title!r}: {what} (status 0x{status:04X})",
            )
        return status

    def _take(self, event) -> tuple[int, str]:
        """Status, and the result in words."""
        requestor, path = event.assoc.requestor, os.fspath(event.dataset_path)
        if self._spool.free_bytes() < self._settings.least_free_gb * 1e9:
            return NO_RESOURCES, "too little free disk"
        files.sync(path)
        instance = received.read_instance(path)
        request = event.request
        names = (request.AffectedSOPClassUID, request.AffectedSOPInstanceUID)
        if names != (instance.sop_class_uid, instance.sop_instance_uid):
            return MISMATCH, "UIDs differ from those of the request"
        series = self._spool.hash("series", instance.series_uid)
        patient = self._spool.hash("patient", instance.patient_id)
        size = os.path.getsize(path)
        if not self._usage.has_room(series, patient, size):
            return NO_RESOURCES, "more instances or bytes than allowed for a series or patient"
        # Before the slice is stored, so that its series is not closed meanwhile.
        self._completion.note_slice(series, event.assoc)
        outcome = self._spool.deliver(path, instance, requestor.ae_title, requestor.address)
        if outcome == STORED:
            self._usage.add(series, patient, size)
        if outcome == CONFLICT:
            self._events.report(
                "conflict", f"series {series}: an instance came again with other bytes; put aside"
            )
        return SUCCESS, outcome

    def _close(self, event) -> None:
        counts = self._counts.pop(id(event.assoc), None)
        if counts:
            requestor = event.assoc.requestor
            held = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
            self._events.report(
                "received",
                f"from {requestor.ae_title!r} at {requestor.address}: {held}",
                calling=requestor.ae_title,
                address=requestor.address,
            )


def _make_entity(settings: Settings) -> AE:
    """Makes the application entity that accepts C-ECHO and C-STORE."""
    entity = AE(settings.title)
    entity.maximum_pdu_size = _MOST_PDU_BYTES
    entity.maximum_associations = settings.associations
    entity.require_called_aet = True
    entity.acse_timeout = entity.network_timeout = settings.stall_s
    entity.add_supported_context(Verification)
    for sop_class in received.CLASSES:
        entity.add_supported_context(sop_class, list(received.SYNTAXES))
    return entity


class _Server(ThreadedAssociationServer):
    """Does the handshake of TLS in the thread of the association, so that no other one waits."""

    daemon_threads = True

    def start(self, stall_s: float, events: Events) -> None:
        self.stall_s, self.events = stall_s, events
        threading.Thread(target=self.serve_forever, args=[0.1], daemon=True).start()

    def shutdown(self) -> None:
        # pynetdicom's own also takes the server off a list, in which this one is not.
        socketserver.BaseServer.shutdown(self)
        self.server_close()

    def service_actions(self):
        """Nothing: pynetdicom's own collects garbage, which stops all threads for long."""

    def get_request(self):
        client, address = self.socket.accept()
        client.settimeout(self.stall_s)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client, address

    def process_request_thread(self, request, client_address):
        if self.ssl_context:
            try:
                request = self.ssl_context.wrap_socket(request, server_side=True)
            except OSError as error:  # also of TLS
                reason = getattr(error, "reason", None) or type(error).__name__
                self.events.report("refused", f"{client_address[0]}: no TLS ({reason})")
                self.shutdown_request(request)
                return
        super().process_request_thread(request, client_address)

    def handle_error(self, request, client_address):
        self.events.report("refused", f"{client_address[0]}: the association could not be begun")


class _LimitedReader:
    """Reads whole messages, up to the negotiated length and within the time limit."""

    def __init__(self, connection: socket.socket, stall_s: float):
        self._connection, self._stall_s = connection, stall_s

    def read(self, size: int) -> bytearray:
        """`size` bytes; fewer where the connection ends. Raises OSError beyond a limit."""
        if size > _MOST_PDU_BYTES + 6:
            raise OSError("longer than the negotiated length")
        buffer, done = bytearray(size), 0
        view, until = memoryview(buffer), time.monotonic() + self._stall_s
        while done < size:
            self._connection.settimeout(max(until - time.monotonic(), 1e-3))
            # Linux waits 40 ms before it acknowledges a short segment, and many senders wait for
            # that before they send the next one.
            if _QUICK_ACK:
                self._connection.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
            count = self._connection.recv_into(view[done:])
            if not count:
                break
            done += count
        view.release()
        self._connection.settimeout(self._stall_s)  # also for what is sent
        return buffer[:done]


class _Usage:
    """Instances of each series, and bytes of each patient, in the inbox."""

    def __init__(self, spool: Spool, settings: Settings):
        self._spool, self._settings = spool, settings
        self._lock = threading.Lock()
        self._instances, self._bytes, self._patients = Counter(), Counter(), {}
        # Without folders that a killed process left before it wrote their job.json.
        for series, job in spool.jobs(INBOX):
            paths = spool.images(INBOX, series)
            self._instances[series] = len(paths)
            self._bytes[series] = sum(map(os.path.getsize, paths))
            self._patients[series] = job.patient

    def has_room(self, series: str, patient: str, size: int) -> bool:
        """Whether one more instance may be stored."""
        with self._lock:
            held = sum(self._bytes[s] for s, of in self._patients.items() if of == patient)
            return (
                self._instances[series] < self._settings.most_instances
                and held + size <= self._settings.most_patient_gb * 1e9
            )

    def add(self, series: str, patient: str, size: int) -> None:
        """Counts an instance that was stored."""
        with self._lock:
            self._instances[series] += 1
            self._bytes[series] += size
            self._patients[series] = patient

    def forget(self, series: str) -> None:
        """Forgets the size of a series that left the inbox."""
        with self._lock:
            self._instances.pop(series, None)
            self._bytes.pop(series, None)
            self._patients.pop(series, None)
