"""Queries the source of a series for its number of instances (C-FIND at series level)."""

from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as MODEL

from segthor.dicom import received
from serving.node.call import Caller
from serving.node.peers import Peers
from serving.node.settings import Settings
from serving.node.spool import INBOX, Spool

_PENDING = (0xFF00, 0xFF01)
_TIMEOUT_S = 10.0
_MOST_WAITS = 10  # then a series is closed although slices are missing


class SourceCounts:
    """Whether series in the inbox are complete, for peers with `count` in their row."""

    def __init__(self, settings: Settings, peers: Peers, spool: Spool):
        self._peers, self._spool = peers, spool
        self._caller = Caller(settings)
        self._is_used = any(peer.counts for peer in peers.rows)
        self._asked: dict[str, tuple[int, bool]] = {}  # series to (files held, whether all)
        self._waits: dict[str, int] = {}

    def is_complete(self, series: str, is_silent: bool) -> bool | None:
        """Whether all instances of the source are there; None if the source is not queried.

        is_silent: Whether no slice arrived for a while. After `_MOST_WAITS` of these the result is
        True, so that a series with a lost slice does not wait without end.
        """
        if not self._is_used:
            return None
        peer = self._peers.counter(self._spool.read(INBOX, series).calling)
        if peer is None:
            return None
        held = len(self._spool.images(INBOX, series))
        known, is_all = self._asked.get(series, (0, False))
        if is_silent or known != held:
            count = self._ask(peer, series)
            is_all = count is not None and held >= count
            self._asked[series] = held, is_all
        if is_silent and not is_all:
            self._waits[series] = self._waits.get(series, 0) + 1
            is_all = self._waits[series] >= _MOST_WAITS
        return is_all

    def forget(self, series: str) -> None:
        """Forgets a series that left the inbox."""
        self._asked.pop(series, None)
        self._waits.pop(series, None)

    def _ask(self, peer, series: str) -> int | None:
        """The number that the source returns; None if it returns none."""
        images = self._spool.images(INBOX, series)
        query = received.make_count_query(images[0])
        association = self._caller.call(peer, [(MODEL,)], _TIMEOUT_S, _TIMEOUT_S)
        if not association.is_established:
            return None
        counts = [
            received.read_count(answer)
            for status, answer in association.send_c_find(query, MODEL)
            if answer is not None and status.Status in _PENDING
        ]
        association.release()
        return next((count for count in counts if count), None)
