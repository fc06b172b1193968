"""Other services, in coordinator's own words: the worker, the stores, audit."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar, cast

from authpipe.oauth.v1 import types_pb2, worker_pb2, worker_pb2_grpc
from authpipe.types.v1 import records_pb2
from authpipe_envelope import RecordClass
from authpipe_grants import thumbprint
from authpipe_oauth_coordinator.domain.grants import Grants
from authpipe_oauth_coordinator.domain.ports import Job
from authpipe_oauth_coordinator.domain.words import (
    Acting,
    BegunDevice,
    HealthOutcome,
    Pairs,
    Renewal,
    RevokeOutcome,
    TokenOutcome,
)
from authpipe_oauth_coordinator.errors import AuditUnavailableError
from authpipe_providers import Api, Endpoints, Entry, Signing, TwoStep
from authpipe_relay import AuditSink
from authpipe_rpc import Coalescer, Peer, PeerRefused, PeerUnavailable

ResponseT = TypeVar("ResponseT")
_KEY_CHANGED = "CONSUMER_KEY_CHANGED"
_KEYS_TRIED = 3
# Those who ask whether somebody is there travel together, however many they are.
_MANY = 10_000
RENEWALS = {
    Renewal.REFRESH_TOKEN: types_pb2.RENEWAL_REFRESH_TOKEN,
    Renewal.CLIENT_CREDENTIALS: types_pb2.RENEWAL_CLIENT_CREDENTIALS,
    Renewal.JWT_BEARER: types_pb2.RENEWAL_JWT_BEARER,
    Renewal.TOKEN_EXCHANGE: types_pb2.RENEWAL_TOKEN_EXCHANGE,
    Renewal.TWO_STEP: types_pb2.RENEWAL_TWO_STEP,
}


class WorkerPeer:
    """The worker. Grants are bound to its key, which it makes anew when it starts.

    Args:
        peer: The connection to it.
        grants: Signs grants.
    """

    def __init__(self, peer: Peer[worker_pb2_grpc.WorkerAsyncStub], grants: Grants) -> None:
        self._peer = peer
        self._grants = grants
        self._thumbprint = ""
        self._learning: Coalescer[bool, None] = Coalescer(self._learn_keys, largest=_MANY)

    async def require_reachable(self) -> None:
        """Returns when a worker answers; it tells its key by the way. All that ask in the moment share one rpc."""
        await self._learning.submit(False)

    async def discover(self, issuer: str, request_id: str) -> Endpoints:
        """Fetches a Provider's metadata."""
        request = worker_pb2.DiscoverRequest(issuer=issuer, request_id=request_id)
        return from_wire_endpoints((await self._peer.call(lambda stub: stub.Discover, request)).endpoints)

    async def prepare_flow(self, job: Job) -> tuple[str, str]:
        """Has a code verifier made and stored sealed, and a key; gives the challenge and the key's thumbprint."""

        async def call(wire: worker_pb2.Job) -> tuple[str, str]:
            prepared = await self._peer.call(lambda stub: stub.PrepareFlow, worker_pb2.PrepareFlowRequest(job=wire))
            return prepared.code_challenge, prepared.dpop_jkt

        return await self._with_grants(job, call)

    async def begin_oauth1(self, job: Job, callback: str) -> tuple[str, str]:
        """Has temporary credentials asked for and stored sealed; gives why there are none, or their token."""

        async def call(wire: worker_pb2.Job) -> tuple[str, str]:
            request = worker_pb2.BeginOAuth1Request(job=wire, callback=callback)
            begun = await self._peer.call(lambda stub: stub.BeginOAuth1, request)
            return begun.failure, begun.oauth_token

        return await self._with_grants(job, call)

    async def exchange_code(self, job: Job, code: str, redirect_uri: str, oauth_token: str = "") -> TokenOutcome:
        """Has a code exchanged and the answer stored."""

        async def call(wire: worker_pb2.Job) -> TokenOutcome:
            request = worker_pb2.ExchangeCodeRequest(
                job=wire, code=code, redirect_uri=redirect_uri, oauth_token=oauth_token
            )
            return _outcome((await self._peer.call(lambda stub: stub.ExchangeCode, request)).outcome)

        return await self._with_grants(job, call)

    async def push_authorization(self, job: Job, parameters: Mapping[str, str]) -> tuple[str, str]:
        """Has an authorization request pushed; gives why it was not taken, or what the browser carries in its place."""
        pushed = [worker_pb2.PushedParameter(name=name, value=value) for name, value in parameters.items()]

        async def call(wire: worker_pb2.Job) -> tuple[str, str]:
            request = worker_pb2.PushAuthorizationRequest(job=wire, parameters=pushed)
            response = await self._peer.call(lambda stub: stub.PushAuthorization, request)
            return response.failure, response.request_uri

        return await self._with_grants(job, call)

    async def begin_device(self, job: Job) -> BegunDevice:
        """Has a device code asked for and stored sealed."""

        async def call(wire: worker_pb2.Job) -> BegunDevice:
            response = await self._peer.call(lambda stub: stub.BeginDevice, worker_pb2.BeginDeviceRequest(job=wire))
            return BegunDevice(
                response.failure,
                response.user_code,
                response.verification_uri,
                response.verification_uri_complete,
                response.life_seconds,
                response.interval_seconds,
            )

        return await self._with_grants(job, call)

    async def poll_device(self, job: Job) -> TokenOutcome:
        """Has it asked once whether a person has agreed."""

        async def call(wire: worker_pb2.Job) -> TokenOutcome:
            response = await self._peer.call(lambda stub: stub.PollDevice, worker_pb2.PollDeviceRequest(job=wire))
            return _outcome(response.outcome)

        return await self._with_grants(job, call)

    async def check(self, job: Job, *, rotation: bool) -> HealthOutcome:
        """Has a credential tried."""

        async def call(wire: worker_pb2.Job) -> HealthOutcome:
            request = worker_pb2.CheckHealthRequest(
                job=wire,
                record_class=int(job.record_class),  # type: ignore[arg-type]  # the stub's enum is a NewType of int
                rotation=rotation,
            )
            response = await self._peer.call(lambda stub: stub.CheckHealth, request)
            ends = response.rotate_time.ToDatetime(dt.UTC) if response.HasField("rotate_time") else None
            return HealthOutcome(response.failure, response.refused, ends)

        return await self._with_grants(job, call)

    async def refresh(self, job: Job) -> TokenOutcome:
        """Has a token refreshed and the answer stored."""

        async def call(wire: worker_pb2.Job) -> TokenOutcome:
            request = worker_pb2.RefreshRequest(job=wire)
            return _outcome((await self._peer.call(lambda stub: stub.Refresh, request)).outcome)

        return await self._with_grants(job, call)

    async def revoke(self, job: Job) -> RevokeOutcome:
        """Has a connection's tokens revoked."""

        async def call(wire: worker_pb2.Job) -> RevokeOutcome:
            response = await self._peer.call(lambda stub: stub.Revoke, worker_pb2.RevokeRequest(job=wire))
            return RevokeOutcome(response.revoked, response.failure, response.retryable, response.retry_after_seconds)

        return await self._with_grants(job, call)

    async def reseal(self, acting: Acting, target: str, classes: Sequence[RecordClass], fence: int) -> int:
        """Has records sealed again under their newest key version; gives how many were not."""

        async def call() -> int:
            request = worker_pb2.ResealRequest(
                workspace_id=acting.workspace,
                connection_id=target,
                record_classes=cast("Sequence[records_pb2.RecordClass.ValueType]", classes),
                grant=self._grants.for_reseal(acting, target, classes, self._thumbprint, fence),
                fence=fence,
                request_id=acting.request_id,
                consumer_thumbprint=self._thumbprint,
            )
            return (await self._peer.call(lambda stub: stub.Reseal, request)).resealed_count

        return await self._for_its_key(call)

    async def _with_grants(self, job: Job, call: Callable[[worker_pb2.Job], Awaitable[ResponseT]]) -> ResponseT:
        return await self._for_its_key(lambda: call(self._wire(job)))

    async def _for_its_key(self, call: Callable[[], Awaitable[ResponseT]]) -> ResponseT:
        if not self._thumbprint:
            await self.require_reachable()
        for _ in range(_KEYS_TRIED):
            try:
                return await call()
            except PeerRefused as error:
                # A worker that was restarted, or another replica, says so before it does anything, so again is safe.
                if error.reason != _KEY_CHANGED:
                    raise
                await self._learning.submit(True)
        return await call()

    async def _learn_keys(self, refused: Sequence[bool]) -> Sequence[None]:
        """Learns the key of the worker that is called from now on; the items say whether it was not the key that is known."""
        request = worker_pb2.GetConsumerKeyRequest()
        response = await self._peer.call_idempotent(lambda stub: stub.GetConsumerKey, request)
        learned = thumbprint(response.public_key)
        # Streams that stand lead to whom they led. They are left for another worker, not whenever one says that it is there.
        if learned != self._thumbprint or any(refused):
            self._peer.leave_streams()
        self._thumbprint = learned
        return [None] * len(refused)

    def _wire(self, job: Job) -> worker_pb2.Job:
        sign = self._grants
        return worker_pb2.Job(
            workspace_id=job.acting.workspace,
            connection_id=job.connection_id,
            provider_config_id=job.config.id,
            provider=job.config.provider,
            values=to_wire_values(job.config.entry, job.values),
            dialect=to_wire_dialect(job.config.entry),
            endpoints=to_wire_endpoints(job.endpoints),
            client_id=job.config.client_id,
            client_grant=sign.for_client(job.acting, job.config.id, job.config.secret_classes, self._thumbprint)
            if job.authenticate
            else "",
            credential_grant=sign.for_credential(
                job.purpose, job.acting, job.connection_id, self._thumbprint, fence=job.fence, forced=job.forced
            ),
            fence=job.fence,
            request_id=job.acting.request_id,
            consumer_thumbprint=self._thumbprint,
            scopes=job.scopes,
            spend=job.spend,
            spent_fence=job.spent_fence,
            client_secret_classes=job.config.secret_classes,  # type: ignore[arg-type]  # the stub's enum is a NewType of int
            renewal=RENEWALS[job.renewal],
        )


