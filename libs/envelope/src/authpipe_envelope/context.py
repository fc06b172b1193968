"""The context: what a record is bound to. It opens in one place, as one version, for one set of hosts.

Canonical encoding, in this order, every field present, nothing else:

    tag  1 byte   1 … 9, ascending
    size 4 bytes  big-endian
    value

    1 deployment   text     4 workspace   text            7 version       8 bytes, big-endian
    2 region       text     5 connection  text            8 provider      text
    3 key domain   text     6 class       1 byte          9 hosts digest  32 bytes

Text is UTF-8 in Unicode normalisation form C, 1 to 255 bytes, without control characters. What is not is refused, not
repaired: two spellings of one name must not become one context.
"""

from __future__ import annotations

import hashlib
import struct
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

_LONGEST = 255


class ContextError(ValueError):
    """A field of the context is empty, too long, not in normalisation form C, or has a control character."""


class Context(NamedTuple):
    """What is bound to a record as associated data.

    Args:
        deployment: The installation.
        region: Where it runs.
        key_domain: "user-credentials" or "client-secrets".
        workspace: The tenant's id.
        connection: The id of the connection or provider configuration.
        record_class: The number of the RecordClass, 1 to 255.
        version: The record's version, from 1 on.
        provider: The Provider's name.
        hosts: SHA-256 over the set of hosts that this credential may be sent to (`hosts_digest`), 32 bytes.
    """

    deployment: str
    region: str
    key_domain: str
    workspace: str
    connection: str
    record_class: int
    version: int
    provider: str
    hosts: bytes

    def encode(self) -> bytes:
        """Gives the canonical bytes.

        Raises:
            ContextError: A field is outside what this format allows.
        """
        if not 1 <= self.record_class <= 255 or not 1 <= self.version < 2**63 or len(self.hosts) != 32:
            raise ContextError("A class is 1 to 255, a version at least 1, a hosts digest 32 bytes.")
        values = (
            _text(self.deployment),
            _text(self.region),
            _text(self.key_domain),
            _text(self.workspace),
            _text(self.connection),
            bytes([self.record_class]),
            struct.pack(">Q", self.version),
            _text(self.provider),
            self.hosts,
        )
        return b"".join(struct.pack(">BI", tag, len(value)) + value for tag, value in enumerate(values, 1))


@lru_cache(8192)  # the same ids come again and again; there is no secret in a context
def _text(value: str) -> bytes:
    if not unicodedata.is_normalized("NFC", value) or any(unicodedata.category(char) in {"Cc", "Cs"} for char in value):
        raise ContextError("Text in a context is in normalisation form C, without control characters.")
    encoded = value.encode()
    if not 1 <= len(encoded) <= _LONGEST:
        raise ContextError("Text in a context has 1 to 255 bytes.")
    return encoded


def hosts_digest(hosts: Iterable[str]) -> bytes:
    """Gives SHA-256 over a set of hosts: each lower case, once, sorted, length-prefixed. An empty set is a set too.

    Raises:
        ContextError: A host is not in a form that can be compared.
    """
    return _digest_of(frozenset(hosts))


@lru_cache(maxsize=4096)
def _digest_of(hosts: frozenset[str]) -> bytes:
    """The same few sets come with every record of a Provider: a refresh asks for one six times."""
    unique = sorted({_text(host.lower()) for host in hosts})
    return hashlib.sha256(b"".join(struct.pack(">I", len(host)) + host for host in unique)).digest()
