"""Where a request came from: the peer, or what our own proxies say; a header that anybody can send says nothing."""

from __future__ import annotations

import pytest
from authpipe_gateway_edge.domain.sources import Sources

PROXIES = ("10.0.0.0/8", "fd00::/8")


@pytest.mark.parametrize(
    ("peer", "forwarded", "source"),
    [
        ("203.0.113.9", "", "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # not a proxy of ours: what it says is not heard
        ("10.1.2.3", "198.51.100.1", "198.51.100.1"),
        ("10.1.2.3", "1.2.3.4, 198.51.100.1", "198.51.100.1"),  # the left one was sent by the client itself
        ("10.1.2.3", "1.2.3.4, 198.51.100.1, 10.9.9.9", "198.51.100.1"),
        ("10.1.2.3", "10.4.4.4", "10.4.4.4"),
        ("10.1.2.3", "not an address", ""),
        ("10.1.2.3", "", "10.1.2.3"),
        ("::ffff:203.0.113.9", "", "203.0.113.9"),
        ("fd00::1", "2001:DB8::0:1", "2001:db8::1"),
        ("fe80::1%eth0", "", "fe80::1"),
        ("", "198.51.100.1", ""),
    ],
)
def test_the_source_of_an_http_request(peer: str, forwarded: str, source: str) -> None:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    assert Sources(PROXIES).of_scope((peer, 1) if peer else None, headers) == source
    metadata = [("x-forwarded-for", forwarded)] if forwarded else []
    grpc_peer = f"ipv6:%5B{peer}%5D:1" if ":" in peer else f"ipv4:{peer}:1"
    assert Sources(PROXIES).of_grpc(grpc_peer if peer else "", metadata) == source


def test_without_proxies_of_ours_no_header_is_looked_at() -> None:
    assert Sources(()).of_scope(("10.1.2.3", 1), [(b"x-forwarded-for", b"198.51.100.1")]) == "10.1.2.3"
