"""The peers: application entities that may call the node, and that it may send to.

A CSV, a row for each: title, address (an IP address; a network such as 10.1.2.0/24 or * may call
but not receive), port (empty: it only calls), tls (no: without TLS where the node has it), count
(yes: asked by C-FIND how many instances a series has).
"""

import ipaddress
from dataclasses import dataclass

from segthor import csv_files
from segthor.errors import InputError
from serving.node.rows import Row
from serving.node.settings import Settings, is_loopback

_COLUMNS = ("title", "address", "port", "tls", "count")


@dataclass(frozen=True)
class Peer:
    """One application entity.

    title: Its title.
    address: An IP address, a network, or '*'.
    port: Where it receives; 0: it does not.
    has_tls: Whether associations with it use TLS where the node has certificates.
    counts: Whether it says how many instances a series has.
    """

    title: str
    address: str
    port: int
    has_tls: bool
    counts: bool = False

    def is_at(self, address: str) -> bool:
        """Whether it may call from an address."""
        if self.address == "*":
            return True
        plain = address.removeprefix("::ffff:")  # an IPv4 address as an IPv6 socket gives it
        return ipaddress.ip_address(plain) in ipaddress.ip_network(self.address)


@dataclass(frozen=True)
class Peers:
    """All rows of the table."""

    rows: tuple[Peer, ...] = ()

    def allows(self, title: str, address: str) -> bool:
        """Whether an entity of this title may call from this address."""
        return any(peer.title == title and peer.is_at(address) for peer in self.rows)

    def receiver(self, title: str) -> Peer | None:
        """The entity of this title that receives; None where there is none."""
        return next((peer for peer in self.rows if peer.title == title and peer.port), None)

    def counter(self, title: str) -> Peer | None:
        """The entity of this title, if it says how many instances a series has."""
        peer = self.receiver(title)
        return peer if peer and peer.counts else None


def read(settings: Settings) -> Peers:
    """The table of `--peers`; without rows where there is no file.

    Raises:
      InputError: a row makes no sense, or sends to another machine without TLS unless
        `--without_tls`; the message names file, line and column.
    """
    path, peers = settings.peers, []
    for line, cells in csv_files.read_table(path, _COLUMNS, _COLUMNS[:2]) if path else ():
        row = Row(cells, line, path)
        peer = _read_row(row)
        uses_tls = settings.has_tls and peer.has_tls
        is_plain = peer.port and not uses_tls and not is_loopback(peer.address)
        if is_plain and not settings.without_tls:
            raise InputError(
                f"{row.where}: {peer.title} receives without TLS on another machine; expected "
                "--tls_certificate ..., or --without_tls for a network that is closed otherwise"
            )
        if peer.port and any(one.title == peer.title and one.port for one in peers):
            raise row.error("port", f"{peer.title} receives in two rows; remove one")
        peers.append(peer)
    return Peers(tuple(peers))


def _read_row(row: Row) -> Peer:
    title, address, port = (row.text(column) for column in ("title", "address", "port"))
    if not (title.isascii() and title.isprintable() and 0 < len(title) <= 16):
        raise row.unexpected("title", "1 to 16 ASCII characters")
    if address != "*":
        try:
            network = ipaddress.ip_network(address)
        except ValueError:
            expected = "an IP address, a network such as 10.1.2.0/24 or *"
            raise row.unexpected("address", expected) from None
    if port and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise row.unexpected("port", "1 to 65535 or nothing")
    if port and (address == "*" or network.num_addresses > 1):
        expected = f"one IP address, since results are sent to port {port}"
        raise row.unexpected("address", expected)
    has_tls, counts = row.text("tls") == "" or row.yes("tls"), row.yes("count")
    if counts and not port:
        raise row.error("count", "expected a port to ask at, found none")
    return Peer(title, address, int(port or 0), has_tls, counts)
