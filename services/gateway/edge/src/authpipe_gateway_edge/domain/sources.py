"""Where a request came from, for the audit log: the address of the peer, or what a proxy of ours says of it.

A header that anybody can send is believed of our own proxies alone: from the right, what the last of them has seen.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from urllib.parse import unquote


class Sources:
    """Tells sources.

    Args:
        trusted: The networks of our own proxies, such as "10.0.0.0/8".
    """

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted = [ipaddress.ip_network(each) for each in trusted]

    def of(self, peer: str, forwarded: Sequence[str] = ()) -> str:
        """Gives the address that a request came from, in its canonical text; empty: it is not known.

        Args:
            peer: Who is at the other end of the connection.
            forwarded: The addresses in X-Forwarded-For, in their order.
        """
        source = _address(peer)
        for each in reversed(forwarded):
            if source is None or not any(source in network for network in self._trusted):
                break
            source = _address(each)
        return source.compressed if source else ""

    def of_scope(self, peer: tuple[str, int] | None, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """Gives the address that an HTTP request came from."""
        named = [value for name, value in headers if name == b"x-forwarded-for"] if self._trusted else []
        return self.of(peer[0] if peer else "", _listed(named))

    def of_grpc(self, peer: str, metadata: Iterable[tuple[str, str | bytes]]) -> str:
        """Gives the address that a call came from: the peer as gRPC writes it, "ipv4:127.0.0.1:50051"."""
        _, _, rest = unquote(peer).partition(":")
        named = [_bytes(value) for name, value in metadata if name == "x-forwarded-for"] if self._trusted else []
        return self.of(rest.rpartition(":")[0].strip("[]"), _listed(named))


def _listed(values: Sequence[bytes]) -> list[str]:
    return [part.strip() for value in values for part in value.decode("ascii", "replace").split(",")]


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
