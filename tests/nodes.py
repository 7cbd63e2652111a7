"""A node on the loopback, and its neighbours: a sender, a receiver with given answers, a stub.

The stub predicts at once, and gives its object another UID each time that it is called: a job that
is predicted again after it was sent would be seen by its second UID.
"""

import contextlib
import os
import socket
import tempfile
import threading
import time
from pathlib import Path

import dicom_phantoms as phantoms
import numpy as np
import pydicom
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as FIND
from pynetdicom.sop_class import Verification

from segthor import files
from segthor.dicom import received
from serving.node.jobs import Object
from serving.node.service import Node
from serving.node.settings import Settings
from serving.node.spool import FAILED, SENT, Spool
from serving.node.work import Predicted

TITLE, SENDER, RECEIVER = "SEGTHOR", "CT1", "PACS"
AFFINE = np.diag([-2.0, -2.0, 3.0, 1.0])
RETRIES_S = (0.1, 0.1, 0.1)
VANISH = -1


def write_series(folder, name: str, slices: int = 4, **options) -> list[str]:
    """A series of tiny slices; its name gives patient, study, series and frame their UIDs."""
    rng = np.random.default_rng(slices)
    hu = rng.integers(-1000, 1000, (8, 6, slices), dtype=np.int16)
    names = dict.fromkeys(("patient", "study", "series", "frame"), name)
    return phantoms.write_series(folder, hu, AFFINE, **names | options)


def write_rules(path: Path, *rows: dict) -> str:
    """A file of rules; cells that are not given are empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(columns)]
    lines += [",".join(f'"{row.get(name, "")}"' for name in columns) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def write_peers(path: Path, *rows: tuple) -> str:
    """A file of peers: title, address, port, and what else the longest row has of each."""
    columns = ("title", "address", "port", "tls", "count")[: max(map(len, rows))]
    rows = (columns, *(row + ("",) * (len(columns) - len(row)) for row in rows))
    lines = [",".join(str(cell) for cell in row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def predict_stub(folder: str, order) -> Predicted:
    """One structure set, in no time."""
    del order
    path = os.path.join(folder, "predictions", "dicom", "stub_rtstruct.dcm")
    os.makedirs(os.path.dirname(path), exist_ok=True)

    def rename(dataset):
        dataset.SOPInstanceUID = pydicom.uid.generate_uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID

    phantoms.write_structures(path, [], change=rename)
    uid = received.read_instance(path).sop_instance_uid
    return Predicted((Object(os.path.relpath(path, folder), uid, files.sha256(path)),), ())


@contextlib.contextmanager
def node(tmp_path, predict=predict_stub, rules=({},), peers=(), retries_s=RETRIES_S, **settings):
    """A running node in this process; gives (node, port).

    rules: Rows beyond a model and the destination `RECEIVER`, if there is such a peer.
    """
    known = [(SENDER, "127.0.0.1", ""), *peers]
    to = {"destination": RECEIVER} if any(peer[0] == RECEIVER for peer in peers) else {}
    model = {"model": tmp_path / "model"}
    (tmp_path / "model" / "1").mkdir(parents=True, exist_ok=True)
    (tmp_path / "model" / "1" / "saved_model.pb").touch()
    chosen = {"quiet_s": 0.3, "least_free_gb": 0.0, "port": free_port()} | settings
    made = Settings(
        spool=str(tmp_path / "spool"),
        rules=write_rules(tmp_path / "rules.csv", *({**model, **to, **row} for row in rules)),
        peers=write_peers(tmp_path / "peers.csv", *known),
        **chosen,
    )
    one = Node(made, predict, retries_s)
    thread = threading.Thread(target=one.run, daemon=True)
    before = tempfile.tempdir
    one.start()
    thread.start()
    try:
        yield one, made.port
    finally:
        one.stop()
        thread.join(10)
        tempfile.tempdir = before


@contextlib.contextmanager
def associate(port, calling=SENDER, called=TITLE, tls=None, contexts=None, **options):
    """An association with a node, as pynetdicom has it."""
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
    for sop_class in contexts or (Verification, *received.CLASSES):
        entity.add_requested_context(sop_class, list(received.SYNTAXES)[:3])
    secure = {"tls_args": (tls, "127.0.0.1")} if tls else {}
    association = entity.associate("127.0.0.1", port, ae_title=called, **secure, **options)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def send(port, paths, **options) -> list[int]:
    """The node's answers to files that are sent in one association."""
    with associate(port, **options) as association:
        assert association.is_established
        return [association.send_c_store(path).Status for path in paths]


class Receiver:
    """A store that keeps what it gets, and answers as given.

    held: UID of every object that was offered, with the answer. answers: Statuses for the next
    objects, or VANISH to end the association, then success. delay_s: Time before each answer.
    count: Instances that it says a series has.
    """

    def __init__(
        self, port: int = 0, title: str = RECEIVER, answers=(), delay_s=0.0, tls=None, count=0
    ):
        self.held, self._answers, self._delay_s = [], list(answers), delay_s
        self.count, self.asked = count, 0
        self._entity = AE(title)
        self._entity.require_called_aet = True
        for sop_class in (*received.CLASSES, *SENT_CLASSES):
            self._entity.add_supported_context(sop_class, list(received.SYNTAXES)[:2])
        self._entity.add_supported_context(FIND)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_C_FIND, self._find)]
        address = ("127.0.0.1", port)
        self._server = self._entity.start_server(
            address, block=False, evt_handlers=handlers, ssl_context=tls
        )
        self.port = self._server.server_address[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()

    @property
    def stored(self) -> list[str]:
        """UIDs of the objects that were accepted, in their order."""
        return [uid for uid, status in self.held if status in (0, 0xB000)]

    def _find(self, event):
        self.asked += 1
        answer = event.identifier
        answer.NumberOfSeriesRelatedInstances = self.count
        yield 0xFF00, answer

    def _store(self, event) -> int:
        time.sleep(self._delay_s)
        status = self._answers.pop(0) if self._answers else 0
        self.held.append((str(event.request.AffectedSOPInstanceUID), status))
        if status == VANISH:
            event.assoc.abort()
        return status


SENT_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.11")


def wait_for(reached, limit_s=20.0):
    """What `reached()` returns once it is true."""
    until = time.monotonic() + limit_s
    while not (result := reached()):
        assert time.monotonic() < until, "not reached in time"
        time.sleep(0.02)
    return result


def wait_for_jobs(one: Node | Spool, count: int, *states: str) -> list[tuple[str, str]]:
    """(folder, name) of the jobs that ended, once there are so many."""
    spool = one.spool if isinstance(one, Node) else one
    places = states or (SENT, FAILED)

    def ended():
        jobs = [(state, name) for state in places for name in spool.names(state)]
        return jobs if len(jobs) >= count else None

    return wait_for(ended)
