"""Which addresses a stranger's name may lead to: public ones (case 21). Default deny; no address is normalised."""

from __future__ import annotations

import ipaddress

# IANA special-purpose address registries (RFC 6890), where Python's `is_global` alone says too little.
_NOT_PUBLIC_4 = tuple(
    ipaddress.IPv4Network(each)
    for each in (
        "0.0.0.0/8",
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)
# Global unicast (RFC 4291, section 2.4) and nothing else: mapped, compatible, translated (RFC 6052), unique local, link
# local, site local and multicast addresses are all outside of it.
_UNICAST_6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    ipaddress.IPv6Network(each)
    for each in (
        "2001::/23",  # protocol assignments, with Teredo, ORCHID and benchmarking (RFC 2928)
        "2001:db8::/32",
        "2002::/16",  # 6to4 (RFC 3056): an IPv4 address in disguise
        "3fff::/20",
    )
)


def is_public(text: str) -> bool:
    """Says whether an address, as a name server gave it, is one of the public Internet."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not any(address in each for each in _NOT_PUBLIC_4)
    inside = address.scope_id is None and address in _UNICAST_6
    return inside and address.is_global and not any(address in each for each in _NOT_PUBLIC_6)


def is_loopback(text: str) -> bool:
    """Says whether an address is this machine's, by its own name: 127.0.0.0/8 or ::1."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.is_loopback and (address.version == 4 or address == ipaddress.IPv6Address(1))
