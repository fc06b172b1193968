"""What opening and writing share: the store that is called, and the key that what keyservice sealed is opened with."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from authpipe.types.v1 import records_pb2 as pb
from authpipe_envelope import Context, RecordClass
from authpipe_grants import ConsumerKey, Kind, ReleasedKey, SealedBundle, TrustAnchor
from authpipe_rpc import Peer

# The same question has another answer in a moment: keyservice is still asking a customer's KMS, which lets nobody wait in a
# batch with others; or the record was written again between its store and keyservice.
PENDING = {"CUSTOMER_KEY_PENDING", "RECORD_SUPERSEDED"}
PAUSES = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.5, 0.8, 1.0, 1.0, 1.0)


class StoreStub(Protocol):
    """The generated stub of vault or clientsecrets; the last of these is vault's alone."""

    @property
    def PrepareWrites(self) -> Callable[..., Awaitable[pb.PrepareWritesResponse]]: ...
    @property
    def PutRecords(self) -> Callable[..., Awaitable[pb.PutRecordsResponse]]: ...
    @property
    def GetRecords(self) -> Callable[..., Awaitable[pb.GetRecordsResponse]]: ...
    @property
    def ReuseRecords(self) -> Callable[..., Awaitable[pb.ReuseRecordsResponse]]: ...


class StoreCaller:
    """Calls one store.

    Args:
        peer: The connection to the store.
        key: This consumer's HPKE key.
        anchor: Our CA.
        deployment: The installation, as bound in contexts.
        region: The region, as bound in contexts.
        key_domain: The store's key domain; its keyservice is ``keyservice/<key domain>``.
        clock: Gives the time, with zone.
    """

    def __init__(  # required means argument
        self,
        peer: Peer[StoreStub],
        key: ConsumerKey,
        anchor: TrustAnchor,
        deployment: str,
        region: str,
        key_domain: str,
        clock: Callable[[], dt.datetime],
    ) -> None:
        self.peer = peer
        self.key = key
        self._anchor = anchor
        self._deployment = deployment
        self._region = region
        self._key_domain = key_domain
        self._clock = clock

    def context(self, name: tuple[str, str, RecordClass], version: int, provider: str, hosts: bytes) -> Context:
        """Gives what a record is bound to: workspace, connection and class, as we asked for it and not as its store says."""
        workspace, connection, record_class = name
        return Context(
            deployment=self._deployment,
            region=self._region,
            key_domain=self._key_domain,
            workspace=workspace,
            connection=connection,
            record_class=int(record_class),
            version=version,
            provider=provider,
            hosts=hosts,
        )

    def open_keys(self, keys: pb.SealedKeys, challenge: bytes, kind: Kind) -> Mapping[int, ReleasedKey]:
        """Opens the keys that keyservice sealed to this consumer, by the index of their items; the store is not believed.

        Raises:
            GrantError: They are not sealed by keyservice as the answer to this very call.
        """
        if not keys.sealed:
            return {}
        bundle = SealedBundle(keys.sealed, keys.signature, tuple(keys.chain))
        keyservice = f"keyservice/{self._key_domain}"
        return self.key.open_keys(bundle, challenge, kind, self._anchor, keyservice, self._clock())


def wire_ref(workspace: str, connection: str, record_class: int) -> pb.RecordRef:
    """Gives a record's name as it goes over the wire."""
    return pb.RecordRef(
        workspace_id=workspace,
        connection_id=connection,
        record_class=record_class,  # type: ignore[arg-type]  # the stub's enum is a NewType of int
    )
