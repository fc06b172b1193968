"""What servers want in the next proof of a key (RFC 9449, sections 8 and 9): the newest word of each, for as long as we live."""

from __future__ import annotations

from collections import OrderedDict
from urllib.parse import urlsplit

_MOST = 1_000


class Nonces:
    """The nonces of servers."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, str] = OrderedDict()

    def of(self, url: str) -> str:
        """Gives the nonce of the server of a URL; empty: it wants none, as far as we know."""
        return self._known.get(_server(url), "")

    def note(self, url: str, nonce: str) -> None:
        """Keeps what a server wants from now on; empty: it said nothing."""
        if not nonce:
            return
        self._known.pop(_server(url), None)
        if len(self._known) >= _MOST:
            self._known.popitem(last=False)
        self._known[_server(url)] = nonce


def _server(url: str) -> str:
    return urlsplit(url).netloc.lower()
