"""What a user may choose of the node: fields that are flags of `serving.node`."""

from dataclasses import dataclass

from segthor.options import check, option, require

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Settings:
    """The flags of `serving.node`."""

    spool: str = option("", "Folder of the queue, on a local disk; see docs/node.md.")
    rules: str = option("", "CSV: which series is predicted with which model, and where it goes.")
    peers: str = option(
        "", "CSV with the columns title, address, port, tls: who may call, and where to send."
    )
    watch: str = option("", "Folder that DICOM files are exported to; they are taken from there.")
    title: str = option("SEGTHOR", "The node's own application entity title.")
    address: str = option("127.0.0.1", "Address to listen on; 0.0.0.0: all of this machine.")
    port: int = option(11112, "Port to listen on; 0: do not listen.", (0, 65535))
    quiet_s: float = option(
        60.0,
        "A series is complete when no slice came for so many seconds and no association that sent "
        "one is open.",
        (0.05, 86400.0),
        flag="quiet",
    )
    stall_s: float = option(
        60.0,
        "Seconds without a complete message after which a client is dropped.",
        (0.1, 3600.0),
        flag="stall_timeout",
    )
    answer_s: float = option(
        120.0,
        "Seconds that a receiver of results may take to answer.",
        (0.1, 3600.0),
        flag="answer_timeout",
    )
    associations: int = option(20, "Associations that may be open at once.", (1, 1000))
    most_instances: int = option(5000, "Instances that a series may have.", (1, 100000))
    most_patient_gb: float = option(
        8.0, "What a patient's series that are not complete may hold.", (1e-6, 1000.0)
    )
    least_free_gb: float = option(
        5.0, "Free disk below which the node answers 'out of resources'.", (0.0, 1e6)
    )
    keep_days: float = option(
        14.0, "Days after which sent, failed and discarded jobs are removed.", (0.01, 10000.0)
    )
    case_timeout_s: float = option(
        1800.0, "Seconds that a part of one case may take.", (0.1, 1e6), flag="case_timeout"
    )
    tls_certificate: str = option("", "PEM file: the node's certificate; all peers then use TLS.")
    tls_key: str = option("", "PEM file: the key of the certificate.")
    tls_authority: str = option("", "PEM file: who signed the certificates of the peers.")
    without_tls: bool = option(
        False, "Also talk to other machines without TLS; for networks that are closed otherwise."
    )

    def __post_init__(self):
        check(self)
        tls = (self.tls_certificate, self.tls_key, self.tls_authority)
        expected = "--tls_certificate, --tls_key and --tls_authority together"
        require(all(tls) or not any(tls), "tls_certificate", expected, "some of them")
        fits = self.title.isascii() and self.title.isprintable() and 0 < len(self.title) <= 16
        require(fits and "\\" not in self.title, "title", "1 to 16 ASCII characters", self.title)
        is_private = self.has_tls or self.without_tls or is_loopback(self.address)
        expected = "127.0.0.1, or TLS (--tls_certificate ...), or --without_tls"
        require(is_private, "address", expected, self.address)

    @property
    def has_tls(self) -> bool:
        """Whether associations use TLS, unless a peer's row says no."""
        return bool(self.tls_certificate)


def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own, which no other machine reaches."""
    return address in _LOOPBACK or address.startswith("127.")