class _StoreStub(Protocol):
    @property
    def WithholdRecords(self) -> Callable[..., Awaitable[records_pb2.WithholdRecordsResponse]]: ...
    @property
    def DeleteRecords(self) -> Callable[..., Awaitable[records_pb2.DeleteRecordsResponse]]: ...
    @property
    def KeepRecords(self) -> Callable[..., Awaitable[records_pb2.KeepRecordsResponse]]: ...
    @property
    def RestoreRecords(self) -> Callable[..., Awaitable[records_pb2.RestoreRecordsResponse]]: ...


class StorePeer:
    """vault or clientsecrets.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[_StoreStub]) -> None:
        self._peer = peer

    async def withhold(self, workspace: str, connection: str, request_id: str) -> None:
        """Stops serving."""
        request = records_pb2.WithholdRecordsRequest(
            workspace_id=workspace, connection_id=connection, request_id=request_id
        )
        await self._peer.call_idempotent(lambda stub: stub.WithholdRecords, request)

    async def delete(self, workspace: str, connection: str, request_id: str) -> None:
        """Erases."""
        request = records_pb2.DeleteRecordsRequest(
            workspace_id=workspace, connection_id=connection, request_id=request_id
        )
        await self._peer.call_idempotent(lambda stub: stub.DeleteRecords, request)

    async def keep(self, workspace: str, connection: str, until: dt.datetime, request_id: str) -> None:
        """Keeps it sealed, to be taken back until then. vault alone does that."""
        request = records_pb2.KeepRecordsRequest(
            workspace_id=workspace, connection_id=connection, request_id=request_id
        )
        request.keep_until.FromDatetime(until)
        await self._peer.call_idempotent(lambda stub: stub.KeepRecords, request)

    async def restore(self, grant: str, request_id: str) -> None:
        """Takes back what was kept, under a grant for that. vault alone does that."""
        request = records_pb2.RestoreRecordsRequest(grant=grant, request_id=request_id)
        await self._peer.call_idempotent(lambda stub: stub.RestoreRecords, request)


class AuditPeer:
    """The audit log, before a token is spent.

    Args:
        sink: Where our events are delivered.
    """

    def __init__(self, sink: AuditSink) -> None:
        self._sink = sink
        self._asking: Coalescer[None, None] = Coalescer(self._ask, largest=_MANY)

    async def require_reachable(self) -> None:
        """Returns when the log and its database take events now. All that ask in the moment share one rpc.

        Raises:
            AuditUnavailableError: They do not.
        """
        await self._asking.submit(None)

    async def _ask(self, waiting: Sequence[None]) -> Sequence[None]:
        try:
            await self._sink.require_reachable()
        except (PeerUnavailable, PeerRefused):
            raise AuditUnavailableError from None
        return waiting


def to_wire_endpoints(endpoints: Endpoints) -> types_pb2.ProviderEndpoints:
    """Gives endpoints as they go over the wire."""
    return types_pb2.ProviderEndpoints(
        issuer=endpoints.issuer,
        authorization_endpoint=endpoints.authorization_endpoint,
        token_endpoint=endpoints.token_endpoint,
        revocation_endpoint=endpoints.revocation_endpoint,
        token_endpoint_auth_method=endpoints.auth_method,
        iss_required=endpoints.iss_required,
        refresh_endpoint=endpoints.refresh_endpoint,
        pushed_authorization_request_endpoint=endpoints.pushed_endpoint,
        device_authorization_endpoint=endpoints.device_endpoint,
        introspection_endpoint=endpoints.introspection_endpoint,
        userinfo_endpoint=endpoints.userinfo_endpoint,
        dpop=endpoints.dpop,
        temporary_credentials_endpoint=endpoints.temporary_endpoint,
    )


def to_wire_pairs(pairs: Pairs) -> list[types_pb2.Parameter]:
    """Gives names with values as they go over the wire."""
    return [types_pb2.Parameter(name=name, value=value) for name, value in pairs]


def to_wire_dialect(entry: Entry) -> types_pb2.Dialect:
    """Gives how a Provider is spoken to as it goes over the wire."""
    dialect, api, health = entry.dialect, entry.api or Api(), entry.health
    own, check = dialect.revocation, entry.rotation_check
    return types_pb2.Dialect(
        token_parameters=to_wire_pairs(dialect.token_parameters),
        refresh_parameters=to_wire_pairs(dialect.refresh_parameters),
        json_body=dialect.json_body,
        access_token_pointer=dialect.answer.access_token,
        refresh_token_pointer=dialect.answer.refresh_token,
        expires_in_pointer=dialect.answer.expires_in,
        scope_pointer=dialect.answer.scope,
        token_type_absent=dialect.answer.token_type_absent,
        metadata=to_wire_pairs(dialect.metadata),
        life_seconds=dialect.life_seconds,
        revocation=types_pb2.RevocationRequest(**own._asdict()) if own is not None else None,
        api_base_urls=api.base_urls,
        api_headers=to_wire_pairs(api.headers),
        access_token_placement=types_pb2.Placement(**api.token._asdict()),
        api_key_placement=types_pb2.Placement(**entry.api_key._asdict()) if entry.api_key is not None else None,
        health_check_url=health.url if health is not None else "",
        health_check_method=health.method if health is not None else "",
        public_key_pins=entry.pins,
        resource=dialect.resource,
        assertion=types_pb2.Assertion(**dialect.assertion._asdict()),
        two_step=_two_step(dialect.two_step) if dialect.two_step is not None else None,
        rotation_check_url=check.url if check is not None else "",
        rotation_check_pointer=check.pointer if check is not None else "",
        scope_separator=dialect.scope_separator,
        scope_parameter=dialect.scope_parameter,
        signature_method=dialect.signature_method,
        realm=dialect.realm,
        signing=_signing(entry.signing) if entry.signing is not None else None,
    )


def _signing(own: Signing) -> types_pb2.Signing:
    return types_pb2.Signing(
        **{**own._asdict(), "headers": to_wire_pairs(own.headers), "query": to_wire_pairs(own.query)}
    )


def _two_step(own: TwoStep) -> types_pb2.TwoStep:
    return types_pb2.TwoStep(
        method=own.method,
        json_body=own.json_body,
        headers=to_wire_pairs(own.headers),
        fields=to_wire_pairs(own.fields),
    )


def to_wire_values(entry: Entry, values: Pairs) -> list[types_pb2.ConnectionValue]:
    """Gives what the placeholders of a Provider's URLs are filled with as it goes over the wire."""
    filled = dict(values)
    return [
        types_pb2.ConnectionValue(name=rule.name, value=filled.get(rule.name, ""), one_of=rule.one_of)
        for rule in entry.values
    ]


def from_wire_endpoints(wire: types_pb2.ProviderEndpoints) -> Endpoints:
    """Gives endpoints as they came over the wire."""
    return Endpoints(
        wire.issuer,
        wire.authorization_endpoint,
        wire.token_endpoint,
        wire.revocation_endpoint,
        wire.token_endpoint_auth_method,
        wire.iss_required,
        wire.refresh_endpoint,
        wire.pushed_authorization_request_endpoint,
        wire.device_authorization_endpoint,
        wire.introspection_endpoint,
        wire.userinfo_endpoint,
        wire.dpop,
        wire.temporary_credentials_endpoint,
    )


def _outcome(wire: worker_pb2.TokenOutcome) -> TokenOutcome:
    expires = wire.expire_time.ToDatetime(dt.UTC) if wire.HasField("expire_time") else None
    return TokenOutcome(
        wire.failure,
        tuple(wire.scopes),
        expires,
        wire.refreshable,
        wire.retry_after_seconds,
        wire.nothing_sent,
        tuple((each.name, each.value) for each in wire.metadata),
    )
