"""KeyAdministration on the wire: what operators do with keys. Who calls is the actor of every event."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from authpipe.keyservice.v1 import administration_pb2 as pb
from authpipe_keyservice.domain.bindings import Bindings
from authpipe_keyservice.domain.customer_keys import BindingState
from authpipe_keyservice.domain.kek_versions import KekVersion, KeyVersionState
from authpipe_keyservice.domain.rotation import Rotation
from authpipe_keyservice.domain.workspaces import Workspaces
from authpipe_keyservice.store import CustomerKeyTable, KekTable, ReplicaTable, WorkspaceTable
from authpipe_rpc import current_actor
from authpipe_sensitive.duties import note_nothing_done

_STATES = {
    KeyVersionState.PREPARED: pb.KEY_STATE_PREPARED,
    KeyVersionState.PRIMARY: pb.KEY_STATE_PRIMARY,
    KeyVersionState.ACTIVE: pb.KEY_STATE_ACTIVE,
    KeyVersionState.DISABLED: pb.KEY_STATE_DISABLED,
    KeyVersionState.DESTROYED: pb.KEY_STATE_DESTROYED,
}
_BINDINGS = {
    BindingState.PRIMARY: pb.KEY_STATE_PRIMARY,
    BindingState.ACTIVE: pb.KEY_STATE_ACTIVE,
    BindingState.RETIRED: pb.KEY_STATE_DESTROYED,
}


class KeyAdministrator:
    """Serves KeyAdministration for one key domain.

    Args:
        key_domain: The key domain.
        rotation: The rules of KEK versions.
        workspaces: The rules of a workspace's keys.
        keks: The KEK versions.
        replicas: The replicas.
        keys: Keys of workspaces.
        bindings: The rules of customers' keys.
        customer_keys: Customers' keys.
    """

    def __init__(
        self,
        *,
        key_domain: str,
        rotation: Rotation,
        workspaces: Workspaces,
        keks: KekTable,
        replicas: ReplicaTable,
        keys: WorkspaceTable,
        bindings: Bindings,
        customer_keys: CustomerKeyTable,
    ) -> None:
        self._key_domain = key_domain
        self._rotation = rotation
        self._workspaces = workspaces
        self._keks = keks
        self._replicas = replicas
        self._keys = keys
        self._bindings = bindings
        self._customer_keys = customer_keys

    async def ListKekVersions(self, _: pb.ListKekVersionsRequest, __: object) -> pb.ListKekVersionsResponse:
        """Lists KEK versions."""
        versions, counts = await self._keks.versions(), await self._keks.counts()
        listed = []
        for each in versions:
            unproven = await self._keks.unproven(each.version) if each.state is KeyVersionState.PREPARED else []
            listed.append(_kek(each, counts.get(each.version, 0), unproven))
        moving = [each.version for each in versions if each.state is KeyVersionState.ACTIVE]
        return pb.ListKekVersionsResponse(
            key_domain=self._key_domain,
            versions=listed,
            replica_count=await self._replicas.count(),
            rewrap_outstanding=sum(counts.get(version, 0) for version in moving),
        )

    async def RotateKek(self, request: pb.RotateKekRequest, _: object) -> pb.RotateKekResponse:
        """Begins a rotation."""
        version, began = await self._rotation.rotate(current_actor(), request.request_id)
        if not began:
            note_nothing_done()
        return pb.RotateKekResponse(version=version)

    async def DisableKek(self, request: pb.DisableKekRequest, _: object) -> pb.DisableKekResponse:
        """Disables a version."""
        await self._rotation.disable(request.version, current_actor(), request.request_id)
        return pb.DisableKekResponse()

    async def EnableKek(self, request: pb.EnableKekRequest, _: object) -> pb.EnableKekResponse:
        """Enables a version."""
        await self._rotation.enable(request.version, current_actor(), request.request_id)
        return pb.EnableKekResponse()

    async def DestroyKek(self, request: pb.DestroyKekRequest, _: object) -> pb.DestroyKekResponse:
        """Destroys a version, when two operators ask."""
        destroyed = await self._rotation.destroy(request.version, current_actor(), request.request_id)
        return pb.DestroyKekResponse(destroyed=destroyed)

    async def GetWorkspaceKeys(self, request: pb.GetWorkspaceKeysRequest, _: object) -> pb.GetWorkspaceKeysResponse:
        """Says which keys a workspace has."""
        deks, keys, erased = await self._keys.describe(request.workspace_id)
        return pb.GetWorkspaceKeysResponse(
            key_domain=self._key_domain,
            deks=[
                pb.DekVersion(
                    version=row.version,
                    state=_STATES[row.state],
                    kek_version=row.kek_version,
                    connection_key_count=count,
                    create_time=_time(created),
                    customer_key_id=row.customer_key_id,
                )
                for row, count, created in deks
            ],
            connection_key_count=keys,
            erase_time=_time(erased),
            customer_keys=[
                pb.CustomerKey(
                    key_id=each.key_id,
                    provider=each.provider,
                    state=_BINDINGS[each.state],
                    withdrawn=each.withdrawn,
                )
                for each in await self._customer_keys.listed(request.workspace_id)
            ],
        )

    async def BindCustomerKey(self, request: pb.BindCustomerKeyRequest, _: object) -> pb.BindCustomerKeyResponse:
        """Binds a customer's key."""
        key_id, name = await self._bindings.bind(
            request.workspace_id, request.provider, dict(request.locator), current_actor(), request.request_id
        )
        return pb.BindCustomerKeyResponse(key_id=key_id, name=name)

    async def UnbindCustomerKey(self, request: pb.UnbindCustomerKeyRequest, _: object) -> pb.UnbindCustomerKeyResponse:
        """Takes a customer's key off."""
        await self._bindings.unbind(request.workspace_id, current_actor(), request.request_id)
        return pb.UnbindCustomerKeyResponse()

    async def ForgetCustomerKey(self, request: pb.ForgetCustomerKeyRequest, _: object) -> pb.ForgetCustomerKeyResponse:
        """Has every replica forget what a customer's key opened."""
        outstanding = await self._bindings.forget(request.workspace_id, current_actor(), request.request_id)
        return pb.ForgetCustomerKeyResponse(outstanding_replicas=outstanding)

    async def RotateDek(self, request: pb.RotateDekRequest, _: object) -> pb.RotateDekResponse:
        """Gives a workspace a new DEK version."""
        version = await self._workspaces.rotate_dek(request.workspace_id, current_actor(), request.request_id)
        return pb.RotateDekResponse(version=version)

    async def RotateContextKey(self, request: pb.RotateContextKeyRequest, _: object) -> pb.RotateContextKeyResponse:
        """Gives a connection a new key version."""
        version = await self._workspaces.rotate_key(
            request.workspace_id, request.connection_id, current_actor(), request.request_id
        )
        return pb.RotateContextKeyResponse(version=version)

    async def EraseWorkspaceKeys(
        self, request: pb.EraseWorkspaceKeysRequest, _: object
    ) -> pb.EraseWorkspaceKeysResponse:
        """Erases a workspace."""
        delay = request.delay.seconds + request.delay.nanos / 1e9
        due, outstanding = await self._workspaces.erase(
            request.workspace_id, delay, current_actor(), request.request_id
        )
        return pb.EraseWorkspaceKeysResponse(erase_time=_time(due), outstanding_replicas=outstanding)

    async def CancelWorkspaceErasure(
        self, request: pb.CancelWorkspaceErasureRequest, _: object
    ) -> pb.CancelWorkspaceErasureResponse:
        """Cancels an erasure."""
        await self._workspaces.cancel(request.workspace_id, current_actor(), request.request_id)
        return pb.CancelWorkspaceErasureResponse()


def _kek(version: KekVersion, deks: int, unproven: list[str]) -> pb.KekVersion:
    return pb.KekVersion(
        version=version.version,
        state=_STATES[version.state],
        dek_count=deks,
        create_time=_time(version.created),
        primary_time=_time(version.primary_since),
        disable_time=_time(version.disabled),
        first_destroyer=version.first_destroyer,
        unproven_replicas=unproven,
    )


def _time(seconds: float) -> Timestamp | None:
    if not seconds:
        return None
    stamp = Timestamp()
    stamp.FromNanoseconds(int(seconds * 1e9))
    return stamp
