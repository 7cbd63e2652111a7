"""The peers: application entities that may call the node, and that it may send to.

A CSV, a row for each: title, address (an IP address; a network such as 10.1.2.0/24 or * may call
but not receive), port (empty: it only calls), tls (no: without TLS where the node has it), count
(yes: asked by C-FIND how many instances a series has).
"""

import ipaddress
from dataclasses import dataclass

from segthor import csv_files
from segthor.errors import InputError
from serving.node.settings import is_loopback

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


def read(path: str, has_tls: bool, without_tls: bool) -> Peers:
    """The table of a file.

    Raises:
      InputError: a row makes no sense, or sends to another machine without TLS unless
        `without_tls`; the message names file, line and column.
    """
    peers = []
    for line, row in csv_files.read_table(path, _COLUMNS, needed=("title", "address")):
        where = f"{path}, line {line}"
        peer = _read_row(row, where)
        is_plain = peer.port and not (has_tls and peer.has_tls) and not is_loopback(peer.address)
        if is_plain and not without_tls:
            raise InputError(
                f"{where}: {peer.title} receives without TLS on another machine; expected "
                "--tls_certificate ..., or --without_tls for a network that is closed otherwise"
            )
        if peer.port and any(one.title == peer.title and one.port for one in peers):
            raise InputError(f"{where}, column port: {peer.title} receives in two rows; remove one")
        peers.append(peer)
    return Peers(tuple(peers))


def _read_row(row: dict[str, str], where: str) -> Peer:
    title, address, port = row["title"], row["address"], row.get("port", "")
    if not (title.isascii() and title.isprintable() and 0 < len(title) <= 16):
        raise InputError(
            f"{where}, column title: expected 1 to 16 ASCII characters, found {title!r}"
        )
    if address != "*":
        try:
            network = ipaddress.ip_network(address)
        except ValueError:
            raise InputError(
                f"{where}, column address: expected an IP address, a network such as 10.1.2.0/24 "
                f"or *, found {address!r}"
            ) from None
    if port and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise InputError(f"{where}, column port: expected 1 to 65535 or nothing, found {port!r}")
    if port and (address == "*" or network.num_addresses > 1):
        raise InputError(
            f"{where}, column address: expected one IP address, since results are sent to port "
            f"{port}; found {address!r}"
        )
    for column in ("tls", "count"):
        if row.get(column, "") not in ("", "yes", "no"):
            message = f"expected yes or no, found {row[column]!r}"
            raise InputError(f"{where}, column {column}: {message}")
    if row.get("count") == "yes" and not port:
        raise InputError(f"{where}, column count: expected a port to ask at, found none")
    return Peer(title, address, int(port or 0), row.get("tls") != "no", row.get("count") == "yes")
