"""keyservice's administration, in an operator's own words."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from authpipe_rpc import Peer  # first: it sets grpc's cipher list
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from authpipe.audit.v1 import audit_pb2
from authpipe.authority.v1 import authority_pb2
from authpipe.keyservice.v1 import administration_pb2 as pb
from authpipe.oauth.v1 import coordinator_pb2
from authpipe.types.v1 import records_pb2
from authpipe_admin.stores import PAGE, Kept, Logged, Name, logged_of


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
        request = pb.RotateKekRequest(request_id=_request_id())
        return int((await self._peer.call_idempotent(lambda stub: stub.RotateKek, request)).version)

    async def disable_kek(self, version: int) -> None:
        """Disables an active version."""
        request = pb.DisableKekRequest(version=version, request_id=_request_id())
        await self._peer.call(lambda stub: stub.DisableKek, request)

    async def enable_kek(self, version: int) -> None:
        """Enables a disabled version."""
        request = pb.EnableKekRequest(version=version, request_id=_request_id())
        await self._peer.call(lambda stub: stub.EnableKek, request)

    async def destroy_kek(self, version: int) -> bool:
        """Asks for a version to be destroyed; False: a second operator has to ask too."""
        request = pb.DestroyKekRequest(version=version, request_id=_request_id())
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
        request = pb.RotateDekRequest(workspace_id=workspace, request_id=_request_id())
        return int((await self._peer.call(lambda stub: stub.RotateDek, request)).version)

    async def rotate_key(self, workspace: str, connection: str) -> int:
        """Gives a connection a new key version."""
        request = pb.RotateContextKeyRequest(workspace_id=workspace, connection_id=connection, request_id=_request_id())
        return int((await self._peer.call(lambda stub: stub.RotateContextKey, request)).version)

    async def erase(self, workspace: str, days: float) -> tuple[dt.datetime | None, int]:
        """Erases a workspace; gives when its DEKs are destroyed, and how many replicas have not forgotten it yet."""
        delay = Duration()
        delay.FromTimedelta(dt.timedelta(days=days))
        request = pb.EraseWorkspaceKeysRequest(workspace_id=workspace, delay=delay, request_id=_request_id())
        answer = await self._peer.call(lambda stub: stub.EraseWorkspaceKeys, request)
        return _time(answer.erase_time), answer.outstanding_replicas

    async def cancel_erasure(self, workspace: str) -> None:
        """Cancels an erasure whose delay is not over."""
        request = pb.CancelWorkspaceErasureRequest(workspace_id=workspace, request_id=_request_id())
        await self._peer.call(lambda stub: stub.CancelWorkspaceErasure, request)

    async def bind(self, workspace: str, provider: str, locator: Mapping[str, str]) -> tuple[str, str]:
        """Binds a customer's key; gives the binding's id and the key's name as its owner knows it."""
        request = pb.BindCustomerKeyRequest(
            workspace_id=workspace, provider=provider, locator=locator, request_id=_request_id()
        )
        answer = await self._peer.call(lambda stub: stub.BindCustomerKey, request)
        return str(answer.key_id), str(answer.name)

    async def unbind(self, workspace: str) -> None:
        """Takes a customer's key off."""
        request = pb.UnbindCustomerKeyRequest(workspace_id=workspace, request_id=_request_id())
        await self._peer.call(lambda stub: stub.UnbindCustomerKey, request)

    async def forget(self, workspace: str) -> int:
        """Has every replica forget what a customer's key opened; gives how many have not said so in time."""
        request = pb.ForgetCustomerKeyRequest(workspace_id=workspace, request_id=_request_id())
        return int((await self._peer.call(lambda stub: stub.ForgetCustomerKey, request)).outstanding_replicas)


