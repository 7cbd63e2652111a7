"""The node's queue and network, with a stub for the prediction: nothing is lost, nothing twice."""

import errno
import os
import random
import threading
import time
from dataclasses import replace
from pathlib import Path

import nodes
import pydicom
import pytest
from nodes import RECEIVER, SENDER, associate, node, send, wait_for, wait_for_jobs, write_series

from segthor.errors import InputError
from serving.node import rules, status
from serving.node.peers import Peer, Peers
from serving.node.settings import Settings
from serving.node.spool import ASIDE, DISCARDED, FAILED, INBOX, OUTBOX, READY, SENT, WORK, Spool

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.fixture
def receiver():
    with nodes.Receiver() as one:
        yield one


def to(receiver):
    return {"peers": [(RECEIVER, "127.0.0.1", receiver.port)]}


def datasets(paths) -> set[bytes]:
    """The files' bytes without their meta information, which each program writes its own way."""
    return {path_bytes.partition(b"DICM")[2][-1000:] for path_bytes in map(_bytes, paths)}


def _bytes(path) -> bytes:
    return Path(path).read_bytes()


def test_a_series_is_received_predicted_and_sent(tmp_path, receiver):
    paths = write_series(tmp_path / "ct", "a", change=as_spoken)
    with node(tmp_path, **to(receiver)) as (one, port):
        with associate(port) as association:
            assert association.send_c_echo().Status == 0
        assert send(port, paths) == [0] * 4
        ((state, name),) = wait_for_jobs(one, 1)
        assert state == SENT
        assert datasets(one.spool.images(SENT, name)) == datasets(paths)
        job = one.spool.read(SENT, name)
        assert receiver.stored == [job.objects[0].uid]
        assert (job.calling, job.address, job.starts) == (SENDER, "127.0.0.1", 1)
        assert one.spool.names(INBOX) == one.spool.names(OUTBOX) == []


def as_spoken(dataset, k):
    """What a patient must never be recognized by in a name, a line or a record."""
    dataset.PatientName, dataset.PatientID = "SecretName^Jane", "SecretNumber"
    dataset.SeriesDescription, dataset.StationName = "SecretDescription", "SecretStation"


def test_the_same_study_twice_is_one_job(tmp_path, receiver):
    paths = write_series(tmp_path / "ct", "a")
    with node(tmp_path, **to(receiver)) as (one, port):
        assert send(port, paths + paths) == [0] * 8
        wait_for_jobs(one, 1)
        assert send(port, paths) == [0] * 4
        time.sleep(1)
        assert wait_for_jobs(one, 1) == [(SENT, one.spool.names(SENT)[0])]
        assert len(receiver.held) == 1 and one.spool.names(INBOX) == []


