"""What a rule says to a consumer and hears from it: no wire in here."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from authpipe_envelope import RecordClass, RecordKey
from authpipe_sensitive import DomainError, Secret


class Want(NamedTuple):
    """A record to open.

    Args:
        workspace: The tenant.
        connection: The connection or provider configuration.
        record_class: The class; None: the one record that may be served.
        grant: The grant.
        request_id: The request.
        keep: Whether it may be kept for what is asked next, as far as keyservice allows it.
        shared: Whether it is opened once for all that want it in the moment by the same grant: one event, which says how many.
    """

    workspace: str
    connection: str
    record_class: RecordClass | None
    grant: str
    request_id: str
    keep: bool = False
    shared: bool = False


class Opened(NamedTuple):
    """An opened record.

    Args:
        plaintext: The secret.
        record_class: Its class.
        version: Its version.
        provider: The Provider that it is bound to.
        hosts: The digest of the hosts that it is bound to.
        expires_at: When the credential ends; None: it does not say.
        masked: Its masked prefix.
        fence: The fence of the lease under which it was sealed, as its store says; 0: without a lease.
    """

    plaintext: Secret
    record_class: RecordClass
    version: int
    provider: str
    hosts: bytes
    expires_at: dt.datetime | None
    masked: str
    fence: int = 0


@dataclass(frozen=True, slots=True)
class WriteKey:
    """The key of the next version of a record. It seals once."""

    workspace: str
    connection: str
    record_class: RecordClass
    version: int
    key: RecordKey
    grant: str


@dataclass(frozen=True, slots=True)
class Sealing:
    """What a new record is bound to and what may be known of it."""

    provider: str
    hosts: bytes
    masked: str = "…"
    expires_at: dt.datetime | None = None
    fence: int = 0


@dataclass(frozen=True, slots=True)
class SealedWrite:
    """A record sealed for its store. Opaque to rules.

    Args:
        message: The SealedRecord, as it goes over the wire.
    """

    message: object


class PackedWrite(NamedTuple):
    """A record sealed for its store, taken out of its packing.

    Args:
        workspace: The tenant.
        connection: The connection.
        fence: The fence of the lease under which it was sealed.
        write: The record.
    """

    workspace: str
    connection: str
    fence: int
    write: SealedWrite


class Consumer(Protocol):
    """A consumer of one store, as rules see it; `RecordClient` is it."""

    async def open_one(self, want: Want) -> Opened:
        """Opens a record, together with what others ask for in the moment, or raises why not."""

    async def open(self, wants: Sequence[Want]) -> list[Opened | DomainError]:
        """Opens records, and asks again for those whose customer's KMS was still being asked."""

    async def open_once(self, wants: Sequence[Want]) -> list[Opened | DomainError]:
        """Opens records; an item that is refused does not touch the others."""

    async def prepare(
        self, workspace: str, connection: str, classes: Sequence[RecordClass], grant: str, request_id: str
    ) -> dict[RecordClass, WriteKey]:
        """Has write keys of the next versions released."""

    def seal(self, write: WriteKey, sealing: Sealing, plaintext: Secret) -> SealedWrite:
        """Seals a plaintext as the next version of a record. The write key is used up."""

    def pack(self, write: SealedWrite) -> bytes:
        """Gives a sealed record as bytes, to be kept while its store is away. It is ciphertext."""

    def unpack(self, packed: bytes) -> PackedWrite | None:
        """Takes such a record out of its packing; None: it is none."""

    async def put(
        self,
        records: Sequence[SealedWrite],
        consumed: Sequence[tuple[str, str, RecordClass]],
        grant: str,
        request_id: str,
    ) -> None:
        """Stores sealed records and deletes what is consumed, all or none."""
