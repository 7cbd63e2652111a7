"""TLS: certificates of both sides, and no association without them."""

import shutil
import socket
import ssl
import subprocess

import nodes
import pytest
from nodes import RECEIVER, SENDER, associate, node, send, wait_for, wait_for_jobs, write_series

from segthor.errors import InputError
from serving.node import tls
from serving.node.settings import Settings

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")


def openssl(*words, folder):
    subprocess.run(["openssl", *map(str, words)], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A folder with authority.pem, and certificate and key of node, peer and stranger."""
    folder = tmp_path_factory.mktemp("keys")
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for name in ("authority", "other"):
        names = ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}"]
        openssl(*new, *names, "-days", 2, folder=folder)
    for name, authority in (("node", "authority"), ("peer", "authority"), ("stranger", "other")):
        request = ["req", "-new", *new[2:], "-keyout", f"{name}.key", "-out", f"{name}.csr"]
        openssl(*request, "-subj", f"/CN={name}", folder=folder)
        signed = ["-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key"]
        openssl("x509", "-req", *signed, "-CAcreateserial", "-out", f"{name}.pem", "-days", 2,
                folder=folder)  # fmt: skip
    return folder


def flags_of(keys, name="node"):
    return {
        "tls_certificate": str(keys / f"{name}.pem"),
        "tls_key": str(keys / f"{name}.key"),
        "tls_authority": str(keys / "authority.pem"),
    }


def client(keys, name):
    """What a peer with this certificate connects with."""
    return tls.client_context(Settings("spool", **flags_of(keys, name)))


def test_a_study_goes_in_and_a_result_out_by_tls(tmp_path, keys):
    server = tls.server_context(Settings("spool", **flags_of(keys, "peer")))
    with nodes.Receiver(tls=server) as receiver:
        peers = [(RECEIVER, "127.0.0.1", receiver.port)]
        with node(tmp_path, peers=peers, **flags_of(keys)) as (one, port):
            paths = write_series(tmp_path / "ct", "a")
            assert send(port, paths, tls=client(keys, "peer")) == [0] * 4
            assert wait_for_jobs(one, 1)[0][0] == "sent"
            assert len(receiver.stored) == 1


def test_a_wrong_certificate_or_none_is_refused(tmp_path, keys):
    with node(tmp_path, **flags_of(keys)) as (one, port):
        with associate(port, tls=client(keys, "stranger")) as association:
            assert not association.is_established
        with associate(port) as association:
            assert not association.is_established
        anonymous = ssl.create_default_context(cafile=str(keys / "authority.pem"))
        anonymous.check_hostname = False
        with associate(port, tls=anonymous) as association:
            assert not association.is_established
        wait_for(lambda: (tmp_path / "spool" / "audit.jsonl").read_text().count("no TLS") == 3)
        with associate(port, tls=client(keys, "peer")) as association:
            assert association.is_established


def test_a_receiver_with_a_wrong_certificate_gets_nothing(tmp_path, keys):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(keys / "stranger.pem", keys / "stranger.key")
    with nodes.Receiver(tls=server) as receiver:
        peers = [(RECEIVER, "127.0.0.1", receiver.port)]
        with node(tmp_path, peers=peers, retries_s=(), **flags_of(keys)) as (one, port):
            send(port, write_series(tmp_path / "ct", "a"), tls=client(keys, "peer"))
            assert wait_for_jobs(one, 1)[0][0] == "failed"
            assert receiver.held == []


def test_a_client_that_never_begins_tls_holds_up_no_other(tmp_path, keys):
    with node(tmp_path, **flags_of(keys)) as (_, port):
        with socket.create_connection(("127.0.0.1", port)):
            with associate(port, tls=client(keys, "peer"), calling=SENDER) as association:
                assert association.is_established


def test_certificates_that_do_not_fit_are_one_line(keys):
    wrong = flags_of(keys) | {"tls_key": str(keys / "peer.key")}
    with pytest.raises(InputError, match="--tls_certificate=.*expected readable PEM files"):
        tls.server_context(Settings("spool", **wrong))