def test_a_series_in_two_associations_beside_three_others_in_random_order(tmp_path, receiver):
    series = {name: write_series(tmp_path / name, name, slices=8) for name in "abcd"}
    random.Random(1).shuffle(series["a"])
    with node(tmp_path, **to(receiver)) as (one, port):
        parts = [series["a"][:4], series["a"][4:], series["b"], series["c"], series["d"]]
        threads = [threading.Thread(target=send, args=[port, part]) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        jobs = wait_for_jobs(one, 4)
        assert {state for state, _ in jobs} == {SENT}
        assert [len(one.spool.images(*job)) for job in jobs] == [8] * 4
        assert len(set(receiver.stored)) == len(receiver.held) == 4


def test_a_series_is_not_complete_while_its_association_is_open(tmp_path):
    paths = write_series(tmp_path / "ct", "a")
    with node(tmp_path) as (one, port):
        with associate(port) as association:
            association.send_c_store(paths[0])
            time.sleep(1)
            assert len(one.spool.names(INBOX)) == 1
        wait_for_jobs(one, 1)


def test_a_source_that_counts_decides_when_its_series_is_complete(tmp_path):
    paths = write_series(tmp_path / "ct", "a")
    with nodes.Receiver(title="ARCHIVE", count=4) as archive:
        peers = [("ARCHIVE", "127.0.0.1", archive.port, "", "yes")]
        with node(tmp_path, peers=peers, quiet_s=0.2) as (one, port):
            send(port, paths[:2], calling="ARCHIVE")
            time.sleep(0.9)  # more than one silence
            assert len(one.spool.names(INBOX)) == 1 and archive.asked > 1
            send(port, paths[2:], calling="ARCHIVE")
            ((_, name),) = wait_for_jobs(one, 1)
            assert len(one.spool.images(SENT, name)) == 4
            send(port, write_series(tmp_path / "b", "b", slices=3), calling="ARCHIVE")
            wait_for_jobs(one, 2)  # one slice never comes


def cut_off(port, paths):
    """Sends files; the connection ends in the middle of the last one."""
    with associate(port) as association:
        for path in paths[:-1]:
            assert association.send_c_store(path).Status == 0
        transport = association.dul.socket
        whole = transport.send

        def half(data):
            whole(data[: len(data) // 2] if len(data) > 300 else data)
            if len(data) > 300:
                transport.socket.close()

        transport.send = half
        association.send_c_store(paths[-1])


def test_a_transfer_that_was_cut_off_is_completed_by_the_next(tmp_path, receiver):
    paths = write_series(tmp_path / "ct", "a")
    with node(tmp_path, **to(receiver)) as (one, port):
        cut_off(port, paths[:3])
        ((_, first),) = wait_for_jobs(one, 1)
        assert len(one.spool.images(SENT, first)) == 2
        assert send(port, paths) == [0] * 4
        jobs = wait_for_jobs(one, 2)
        second = next(name for _, name in jobs if name != first)
        assert len(one.spool.images(SENT, second)) == 4
        assert one.spool.read(SENT, second).replaces == first
        assert len(set(receiver.stored)) == 2


def waiting_predictor():
    """A predictor that waits in each call; events: it has begun, it may go on."""
    begun, go_on = threading.Event(), threading.Event()

    def predict(folder, order):
        begun.set()
        go_on.wait(20)
        return nodes.predict_stub(folder, order)

    return predict, begun, go_on


def test_slices_that_come_late_reopen_a_job_that_waits(tmp_path):
    paths = write_series(tmp_path / "ct", "a")
    predict, begun, go_on = waiting_predictor()
    with node(tmp_path, predict) as (one, port):
        send(port, write_series(tmp_path / "other", "b"))
        begun.wait(20)
        send(port, paths[:2])
        wait_for(lambda: one.spool.names(READY))
        send(port, paths[2:])
        wait_for(lambda: one.spool.names(DISCARDED))  # the job of two slices
        go_on.set()
        jobs = wait_for_jobs(one, 2)
        assert sorted(len(one.spool.images(*job)) for job in jobs) == [4, 4]
        assert {one.spool.read(*job).replaces for job in jobs} == {
            "",
            one.spool.names(DISCARDED)[0],
        }


def test_slices_that_come_while_their_series_is_predicted_wait_for_its_end(tmp_path):
    paths = write_series(tmp_path / "ct", "a")
    predict, begun, go_on = waiting_predictor()
    with node(tmp_path, predict) as (one, port):
        send(port, paths[:2])
        begun.wait(20)
        send(port, paths[2:])
        time.sleep(1)
        assert len(one.spool.names(INBOX)) == len(one.spool.names(WORK)) == 1
        go_on.set()
        jobs = wait_for_jobs(one, 2)
        assert [len(one.spool.images(*job)) for job in jobs] == [2, 4]


def test_an_instance_without_a_readable_header_is_refused_and_the_others_are_not(tmp_path):
    paths = write_series(tmp_path / "ct", "a")
    content = Path(paths[1]).read_bytes()
    at = content.index(b"\x08\x00\x05\x00") if b"\x08\x00\x05\x00" in content else 400
    Path(paths[1]).write_bytes(content[:at] + b"\xff" * 64)
    with node(tmp_path) as (one, port):
        statuses = send(port, paths)
        assert statuses[1] in (0xC000, 0xA900)
        assert statuses[:1] + statuses[2:] == [0] * 3
        ((_, name),) = wait_for_jobs(one, 1)
        assert len(one.spool.images(SENT, name)) == 3


def test_the_same_uid_with_other_bytes_is_put_aside(tmp_path):
    paths = write_series(tmp_path / "ct", "a")
    with node(tmp_path) as (one, port):
        send(port, paths)
        ((_, name),) = wait_for_jobs(one, 1)
        before = datasets(one.spool.images(SENT, name))
        dataset = pydicom.dcmread(paths[0])
        dataset.PatientName = "Corrected"
        dataset.save_as(paths[0])
        assert send(port, paths[:1]) == [0]
        (series,) = one.spool.names(ASIDE)
        assert len(one.spool.names(f"{ASIDE}/{series}")) == 1
        assert datasets(one.spool.images(SENT, name)) == before
        assert "conflict" in (tmp_path / "spool" / "audit.jsonl").read_text()


def test_no_slices_make_no_result(tmp_path, receiver):
    localizer = nodes.phantoms.write_localizer(tmp_path / "scout", nodes.AFFINE)
    capture = write_series(tmp_path / "capture", "b", slices=1, change=as_secondary_capture)
    with node(tmp_path, **to(receiver)) as (one, port):
        with associate(port) as association:
            assert association.is_established
        assert send(port, localizer + capture) == [0, 0]
        jobs = wait_for_jobs(one, 2, DISCARDED)
        assert all("no CT slices" in one.spool.read(*job).reason for job in jobs)
        assert receiver.held == []


def as_secondary_capture(dataset, k):
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SECONDARY_CAPTURE


def test_a_receiver_that_refuses_one_of_many_gets_this_one_again(tmp_path):
    def predict(folder, order):
        made = [nodes.predict_stub(f"{folder}/{k}", order).objects[0] for k in range(3)]
        objects = [
            nodes.Object(f"{k}/{one.file}", one.uid, one.sha256) for k, one in enumerate(made)
        ]
        return nodes.Predicted(tuple(objects), ())

    with nodes.Receiver(answers=[0, 0xA700, 0xB000, 0xC000]) as receiver:
        with node(tmp_path, predict, **to(receiver)) as (one, port):
            send(port, write_series(tmp_path / "ct", "a"))
            ((state, name),) = wait_for_jobs(one, 1)
            assert state == SENT
            uids = [one.uid for one in one.spool.read(SENT, name).objects]
            assert receiver.held == [
                (uids[0], 0), (uids[1], 0xA700), (uids[2], 0xB000), (uids[1], 0xC000), (uids[1], 0),
            ]  # fmt: skip
            assert [one.status for one in one.spool.read(SENT, name).objects] == [0, 0, 0xB000]


def test_a_receiver_that_is_gone_is_replaced_by_the_second(tmp_path, receiver):
    gone = nodes.free_port()
    peers = [("GONE", "127.0.0.1", gone), (RECEIVER, "127.0.0.1", receiver.port)]
    row = {"destination": "GONE", "second_destination": RECEIVER}
    with node(tmp_path, rules=[row], peers=peers) as (one, port):
        send(port, write_series(tmp_path / "ct", "a"))
        assert wait_for_jobs(one, 1)[0][0] == SENT
        assert len(receiver.held) == 1
        lines = (tmp_path / "spool" / "audit.jsonl").read_text()
        assert lines.count("GONE cannot be reached") == 4


def test_a_result_that_no_receiver_takes_fails_and_can_be_sent_again(tmp_path):
    port_of_receiver = nodes.free_port()
    peers = [(RECEIVER, "127.0.0.1", port_of_receiver)]
    with node(tmp_path, peers=peers) as (one, port):
        send(port, write_series(tmp_path / "ct", "a"))
        ((state, name),) = wait_for_jobs(one, 1)
        job = one.spool.read(state, name)
        assert state == FAILED and "not delivered" in job.reason
        with nodes.Receiver(port_of_receiver) as receiver:
            (tmp_path / "spool" / FAILED / name).rename(tmp_path / "spool" / OUTBOX / name)
            wait_for_jobs(one, 1, SENT)
            assert receiver.stored == [job.objects[0].uid]


def test_a_receiver_that_vanishes_in_the_middle_gets_the_same_object_again(tmp_path):
    with nodes.Receiver(answers=[nodes.VANISH]) as receiver:
        with node(tmp_path, **to(receiver)) as (one, port):
            send(port, write_series(tmp_path / "ct", "a"))
            ((state, name),) = wait_for_jobs(one, 1)
            (uid,) = [one.uid for one in one.spool.read(state, name).objects]
            assert state == SENT and receiver.held == [(uid, nodes.VANISH), (uid, 0)]


def test_a_receiver_that_does_not_answer_is_left_and_holds_up_no_other(tmp_path, receiver):
    with nodes.Receiver(title="SLOW", delay_s=3) as slow:
        peers = [("SLOW", "127.0.0.1", slow.port), (RECEIVER, "127.0.0.1", receiver.port)]
        rows = [
            {"description": "first", "destination": "SLOW", "second_destination": RECEIVER},
            {"destination": RECEIVER},
        ]
        with node(tmp_path, rules=rows, peers=peers, answer_s=0.5, retries_s=()) as (one, port):
            first = write_series(tmp_path / "a", "a", change=describe("First"))
            send(port, first + write_series(tmp_path / "b", "b"))
            wait_for_jobs(one, 2)
            assert {state for state, _ in wait_for_jobs(one, 2)} == {SENT}
            assert len(set(receiver.stored)) == 2


def describe(text):
    def change(dataset, k):
        dataset.SeriesDescription = text

    return change


@pytest.mark.parametrize("titles", [{"calling": "STRANGER"}, {"called": "OTHER"}])
def test_a_wrong_title_is_refused_at_association(tmp_path, titles):
    with node(tmp_path) as (one, port):
        with associate(port, **titles) as association:
            assert association.is_rejected and not association.is_established
        with associate(port) as association:
            assert association.is_established
        assert "refused" in (tmp_path / "spool" / "audit.jsonl").read_text()


def test_a_peer_at_another_address_is_refused():
    def allowed(row, address):
        return Peers((Peer("CT1", row, 0, True),)).allows("CT1", address)

    assert allowed("127.0.0.1", "127.0.0.1") and allowed("*", "10.0.0.9")
    assert allowed("10.1.0.0/16", "10.1.200.3") and allowed("10.1.2.3", "::ffff:10.1.2.3")
    assert not allowed("10.1.0.0/16", "10.2.0.1") and not allowed("127.0.0.1", "::1")


def test_no_text_of_a_header_becomes_part_of_a_path(tmp_path):
    def change(dataset, k):
        dataset.SeriesInstanceUID = dataset.StudyInstanceUID = "../../../outside"
        dataset.SOPInstanceUID = f"../../{k}/../evil"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID

    paths = write_series(tmp_path / "ct", "a", change=change)
    with node(tmp_path) as (one, port):
        send(port, paths)
        time.sleep(1)
        names = {path.name for path in tmp_path.rglob("*")}
        assert not any(word in name for name in names for word in ("evil", "outside", ".."))
        inside = {p.name for p in tmp_path.iterdir()}
        assert inside == {"ct", "model", "peers.csv", "rules.csv", "spool"}


@pytest.mark.parametrize("count", [45, pytest.param(300, marks=pytest.mark.thorough)])
def test_many_series_at_once_end_once_each(tmp_path, receiver, count):
    paths = [
        path
        for k in range(count)
        for path in write_series(tmp_path / "ct" / str(k), f"s{k}", slices=1)
    ]
    with node(tmp_path, **to(receiver)) as (one, port):
        parts = [paths[k::3] for k in range(3)]
        threads = [threading.Thread(target=send, args=[port, part]) for part in parts]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(one.spool.names(SENT)) == count, limit_s=120)
        assert one.spool.names(FAILED) == one.spool.names(INBOX) == []
        assert len(set(receiver.stored)) == len(receiver.held) == count


def test_too_little_disk_is_answered_and_nothing_is_stored(tmp_path):
    with node(tmp_path, least_free_gb=1e6) as (one, port):
        assert set(send(port, write_series(tmp_path / "ct", "a"))) == {0xA700}
        assert one.spool.names(INBOX) == [] and one.spool.names("incoming") == []


def test_a_disk_that_is_full_in_the_middle_is_answered(tmp_path, monkeypatch):
    paths = write_series(tmp_path / "ct", "a")
    deliver, calls = Spool.deliver, []

    def full(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return deliver(self, *arguments)

    monkeypatch.setattr(Spool, "deliver", full)
    with node(tmp_path) as (one, port):
        assert send(port, paths) == [0, 0xA700, 0, 0]
        assert len(one.spool.images(*wait_for_jobs(one, 1)[0])) == 3


def test_a_disk_that_is_full_after_the_prediction_only_delays_the_result(
    tmp_path, monkeypatch, receiver
):
    move, calls = Spool.move, []

    def full(self, name, source, target, job=None):
        if target == OUTBOX and not calls:
            calls.append(name)
            raise OSError(errno.ENOSPC, "No space left on device")
        return move(self, name, source, target, job)

    monkeypatch.setattr(Spool, "move", full)
    with node(tmp_path, **to(receiver)) as (one, port):
        send(port, write_series(tmp_path / "ct", "a"))
        assert wait_for_jobs(one, 1) == [(SENT, calls[0])]
        assert len(receiver.held) == 1


def test_a_series_whose_first_slice_was_killed_halfway_holds_up_no_start(tmp_path):
    paths = write_series(tmp_path / "ct", "a")
    with node(tmp_path) as (one, _):
        series = one.spool.hash("series", pydicom.dcmread(paths[0]).SeriesInstanceUID)
    for name in (series, "another"):  # a folder, and no job.json yet
        (tmp_path / "spool" / INBOX / name).mkdir()
    with node(tmp_path) as (one, port):
        assert send(port, paths) == [0] * 4
        assert len(one.spool.images(*wait_for_jobs(one, 1)[0])) == 4
        wait_for(lambda: not one.spool.names(INBOX))


def test_a_job_that_was_moved_without_an_order_holds_up_no_other(tmp_path):
    scout = nodes.phantoms.write_localizer(tmp_path / "scout", nodes.AFFINE)
    with node(tmp_path) as (one, port):
        send(port, scout)
        ((_, name),) = wait_for_jobs(one, 1, DISCARDED)
        (tmp_path / "spool" / DISCARDED / name).rename(tmp_path / "spool" / READY / name)
        (tmp_path / "spool" / SENT / "x-1").mkdir()  # without a job.json
        send(port, write_series(tmp_path / "ct", "a"))
        wait_for(lambda: len(one.spool.names(SENT)) == 2)
        assert "damaged: sent/x-1" in status.describe(one.spool.root)


def test_more_than_a_series_or_a_patient_may_hold_is_answered(tmp_path):
    paths = write_series(tmp_path / "ct", "a", slices=6)
    with node(tmp_path, most_instances=4) as (_, port):
        assert send(port, paths) == [0] * 4 + [0xA700] * 2


def test_what_a_patient_may_hold_counts_all_series(tmp_path):
    size = os.path.getsize(write_series(tmp_path / "x", "x", slices=1)[0])
    first = write_series(tmp_path / "a", "a", slices=3, patient="one")
    second = write_series(tmp_path / "b", "b", slices=3, patient="one")
    with node(tmp_path, most_patient_gb=4.5 * size / 1e9) as (_, port):
        assert send(port, first + second) == [0] * 4 + [0xA700] * 2


def test_a_client_that_stalls_is_dropped(tmp_path):
    with node(tmp_path, stall_s=0.5) as (one, port):
        with nodes.socket.create_connection(("127.0.0.1", port)) as silent:
            silent.settimeout(10)
            assert silent.recv(1) == b""  # no request
        with nodes.socket.create_connection(("127.0.0.1", port)) as slow:
            slow.settimeout(10)
            slow.sendall(b"\x01\x00\x00\x00\x01\x00half")  # a request that never ends
            while slow.recv(1000):
                pass
        with associate(port) as association:
            wait_for(lambda: not association.is_established)


def test_a_message_longer_than_was_negotiated_is_dropped(tmp_path):
    with node(tmp_path) as (one, port):
        with nodes.socket.create_connection(("127.0.0.1", port)) as large:
            large.settimeout(10)
            large.sendall(b"\x01\x00\x7f\xff\xff\xff")
            while large.recv(1000):
                pass
        assert send(port, write_series(tmp_path / "ct", "a")) == [0] * 4


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_node_goes_on_where_another_ended(tmp_path, receiver):
    with node(tmp_path, end_the_thread, **to(receiver)) as (one, port):
        send(port, write_series(tmp_path / "a", "a"))
        wait_for(lambda: one.spool.names(WORK))
    with node(tmp_path, **to(receiver)) as (one, port):
        assert wait_for_jobs(one, 1)[0][0] == SENT
        assert len(receiver.held) == 1


def end_the_thread(folder, order):
    raise SystemExit  # leaves the job where it is, as the end of the process does


def test_a_job_that_ends_the_process_again_and_again_fails(tmp_path):
    with node(tmp_path) as (one, port):
        pass
    spool = one.spool
    instance = nodes.received.Instance("c", "i", "s", "t", "p")
    Path(spool.folder("incoming", "x")).touch()
    spool.deliver(spool.folder("incoming", "x"), instance, "CT1", "127.0.0.1")
    order = rules.Order(2, ("m",), ("rtstruct",), "tensorflow", (), 0, False)
    _, name, _ = spool.close_series(
        spool.names(INBOX)[0],
        lambda job, _: (READY, replace(job, order=order, starts=3)),
    )
    with node(tmp_path) as (one, _):
        assert wait_for_jobs(one, 1) == [(FAILED, name)]
        assert "ended 3 times" in one.spool.read(FAILED, name).reason


def test_a_series_that_failed_is_tried_again_when_it_is_sent_again(tmp_path):
    tried = []

    def predict(folder, order):
        tried.append(folder)
        if len(tried) == 1:
            raise InputError("a slice is damaged")
        return nodes.predict_stub(folder, order)

    paths = write_series(tmp_path / "ct", "a")
    with node(tmp_path, predict) as (one, port):
        send(port, paths)
        ((state, name),) = wait_for_jobs(one, 1)
        assert (state, one.spool.read(state, name).reason) == (FAILED, "a slice is damaged")
        send(port, paths)
        wait_for_jobs(one, 1, SENT)


def test_old_jobs_are_removed(tmp_path):
    with node(tmp_path, keep_days=0.01) as (one, port):
        send(port, write_series(tmp_path / "ct", "a"))
        ((state, name),) = wait_for_jobs(one, 1)
        past = time.time() - 86400
        os.utime(one.spool.folder(state, name, "job.json"), (past, past))
        wait_for(lambda: not one.spool.names(SENT))


def test_names_lines_and_records_hold_no_text_of_a_header(tmp_path, receiver, capfd):
    paths = write_series(tmp_path / "ct", "a", change=as_spoken)
    uids = [pydicom.dcmread(paths[0])[key].value for key in ("SOPInstanceUID", "SeriesInstanceUID")]
    with node(tmp_path, rules=[{"description": "x*"}, {}], **to(receiver)) as (one, port):
        send(port, paths)
        wait_for_jobs(one, 1)
        time.sleep(0.3)
    texts = [path.read_text() for path in (tmp_path / "spool").rglob("*.json*")]
    names = [str(path) for path in (tmp_path / "spool").rglob("*")]
    state = status.describe(one.spool.root)
    said = "\n".join([*texts, *names, state, *capfd.readouterr()])
    assert "predicted" in said and "sent 1" in state
    for word in ("Secret", "ID1", *uids):
        assert word not in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"address": "0.0.0.0"}, "without_tls"),
        ({"tls_key": "x"}, "together"),
        ({"title": "A_TITLE_TOO_LONG_"}, "16 ASCII"),
        ({"port": 70000}, "port"),
    ],
)
def test_settings_that_are_not_safe_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        Settings("spool", **changes)