class CoordinatorPeer:
    """The coordinator.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[Any]) -> None:
        self._peer = peer

    async def close(self) -> None:
        """Closes the connection."""
        await self._peer.close()

    async def reseal(self, workspace: str, target: str, domain: str) -> int:
        """Has a connection's or provider configuration's records sealed again; gives how many were not up to date."""
        field = "provider_config_id" if domain == "client-secrets" else "connection_id"
        request = coordinator_pb2.ResealRecordsRequest(
            workspace_id=workspace, request_id=_request_id(), **{field: target}
        )
        return int((await self._peer.call(lambda stub: stub.ResealRecords, request)).resealed_count)


def _state(state: pb.KeyState.ValueType) -> str:
    return pb.KeyState.Name(state).removeprefix("KEY_STATE_").lower()


def _time(stamp: Timestamp) -> dt.datetime | None:
    return stamp.ToDatetime(dt.UTC) if stamp.seconds else None


def _request_id() -> str:
    return f"req_{secrets.token_hex(12)}"


class StorePeer:
    """vault or clientsecrets.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[Any]) -> None:
        self._peer = peer

    async def digests(self, names: Sequence[Name], after: Name | None) -> dict[Name, Kept]:
        """Gives what the store has of these; of none: the next page of all, in its order."""
        if not names and after is None:
            after = Name("", "", 0)
        request = records_pb2.GetDigestsRequest(
            items=[_ref(name) for name in names], after=_ref(after) if after else None, page_size=PAGE
        )
        response = await self._peer.call_idempotent(lambda stub: stub.GetDigests, request)
        return {_name(each.ref): Kept(each.version, each.digest) for each in response.items}


class LogPeer:
    """audit, of one trail.

    Args:
        peer: The connection to it.
        trail: The trail's number.
    """

    def __init__(self, peer: Peer[Any], trail: int) -> None:
        self._peer = peer
        self._trail = trail

    async def writes(self, names: Sequence[Name], after: Name | None) -> dict[Name, Logged]:
        """Gives what the log has of these and no deletion followed; of none: the next page of all, in its order."""
        request = audit_pb2.GetWritesRequest(
            trail=self._trail,  # type: ignore[arg-type]  # the stub's enum is a NewType of int
            items=[_ref(name) for name in names],
            after=_ref(after) if after else None,
            page_size=PAGE,
        )
        response = await self._peer.call_idempotent(lambda stub: stub.GetWrites, request)
        return {
            _name(each.ref): logged_of(each.record, each.salt, each.entry, each.leaf_index) for each in response.items
        }


class AuthorityPeer:
    """authority.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[Any]) -> None:
        self._peer = peer

    async def close(self) -> None:
        """Closes the connection."""
        await self._peer.close()

    async def set_audit_retention(self, workspace: str, days: int) -> None:
        """Puts on record for how many days the bodies of a workspace's events are kept."""
        request = authority_pb2.SetAuditRetentionRequest(
            workspace_id=workspace, days=days, request_id=f"req_{secrets.token_hex(12)}"
        )
        await self._peer.call_idempotent(lambda stub: stub.SetAuditRetention, request)

    async def revoke_api_keys(self, workspace: str, *, dry_run: bool) -> int:
        """Revokes all API keys of a workspace; gives how many were active."""
        request = authority_pb2.RevokeApiKeysRequest(
            workspace_id=workspace, dry_run=dry_run, request_id=f"req_{secrets.token_hex(12)}"
        )
        return int((await self._peer.call_idempotent(lambda stub: stub.RevokeApiKeys, request)).revoked_count)

    async def freeze(self, workspace: str, *, dry_run: bool) -> bool:
        """Freezes a workspace; says whether it was frozen already."""
        request = authority_pb2.FreezeWorkspaceRequest(
            workspace_id=workspace, dry_run=dry_run, request_id=f"req_{secrets.token_hex(12)}"
        )
        return bool((await self._peer.call_idempotent(lambda stub: stub.FreezeWorkspace, request)).was_frozen)

    async def unfreeze(self, workspace: str) -> bool:
        """Has a workspace served again; says whether it was frozen."""
        request = authority_pb2.UnfreezeWorkspaceRequest(
            workspace_id=workspace, request_id=f"req_{secrets.token_hex(12)}"
        )
        return bool((await self._peer.call_idempotent(lambda stub: stub.UnfreezeWorkspace, request)).was_frozen)


def _ref(name: Name) -> records_pb2.RecordRef:
    return records_pb2.RecordRef(
        workspace_id=name.workspace,
        connection_id=name.connection,
        record_class=name.record_class,  # type: ignore[arg-type]  # the stub's enum is a NewType of int
    )


