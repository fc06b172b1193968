"""Which addresses a name may lead to; properties over the whole of both address spaces."""

from __future__ import annotations

import ipaddress

import pytest
from authpipe_oauth_worker.domain.addresses import is_loopback, is_public
from hypothesis import given
from hypothesis import strategies as st

# From the IANA special-purpose registries; the last five hide an IPv4 address.
SPECIAL = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.2.0/24",
    "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4",
    "240.0.0.0/4", "::/128", "::1/128", "100::/64", "2001:db8::/32", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10",
    "fec0::/10", "ff00::/8", "::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16",
    "2001::/32", "::ffff:0:0:0/96",
]  # fmt: skip


@pytest.mark.case(21)
@pytest.mark.parametrize("network", SPECIAL)
@given(data=st.data())
def test_no_address_of_a_special_network_is_public(network: str, data: st.DataObject) -> None:
    inside = ipaddress.ip_network(network)
    number = data.draw(st.integers(int(inside[0]), int(inside[-1])))
    assert not is_public(str(inside[0].__class__(number)))


@given(st.ip_addresses())
def test_what_is_public_is_global_and_nothing_else(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if is_public(str(address)):
        assert address.is_global
        assert not any((address.is_multicast, address.is_reserved, address.is_private, address.is_loopback))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001::1"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)
    assert not is_loopback(address)


@pytest.mark.parametrize(
    "text", ["", "localhost", "1.1.1.1 ", "0x1.1.1.1", "01.1.1.1", "1.1.1", "fe80::1%lo", "::ffff:1.1.1.1"]
)
def test_what_is_no_address_in_its_usual_writing_is_not_public(text: str) -> None:
    assert not is_public(text)


def test_loopback_is_loopback_by_its_own_name_alone() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert not is_loopback("::ffff:127.0.0.1")
    assert not is_loopback("10.0.0.1")
