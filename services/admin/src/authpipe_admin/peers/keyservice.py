"""keyservice's administration, in an operator's own words."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from authpipe_rpc import Peer  # first: it sets grpc's cipher list
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from authpipe.keyservice.v1 import administration_pb2 as pb
from authpipe_admin.peers.requests import new_request_id


@dataclass(frozen=True, slots=True)
class Kek:
    """A KEK version as shown."""

    version: int
    state: str
    deks: int
    created: dt.datetime | None
    primary_since: dt.datetime | None
    disabled: dt.datetime | None
    first_destroyer: str
    unproven: Sequence[str]


@dataclass(frozen=True, slots=True)
class KekList:
    """The KEK versions of a key domain, the number of live replicas, and of DEKs that are not on the primary one."""

    versions: Sequence[Kek]
    replicas: int
    outstanding: int


@dataclass(frozen=True, slots=True)
class Dek:
    """A DEK version as shown."""

    version: int
    state: str
    kek_version: int
    connection_keys: int
    created: dt.datetime | None
    customer_key: str


@dataclass(frozen=True, slots=True)
class CustomerKey:
    """A customer's key as bound to a workspace."""

    key_id: str
    provider: str
    state: str
    withdrawn: bool


@dataclass(frozen=True, slots=True)
class WorkspaceKeys:
    """A workspace's keys; `erased_at`: when its DEKs are or were destroyed."""

    deks: Sequence[Dek]
    customer_keys: Sequence[CustomerKey]
    connection_keys: int
    erased_at: dt.datetime | None


class KeyAdministrationPeer:
    """The administration of one key domain.

    Args:
        peer: The connection to its keyservice.
    """

    def __init__(self, peer: Peer[Any]) -> None:
        self._peer = peer

    async def close(self) -> None:
        """Closes the connection."""
        await self._peer.close()

    async def list_keks(self) -> KekList:
        """Lists KEK versions, oldest first."""
        answer = await self._peer.call_idempotent(lambda stub: stub.ListKekVersions, pb.ListKekVersionsRequest())
        versions = [
            Kek(
                each.version,
                _state(each.state),
                each.dek_count,
                _time(each.create_time),
                _time(each.primary_time),
                _time(each.disable_time),
                each.first_destroyer,
                tuple(each.unproven_replicas),
            )
            for each in answer.versions
        ]
        return KekList(versions, answer.replica_count, answer.rewrap_outstanding)

    async def rotate_kek(self) -> int:
        """Begins a rotation, or finds the one that is on its way; gives the version that is to become primary."""
        request = pb.RotateKekRequest(request_id=new_request_id())
        return int((await self._peer.call_idempotent(lambda stub: stub.RotateKek, request)).version)

    async def disable_kek(self, version: int) -> None:
        """Disables an active version."""
        request = pb.DisableKekRequest(version=version, request_id=new_request_id())
        await self._peer.call(lambda stub: stub.DisableKek, request)

    async def enable_kek(self, version: int) -> None:
        """Enables a disabled version."""
        request = pb.EnableKekRequest(version=version, request_id=new_request_id())
        await self._peer.call(lambda stub: stub.EnableKek, request)

    async def destroy_kek(self, version: int) -> bool:
        """Asks for a version to be destroyed; False: a second operator has to ask too."""
        request = pb.DestroyKekRequest(version=version, request_id=new_request_id())
        return bool((await self._peer.call(lambda stub: stub.DestroyKek, request)).destroyed)

    async def workspace(self, workspace: str) -> WorkspaceKeys:
        """Gives which keys a workspace has."""
        request = pb.GetWorkspaceKeysRequest(workspace_id=workspace)
        answer = await self._peer.call_idempotent(lambda stub: stub.GetWorkspaceKeys, request)
        deks = [
            Dek(
                each.version,
                _state(each.state),
                each.kek_version,
                each.connection_key_count,
                _time(each.create_time),
                each.customer_key_id,
            )
            for each in answer.deks
        ]
        bound = [
            CustomerKey(each.key_id, each.provider, _state(each.state).replace("destroyed", "retired"), each.withdrawn)
            for each in answer.customer_keys
        ]
        return WorkspaceKeys(deks, bound, answer.connection_key_count, _time(answer.erase_time))

    async def rotate_dek(self, workspace: str) -> int:
        """Gives a workspace a new DEK version."""
        request = pb.RotateDekRequest(workspace_id=workspace, request_id=new_request_id())
        return int((await self._peer.call(lambda stub: stub.RotateDek, request)).version)

    async def rotate_key(self, workspace: str, connection: str) -> int:
        """Gives a connection a new key version."""
        request = pb.RotateContextKeyRequest(
            workspace_id=workspace, connection_id=connection, request_id=new_request_id()
        )
        return int((await self._peer.call(lambda stub: stub.RotateContextKey, request)).version)

    async def erase(self, workspace: str, days: float) -> tuple[dt.datetime | None, int]:
        """Erases a workspace; gives when its DEKs are destroyed, and how many replicas have not forgotten it yet."""
        delay = Duration()
        delay.FromTimedelta(dt.timedelta(days=days))
        request = pb.EraseWorkspaceKeysRequest(workspace_id=workspace, delay=delay, request_id=new_request_id())
        answer = await self._peer.call(lambda stub: stub.EraseWorkspaceKeys, request)
        return _time(answer.erase_time), answer.outstanding_replicas

    async def cancel_erasure(self, workspace: str) -> None:
        """Cancels an erasure whose delay is not over."""
        request = pb.CancelWorkspaceErasureRequest(workspace_id=workspace, request_id=new_request_id())
        await self._peer.call(lambda stub: stub.CancelWorkspaceErasure, request)

    async def bind(self, workspace: str, provider: str, locator: Mapping[str, str]) -> tuple[str, str]:
        """Binds a customer's key; gives the binding's id and the key's name as its owner knows it."""
        request = pb.BindCustomerKeyRequest(
            workspace_id=workspace, provider=provider, locator=locator, request_id=new_request_id()
        )
        answer = await self._peer.call(lambda stub: stub.BindCustomerKey, request)
        return str(answer.key_id), str(answer.name)

    async def unbind(self, workspace: str) -> None:
        """Takes a customer's key off."""
        request = pb.UnbindCustomerKeyRequest(workspace_id=workspace, request_id=new_request_id())
        await self._peer.call(lambda stub: stub.UnbindCustomerKey, request)

    async def forget(self, workspace: str) -> int:
        """Has every replica forget what a customer's key opened; gives how many have not said so in time."""
        request = pb.ForgetCustomerKeyRequest(workspace_id=workspace, request_id=new_request_id())
        return int((await self._peer.call(lambda stub: stub.ForgetCustomerKey, request)).outstanding_replicas)


def _state(state: pb.KeyState.ValueType) -> str:
    return pb.KeyState.Name(state).removeprefix("KEY_STATE_").lower()


def _time(stamp: Timestamp) -> dt.datetime | None:
    return stamp.ToDatetime(dt.UTC) if stamp.seconds else None