def _name(ref: records_pb2.RecordRef) -> Name:
    return Name(ref.workspace_id, ref.connection_id, int(ref.record_class))


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident as shown; `notify_by` is None where there is nothing to tell a customer."""

    id: str
    detector: str
    severity: str
    workspace: str
    subject: str
    state: str
    opened_at: dt.datetime
    notify_by: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """An event of an incident: where it stands, its record (empty: expired), its salt, its proof."""

    trail: str
    leaf_index: int
    record: str
    salt: str
    proof: str


class IncidentsPeer:
    """The incidents.

    Args:
        peer: The connection to audit.
    """

    def __init__(self, peer: Peer[Any]) -> None:
        self._peer = peer

    async def close(self) -> None:
        """Closes the connection."""
        await self._peer.close()

    async def list_incidents(self, workspace: str, *, open_only: bool) -> list[Incident]:
        """Gives all incidents, newest first."""
        found, token = [], ""
        while True:
            request = audit_pb2.ListIncidentsRequest(
                workspace_id=workspace, open_only=open_only, page_size=200, page_token=token
            )
            response = await self._peer.call_idempotent(lambda stub: stub.ListIncidents, request)
            found += [_incident(each) for each in response.incidents]
            token = response.next_page_token
            if not token:
                return found

    async def get(self, incident_id: str) -> tuple[Incident, list[Evidence]]:
        """Gives an incident with its evidence."""
        request = audit_pb2.GetIncidentRequest(incident_id=incident_id)
        response = await self._peer.call_idempotent(lambda stub: stub.GetIncident, request)
        return _incident(response.incident), [
            Evidence(
                audit_pb2.Trail.Name(each.trail).removeprefix("TRAIL_").lower().replace("_", "-"),
                each.leaf_index,
                each.record.decode(),
                each.salt.hex(),
                each.proof,
            )
            for each in response.evidence
        ]

    async def change(self, incident_id: str, state: str) -> None:
        """Takes an incident to a later state."""
        number = audit_pb2.IncidentState.Value(f"INCIDENT_STATE_{state.upper()}")
        request = audit_pb2.ChangeIncidentRequest(incident_id=incident_id, state=number)
        await self._peer.call(lambda stub: stub.ChangeIncident, request)


def _incident(wire: audit_pb2.Incident) -> Incident:
    return Incident(
        wire.incident_id,
        wire.detector,
        audit_pb2.Severity.Name(wire.severity).removeprefix("SEVERITY_").lower(),
        wire.workspace_id,
        wire.subject,
        audit_pb2.IncidentState.Name(wire.state).removeprefix("INCIDENT_STATE_").lower(),
        wire.opened_at.ToDatetime(dt.UTC),
        wire.notify_by.ToDatetime(dt.UTC) if wire.HasField("notify_by") else None,
    )


@dataclass(frozen=True, slots=True)
class Rotation:
    """How far a rotation of tokens is; without an id it was only counted."""

    id: str
    total: int
    rotated: int
    failed: int
    irreplaceable: int
    ended: bool


class ContainmentPeer:
    """Rotations of tokens.

    Args:
        peer: The connection to coordinator.
    """

    def __init__(self, peer: Peer[Any]) -> None:
        self._peer = peer

    async def close(self) -> None:
        """Closes the connection."""
        await self._peer.close()

    async def begin(self, workspace: str, connection: str, config: str, *, dry_run: bool) -> Rotation:
        """Begins to rotate tokens; without a workspace all there are."""
        request = coordinator_pb2.BeginRotationRequest(
            workspace_id=workspace,
            connection_id=connection,
            provider_config_id=config,
            everything=not workspace,
            dry_run=dry_run,
            request_id=f"req_{secrets.token_hex(12)}",
        )
        return _rotation((await self._peer.call(lambda stub: stub.BeginRotation, request)).rotation)

    async def get(self, rotation_id: str) -> Rotation:
        """Says how far a rotation is."""
        request = coordinator_pb2.GetRotationRequest(rotation_id=rotation_id)
        return _rotation((await self._peer.call_idempotent(lambda stub: stub.GetRotation, request)).rotation)


def _rotation(wire: Any) -> Rotation:
    return Rotation(
        wire.rotation_id,
        wire.total_count,
        wire.rotated_count,
        wire.failed_count,
        wire.irreplaceable_count,
        wire.HasField("end_time"),
    )
