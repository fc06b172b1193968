"""Names and records, as a store knows them."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple


class Ref(NamedTuple):
    """The name of a record: workspace, connection (or provider configuration), number of the class."""

    workspace: str
    connection: str
    record_class: int


class Record(NamedTuple):
    """A record as stored: ciphertext and what may be known of it.

    Args:
        ref: Its name.
        version: Its version, from 1 on.
        data: The AP1 record.
        provider: As bound in the context.
        hosts: The digest of the hosts, as bound in the context.
        masked: The masked prefix.
        expires_at: When the credential ends; None: it does not say.
        fence: The fence under which it was written; 0: none.
        withheld: Whether its connection is being disconnected.
    """

    ref: Ref
    version: int
    data: bytes
    provider: str
    hosts: bytes
    masked: str
    expires_at: datetime | None
    fence: int
    withheld: bool = False


# What find gives for a record of a connection that was erased.
GONE = Record(Ref("", "", 0), 0, b"", "", b"", "", None, 0, withheld=True)


class Digest(NamedTuple):
    """What a stored record is compared with the log by.

    Args:
        ref: Which record.
        version: Its version.
        digest: SHA-256 of all of it, in hexadecimal.
    """

    ref: Ref
    version: int
    digest: str
