"""A node that is killed with -9 at any moment loses nothing that it acknowledged, and sends no job
under a second UID."""

import random
import threading
import time

import nodes
import programs
import pytest
from nodes import RECEIVER, SENDER, wait_for, write_series

from serving.node.spool import FAILED, INBOX, OUTBOX, READY, SENT, STATES, WORK, Spool

# The stub gives another UID at each call, so that a job that is predicted again is seen.
SERVE = """
import sys, time
sys.path.insert(0, "tests")
import nodes
from serving.node.service import Node
from serving.node.settings import Settings

def predict(folder, order):
    time.sleep(0.05)
    return nodes.predict_stub(folder, order)

spool, rules, peers, port = sys.argv[1:]
settings = Settings(spool, rules, peers, port=int(port), quiet_s=0.2, least_free_gb=0.0)
node = Node(settings, predict, (0.1,) * 1000)
node.start()
print("listens", flush=True)
node.run()
"""


class Sender(threading.Thread):
    """Sends series over and over until each of their files is acknowledged."""

    def __init__(self, port, series):
        super().__init__(daemon=True)
        self.port, self.series, self.acknowledged, self.stopped = port, series, set(), False

    def run(self):
        for paths in self.series:
            while not self.stopped and not self.acknowledged.issuperset(paths):
                try:
                    self.send([path for path in paths if path not in self.acknowledged])
                except (AssertionError, AttributeError, RuntimeError, ValueError):
                    time.sleep(0.05)  # the node is down, or went down

    def send(self, paths):
        with nodes.associate(self.port) as association:
            assert association.is_established
            for path in paths:
                if association.send_c_store(path).Status == 0:
                    self.acknowledged.add(path)


@pytest.mark.parametrize("kills", [5, pytest.param(30, marks=pytest.mark.thorough)])
def test_nothing_is_lost_and_nothing_is_sent_under_a_second_uid(tmp_path, kills):
    rng, port = random.Random(kills), nodes.free_port()
    series = [write_series(tmp_path / str(k), f"s{k}", slices=6) for k in range(2 * kills)]
    (tmp_path / "model" / "1").mkdir(parents=True)
    (tmp_path / "model" / "1" / "saved_model.pb").touch()
    with nodes.Receiver() as receiver:
        row = {"model": tmp_path / "model", "destination": RECEIVER}
        rules = nodes.write_rules(tmp_path / "rules.csv", row)
        known = [(SENDER, "127.0.0.1", ""), (RECEIVER, "127.0.0.1", receiver.port)]
        peers = nodes.write_peers(tmp_path / "peers.csv", *known)
        command = ["-c", SERVE, tmp_path / "spool", rules, peers, port]
        senders = [Sender(port, series[k::2]) for k in range(2)]
        for sender in senders:
            sender.start()
        for _ in range(kills):
            with programs.start(command) as program:
                assert "listens\n" in iter(program.stdout.readline, "")
                time.sleep(rng.uniform(0, 1.2))
                program.kill()
        with programs.start(command) as program:
            for sender in senders:
                sender.join(60)
                assert not sender.is_alive()
            spool = Spool(str(tmp_path / "spool"))
            waiting = (INBOX, READY, WORK, OUTBOX)
            wait_for(lambda: not any(map(spool.names, waiting)), limit_s=60)
            program.kill()
    assert_lawful(spool, series, receiver)


def assert_lawful(spool, series, receiver):
    jobs = [(state, name) for state in STATES for name in spool.names(state)]
    names = [name for _, name in jobs]
    assert len(names) == len(set(names))  # every job ended once
    assert spool.names(FAILED) == []
    sent = {name: spool.read(SENT, name) for name in spool.names(SENT)}
    uids = [one.uid for job in sent.values() for one in job.objects]
    assert set(receiver.stored) == set(uids) and len(uids) == len(sent)
    held = {job.series: set() for job in sent.values()}
    for name, job in sent.items():
        held[job.series] |= {path.rpartition("/")[2] for path in spool.images(SENT, name)}
    # Whatever was acknowledged was predicted: all slices of each series are in its last job.
    assert len(held) == len(series)
    assert all(len(slices) == 6 for slices in held.values())
    last = {}
    for name in sorted(sent, key=lambda name: int(name.rpartition("-")[2])):
        last[sent[name].series] = len(spool.images(SENT, name))
    assert set(last.values()) == {6}
