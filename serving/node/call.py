"""Opens associations from the node to its peers."""

from collections.abc import Iterable

from pynetdicom import AE
from pynetdicom.association import Association

from serving.node import tls
from serving.node.peers import Peer
from serving.node.settings import Settings


class Caller:
    """Opens associations, with TLS where the node has certificates and the peer uses TLS."""

    def __init__(self, settings: Settings):
        """Raises InputError where TLS's files cannot be used."""
        self._title, self._tls = settings.title, tls.client_context(settings)

    def call(
        self, peer: Peer, contexts: Iterable[tuple], connect_s: float, answer_s: float
    ) -> Association:
        """Requests an association, which a peer may reject or not answer.

        contexts: SOP classes, each with its transfer syntax if that is not a usual one.
        connect_s: Seconds that the connection may take.
        answer_s: Seconds that the peer may take to answer a message.
        """
        entity = AE(self._title)
        entity.connection_timeout = entity.acse_timeout = connect_s
        entity.dimse_timeout = entity.network_timeout = answer_s
        for context in contexts:
            entity.add_requested_context(*context)
        secure = (self._tls, peer.address) if self._tls and peer.has_tls else None
        return entity.associate(peer.address, peer.port, ae_title=peer.title, tls_args=secure)
