"""Other services, in edge's own words. What is asked in one event-loop turn travels in one rpc."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from authpipe.audit.v1 import audit_pb2, audit_pb2_grpc
from authpipe.authority.v1 import authority_pb2, authority_pb2_grpc
from authpipe.oauth.v1 import coordinator_pb2 as pb
from authpipe.oauth.v1 import coordinator_pb2_grpc, types_pb2, worker_pb2, worker_pb2_grpc
from authpipe.types.v1 import events_pb2, records_pb2
from authpipe_gateway_edge.domain.proxying import Answered, Asked, Body
from authpipe_gateway_edge.domain.ports import Act
from authpipe_gateway_edge.domain.words import (
    Arrived,
    Caller,
    Choice,
    Connection,
    DeviceFlow,
    Event,
    EventFilter,
    Failing,
    Freshness,
    Health,
    NewConnection,
    NewProviderConfig,
    Pairs,
    Provider,
    ProviderConfig,
    ProxyRoute,
    Question,
    Verdict,
    WebhookScheme,
)
from authpipe_grants import thumbprint
from authpipe_rpc import Coalescer, Peer, PeerRefused
from authpipe_sensitive import Status

_CACHED_VERDICTS = 20_000
_CACHED_ROUTES, _ROUTE_SECONDS = 10_000, 30.0
_LONGEST_PROXY_SECONDS = 870.0
_STATES = {
    types_pb2.CONNECTION_STATE_ACTIVE: "active",
    types_pb2.CONNECTION_STATE_CONFIGURATION_ERROR: "configuration_error",
    types_pb2.CONNECTION_STATE_NEEDS_REAUTH: "needs_reauth",
    types_pb2.CONNECTION_STATE_DISCONNECTING: "disconnecting",
    types_pb2.CONNECTION_STATE_DISCONNECTED: "disconnected",
    types_pb2.CONNECTION_STATE_KEPT: "kept",
}
_KINDS = {
    types_pb2.CONNECTION_KIND_OAUTH2: "oauth2",
    types_pb2.CONNECTION_KIND_API_KEY: "api_key",
    types_pb2.CONNECTION_KIND_BASIC: "basic",
    types_pb2.CONNECTION_KIND_WEBHOOK_SECRET: "webhook_secret",
}
_KIND_NUMBERS = {name: number for number, name in _KINDS.items()}
_RENEWALS = {
    types_pb2.RENEWAL_REFRESH_TOKEN: "refresh_token",
    types_pb2.RENEWAL_CLIENT_CREDENTIALS: "client_credentials",
    types_pb2.RENEWAL_JWT_BEARER: "jwt_bearer",
    types_pb2.RENEWAL_TOKEN_EXCHANGE: "token_exchange",
    types_pb2.RENEWAL_TWO_STEP: "two_step",
}
_RENEWAL_NUMBERS = {name: number for number, name in _RENEWALS.items()} | {"": types_pb2.RENEWAL_UNSPECIFIED}


class AuthorityPeer:
    """authority, batched, its verdicts reused for as long as it says.

    Args:
        peer: The connection to it.
        public_key: The HPKE key to which grants are bound.
    """

    def __init__(self, peer: Peer[authority_pb2_grpc.AuthorityAsyncStub], public_key: bytes) -> None:
        self._peer = peer
        self._public_key = public_key
        self._cache: OrderedDict[tuple[object, ...], tuple[float, Verdict]] = OrderedDict()
        self._good_until: OrderedDict[tuple[bytes, Act], float] = OrderedDict()
        self._coalescer: Coalescer[authority_pb2.ActRequest, authority_pb2.Verdict] = Coalescer(self._send)

    async def authorize(
        self, caller: Caller, act: Act, target: str, classes: Sequence[int] = (), worker_thumbprint: str = ""
    ) -> Verdict:
        """Gives the verdict on an act.

        Raises:
            PeerRefused: It was refused.
            PeerUnavailable: authority is away.
        """
        # The hash, not the API key, is what stays in memory.
        key_hash = hashlib.sha256(caller.api_key.expose()).digest()
        key = (key_hash, act, target, tuple(classes), worker_thumbprint)
        kept, now = self._cache.get(key), time.monotonic()
        # Two clocks: the grants live half a minute, but the API key has to be known good as of a moment ago.
        if kept is not None and now < kept[0] and now < self._good_until.get((key_hash, act), 0):
            return kept[1]
        request = authority_pb2.ActRequest(
            api_key=bytes(caller.api_key.expose()),
            act=int(act),  # type: ignore[arg-type]  # the stub's enum is a NewType of int
            target=target,
            record_classes=classes,  # type: ignore[arg-type]
            request_id=caller.request_id,
            worker_thumbprint=worker_thumbprint,
        )
        answer = await self._coalescer.submit(request)
        if answer.HasField("refusal"):
            self._good_until.pop((key_hash, act), None)
            raise PeerRefused(answer.refusal.reason, Status(answer.refusal.code))
        verdict = Verdict(answer.workspace_id, answer.record_grant, answer.manage_grant)
        self._good_until[key_hash, act] = now + answer.reuse_ms / 1000
        self._cache[key] = (now + answer.grant_reuse_ms / 1000, verdict)
        while len(self._cache) > _CACHED_VERDICTS:
            self._cache.popitem(last=False)
        while len(self._good_until) > _CACHED_VERDICTS:
            self._good_until.popitem(last=False)
        return verdict

    async def report_violation(self, verdict: Verdict, request_id: str) -> None:
        """Has it put on record that a record did not open here."""
        request = authority_pb2.ReportIntegrityViolationRequest(
            record_grant=verdict.record_grant, request_id=request_id
        )
        await self._peer.call(lambda stub: stub.ReportIntegrityViolation, request)

    async def _send(self, items: Sequence[authority_pb2.ActRequest]) -> Sequence[authority_pb2.Verdict | Exception]:
        request = authority_pb2.AuthorizeRequest(consumer_public_key=self._public_key, items=items)
        return (await self._peer.call_idempotent(lambda stub: stub.Authorize, request)).items


class MaskedPeer:
    """The masked prefixes of a store.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[Any]) -> None:
        self._peer = peer

    async def masked(self, verdict: Verdict, ids: Sequence[str], classes: Sequence[int] = ()) -> dict[str, str]:
        """Gives the masked prefix of each that has a record: of these classes, or of what may be served."""
        if not ids:
            return {}
        refs = [
            records_pb2.RecordRef(
                workspace_id=verdict.workspace,
                connection_id=each,
                record_class=record_class,  # type: ignore[arg-type]
            )
            for each, record_class in zip(ids, classes or [0] * len(ids), strict=True)
        ]
        request = records_pb2.GetMaskedRequest(items=refs, grant=verdict.manage_grant)
        response = await self._peer.call_idempotent(lambda stub: stub.GetMasked, request)
        return {each: item.masked for each, item in zip(ids, response.items, strict=True) if item.masked}


class CoordinatorPeer:
    """coordinator.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[coordinator_pb2_grpc.CoordinatorAsyncStub]) -> None:
        self._peer = peer
        self._routes: OrderedDict[tuple[str, str], tuple[float, ProxyRoute]] = OrderedDict()
        self._freshening: dict[tuple[str, str, int], asyncio.Task[Freshness]] = {}

    async def draft_config(self, verdict: Verdict, new: NewProviderConfig, request_id: str) -> ProviderConfig:
        """Pins a Provider's endpoints under a new id."""
        request = pb.DraftProviderConfigRequest(
            grant=verdict.manage_grant,
            provider=new.provider,
            issuer=new.issuer,
            client_id=new.client_id,
            scopes=new.scopes,
            redirect_uris=new.redirect_uris,
            display_name=new.display_name,
            request_id=request_id,
            token_endpoint_auth_method=new.auth_method,
            bearer_only=new.bearer_only,
        )
        if new.authorization_endpoint or new.token_endpoint:
            request.endpoints.CopyFrom(
                types_pb2.ProviderEndpoints(
                    authorization_endpoint=new.authorization_endpoint,
                    token_endpoint=new.token_endpoint,
                    revocation_endpoint=new.revocation_endpoint,
                    token_endpoint_auth_method=new.auth_method,
                )
            )
        return _config((await self._peer.call(lambda stub: stub.DraftProviderConfig, request)).provider_config)

    async def activate_config(self, verdict: Verdict, config_id: str, request_id: str) -> ProviderConfig:
        """Makes a draft usable."""
        request = pb.ActivateProviderConfigRequest(grant=verdict.manage_grant, id=config_id, request_id=request_id)
        response = await self._peer.call_idempotent(lambda stub: stub.ActivateProviderConfig, request)
        return _config(response.provider_config)

    async def get_config(self, verdict: Verdict, config_id: str) -> ProviderConfig:
        """Gives one."""
        request = pb.GetProviderConfigRequest(grant=verdict.manage_grant, id=config_id)
        return _config((await self._peer.call_idempotent(lambda stub: stub.GetProviderConfig, request)).provider_config)

    async def list_configs(self, verdict: Verdict, size: int, token: str) -> tuple[list[ProviderConfig], str]:
        """Lists them."""
        request = pb.ListProviderConfigsRequest(grant=verdict.manage_grant, page_size=size, page_token=token)
        response = await self._peer.call_idempotent(lambda stub: stub.ListProviderConfigs, request)
        return [_config(each) for each in response.provider_configs], response.next_page_token

    async def update_config(  # one per field that may change
        self, verdict: Verdict, config_id: str, scopes: Sequence[str], uris: Sequence[str], name: str, request_id: str
    ) -> ProviderConfig:
        """Changes one."""
        request = pb.UpdateProviderConfigRequest(
            grant=verdict.manage_grant,
            id=config_id,
            scopes=scopes,
            redirect_uris=uris,
            display_name=name,
            request_id=request_id,
        )
        return _config((await self._peer.call(lambda stub: stub.UpdateProviderConfig, request)).provider_config)

    async def activate_secret(
        self, verdict: Verdict, config_id: str, record_class: int, request_id: str
    ) -> ProviderConfig:
        """Takes a further client secret into use."""
        request = pb.ActivateClientSecretRequest(
            grant=verdict.manage_grant, id=config_id, record_class=record_class, request_id=request_id
        )
        response = await self._peer.call_idempotent(lambda stub: stub.ActivateClientSecret, request)
        return _config(response.provider_config)

    async def retire_secret(self, verdict: Verdict, config_id: str, request_id: str) -> tuple[ProviderConfig, int]:
        """Takes the older client secret out of use; gives where it is stored."""
        request = pb.RetireClientSecretRequest(grant=verdict.manage_grant, id=config_id, request_id=request_id)
        response = await self._peer.call(lambda stub: stub.RetireClientSecret, request)
        return _config(response.provider_config), response.retired_class

    async def begin_device(
        self, verdict: Verdict, config_id: str, end_user_id: str, values: Pairs, request_id: str
    ) -> DeviceFlow:
        """Begins a device flow."""
        request = pb.BeginDeviceFlowRequest(
            grant=verdict.manage_grant,
            provider_config_id=config_id,
            end_user_id=end_user_id,
            values=_parameters(values),
            request_id=request_id,
        )
        begun = await self._peer.call(lambda stub: stub.BeginDeviceFlow, request)
        return DeviceFlow(
            begun.connection_id,
            "pending",
            begun.user_code,
            begun.verification_uri,
            begun.verification_uri_complete,
            begun.expire_time.ToDatetime(dt.UTC),
        )

    async def device(self, verdict: Verdict, connection_id: str) -> DeviceFlow:
        """Says how far a device flow is."""
        request = pb.GetDeviceFlowRequest(grant=verdict.manage_grant, connection_id=connection_id)
        response = await self._peer.call_idempotent(lambda stub: stub.GetDeviceFlow, request)
        return DeviceFlow(connection_id, response.status)

    async def webhook_scheme(self, verdict: Verdict, connection_id: str) -> WebhookScheme | None:
        """Gives how a connection's Provider signs; None: its entry does not say."""
        request = pb.GetWebhookSchemeRequest(grant=verdict.manage_grant, connection_id=connection_id)
        response = await self._peer.call_idempotent(lambda stub: stub.GetWebhookScheme, request)
        if not response.HasField("scheme"):
            return None
        return WebhookScheme(*(getattr(response.scheme, name) for name in WebhookScheme._fields))

    async def check(self, verdict: Verdict, connection_id: str, request_id: str) -> Connection:
        """Has a credential tried."""
        request = pb.CheckConnectionRequest(
            grant=verdict.manage_grant, connection_id=connection_id, request_id=request_id
        )
        return _connection((await self._peer.call(lambda stub: stub.CheckConnection, request)).connection)

    async def reconnect(self, verdict: Verdict, connection_id: str, request_id: str) -> Connection:
        """Takes a connection back that was kept."""
        request = pb.ReconnectRequest(
            grant=verdict.manage_grant,
            record_grant=verdict.record_grant,
            connection_id=connection_id,
            request_id=request_id,
        )
        return _connection((await self._peer.call_idempotent(lambda stub: stub.Reconnect, request)).connection)

    async def delete_config(self, verdict: Verdict, config_id: str, request_id: str) -> None:
        """Deletes one."""
        request = pb.DeleteProviderConfigRequest(grant=verdict.manage_grant, id=config_id, request_id=request_id)
        await self._peer.call(lambda stub: stub.DeleteProviderConfig, request)

    async def create_session(
        self,
        verdict: Verdict,
        end_user_id: str,
        config_ids: Sequence[str],
        values: Pairs,
        connection_id: str,
        request_id: str,
    ) -> tuple[str, dt.datetime]:
        """Makes a connect session."""
        request = pb.CreateConnectSessionRequest(
            grant=verdict.manage_grant,
            end_user_id=end_user_id,
            provider_config_ids=config_ids,
            request_id=request_id,
            values=_parameters(values),
            connection_id=connection_id,
        )
        response = await self._peer.call(lambda stub: stub.CreateConnectSession, request)
        return response.session_token, response.expire_time.ToDatetime(dt.UTC)

    async def choices(self, session: str) -> list[Choice]:
        """Gives what the hosted page shows."""
        request = pb.GetConnectSessionRequest(session_token=session)
        response = await self._peer.call_idempotent(lambda stub: stub.GetConnectSession, request)
        return [
            Choice(
                each.provider_config_id,
                each.display_name,
                each.authorization_origin,
                tuple(map(_question, each.questions)),
            )
            for each in response.choices
        ]

    async def list_providers(self, verdict: Verdict) -> list[Provider]:
        """Lists what is known."""
        request = pb.ListProvidersRequest(grant=verdict.manage_grant)
        response = await self._peer.call_idempotent(lambda stub: stub.ListProviders, request)
        return [_provider(each) for each in response.providers]

    async def get_provider(self, verdict: Verdict, name: str) -> str:
        """Gives the entry of a Provider."""
        request = pb.GetProviderRequest(grant=verdict.manage_grant, name=name)
        return (await self._peer.call_idempotent(lambda stub: stub.GetProvider, request)).document

    async def add_provider(self, verdict: Verdict, document: str, request_id: str) -> Provider:
        """Describes a Provider."""
        request = pb.AddProviderRequest(grant=verdict.manage_grant, document=document, request_id=request_id)
        return _provider((await self._peer.call(lambda stub: stub.AddProvider, request)).provider)

    async def delete_provider(self, verdict: Verdict, name: str, request_id: str) -> None:
        """Deletes such a description."""
        request = pb.DeleteProviderRequest(grant=verdict.manage_grant, name=name, request_id=request_id)
        await self._peer.call(lambda stub: stub.DeleteProvider, request)

    async def begin(  # each is needed
        self, session: str, config_id: str, binding: bytes, redirect_uri: str, request_id: str, values: Pairs
    ) -> str:
        """Begins a flow; gives the authorization URL."""
        request = pb.BeginFlowRequest(
            session_token=session,
            provider_config_id=config_id,
            browser_binding=binding,
            redirect_uri=redirect_uri,
            request_id=request_id,
            values=_parameters(values),
        )
        return (await self._peer.call(lambda stub: stub.BeginFlow, request)).authorization_url

    async def complete(self, state: str, binding: bytes, code: str, iss: str, *, denied: bool, request_id: str) -> str:
        """Ends a flow; gives the connection."""
        request = pb.CompleteFlowRequest(
            state=state,
            browser_binding=binding,
            code=code,
            iss=iss,
            provider_refused=denied,
            request_id=request_id,
        )
        return (await self._peer.call(lambda stub: stub.CompleteFlow, request)).connection_id

    async def draft_connection(self, verdict: Verdict, new: NewConnection, request_id: str) -> tuple[str, str, bytes]:
        """Reserves an id; gives it with provider and hosts digest."""
        request = pb.DraftConnectionRequest(
            grant=verdict.manage_grant,
            kind=_KIND_NUMBERS[new.kind],
            end_user_id=new.end_user_id,
            provider=new.provider,
            provider_config_id=new.provider_config_id,
            allowed_hosts=new.allowed_hosts,
            request_id=request_id,
            values=_parameters(new.values),
            renewal=_RENEWAL_NUMBERS[new.renewal],
            rotate_time=_wire_time(new.rotate_at),
        )
        response = await self._peer.call(lambda stub: stub.DraftConnection, request)
        return response.connection_id, response.provider, response.hosts_digest

    async def activate_connection(
        self, verdict: Verdict, connection_id: str, new: NewConnection, request_id: str
    ) -> Connection:
        """Makes an imported connection usable."""
        request = pb.ActivateConnectionRequest(
            grant=verdict.manage_grant,
            connection_id=connection_id,
            scopes=new.scopes,
            expire_time=_wire_time(new.expires_at),
            refreshable=bool(new.refresh_token),
            request_id=request_id,
        )
        return _connection((await self._peer.call(lambda stub: stub.ActivateConnection, request)).connection)

    async def get_connection(self, verdict: Verdict, connection_id: str) -> Connection:
        """Gives a connection."""
        request = pb.GetConnectionRequest(grant=verdict.manage_grant, id=connection_id)
        return _connection((await self._peer.call_idempotent(lambda stub: stub.GetConnection, request)).connection)

    async def list_connections(
        self, verdict: Verdict, end_user_id: str, size: int, token: str
    ) -> tuple[list[Connection], str]:
        """Lists connections."""
        request = pb.ListConnectionsRequest(
            grant=verdict.manage_grant, end_user_id=end_user_id, page_size=size, page_token=token
        )
        response = await self._peer.call_idempotent(lambda stub: stub.ListConnections, request)
        return [_connection(each) for each in response.connections], response.next_page_token

    async def ensure_fresh(
        self, verdict: Verdict, connection_id: str, min_ttl_seconds: int, *, force: bool, request_id: str
    ) -> Freshness:
        """Has a token refreshed unless it lives long enough. Those who ask for the same in the moment share one call."""
        if force:
            return await self._ensure_fresh(verdict, connection_id, min_ttl_seconds, force=True, request_id=request_id)
        key = (verdict.workspace, connection_id, min_ttl_seconds)
        call = self._freshening.get(key)
        if call is None:
            asked = self._ensure_fresh(verdict, connection_id, min_ttl_seconds, force=False, request_id=request_id)
            call = self._freshening[key] = asyncio.create_task(asked, name="ensure fresh")
            call.add_done_callback(lambda _: self._freshening.pop(key, None))
        # Shielded: a caller that goes away does not take it from the others.
        return await asyncio.shield(call)

    async def _ensure_fresh(
        self, verdict: Verdict, connection_id: str, min_ttl_seconds: int, *, force: bool, request_id: str
    ) -> Freshness:
        request = pb.EnsureFreshRequest(
            grant=verdict.manage_grant,
            connection_id=connection_id,
            min_ttl_seconds=min_ttl_seconds,
            force=force,
            request_id=request_id,
        )
        response = await self._peer.call(lambda stub: stub.EnsureFresh, request)
        return Freshness(_connection(response.connection), response.pending)

    async def proxy_route(self, verdict: Verdict, connection_id: str) -> ProxyRoute:
        """Gives where a Provider's API is, as it was a moment ago at most: what may be sent there is not decided by it."""
        key, now = (verdict.workspace, connection_id), time.monotonic()
        kept = self._routes.get(key)
        if kept is not None and now < kept[0]:
            return kept[1]
        request = pb.GetProxyRouteRequest(grant=verdict.manage_grant, connection_id=connection_id)
        response = await self._peer.call_idempotent(lambda stub: stub.GetProxyRoute, request)
        route = ProxyRoute(response.SerializeToString())
        self._routes[key] = (now + _ROUTE_SECONDS, route)
        while len(self._routes) > _CACHED_ROUTES:
            self._routes.popitem(last=False)
        return route

    async def disconnect(self, verdict: Verdict, connection_id: str, keep_days: int, request_id: str) -> Connection:
        """Disconnects."""
        request = pb.DisconnectRequest(
            grant=verdict.manage_grant, connection_id=connection_id, request_id=request_id, keep_days=keep_days
        )
        return _connection((await self._peer.call_idempotent(lambda stub: stub.Disconnect, request)).connection)


class WorkerPeer:
    """The worker, for the proxy.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[worker_pb2_grpc.WorkerAsyncStub]) -> None:
        self._peer = peer
        self._thumbprint = ""

    async def thumbprint(self, *, anew: bool) -> str:
        """Gives the thumbprint of its HPKE key, which it makes anew when it starts."""
        if anew or not self._thumbprint:
            request = worker_pb2.GetConsumerKeyRequest()
            response = await self._peer.call_idempotent(lambda stub: stub.GetConsumerKey, request)
            self._thumbprint = thumbprint(response.public_key)
        return self._thumbprint

    async def verify_webhook(
        self,
        verdict: Verdict,
        connection_id: str,
        scheme: WebhookScheme,
        arrived: Arrived,
        request_id: str,
        thumbprint: str,
    ) -> str:
        """Says why what came is not believed; empty: it is."""
        request = worker_pb2.VerifyWebhookRequest(
            workspace_id=verdict.workspace,
            connection_id=connection_id,
            credential_grant=verdict.record_grant,
            consumer_thumbprint=thumbprint,
            request_id=request_id,
            scheme=types_pb2.WebhookScheme(**scheme._asdict()),
            headers=[
                worker_pb2.Header(name=name.lower(), value=value.encode("latin-1", "replace"))
                for name, value in arrived.headers
            ],
            body=arrived.body,
        )
        response = await self._peer.call_idempotent(lambda stub: stub.VerifyWebhook, request)
        return "" if response.valid else response.reason

    async def proxy(
        self, route: ProxyRoute, verdict: Verdict, asked: Asked, body: Body, request_id: str, thumbprint: str
    ) -> AsyncIterator[Answered | bytes]:
        """Has a request carried; gives the head of the answer, then its body."""
        found = pb.GetProxyRouteResponse.FromString(route.packed)
        head = worker_pb2.ProxyHead(
            job=worker_pb2.Job(
                workspace_id=verdict.workspace,
                connection_id=asked.connection,
                provider=found.provider,
                endpoints=found.endpoints,
                dialect=found.dialect,
                values=found.values,
                credential_grant=verdict.record_grant,
                request_id=request_id,
                consumer_thumbprint=thumbprint,
            ),
            method=asked.method,
            base_url=asked.base_url,
            path=asked.path,
            query=asked.query,
            headers=[worker_pb2.Header(name=name, value=value) for name, value in asked.headers],
            has_body=not body.is_empty,
            content_length=asked.content_length,
        )

        async def parts() -> AsyncIterator[worker_pb2.ProxyRequest]:
            yield worker_pb2.ProxyRequest(head=head)
            if not body.is_empty:
                async for piece in body.pieces():
                    yield worker_pb2.ProxyRequest(body=piece)

        answer = self._peer.stream(lambda stub: stub.Proxy, parts(), _LONGEST_PROXY_SECONDS)
        async with aclosing(answer):  # type: ignore[type-var]  # it is a generator
            async for part in answer:
                if part.WhichOneof("part") == "head":
                    headers = tuple((each.name, each.value) for each in part.head.headers)
                    yield Answered(part.head.status, headers)
                else:
                    yield part.body


class AuditPeer:
    """The audit log.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[audit_pb2_grpc.AuditAsyncStub]) -> None:
        self._peer = peer

    async def list_events(self, verdict: Verdict, wanted: EventFilter) -> tuple[list[Event], str]:
        """Gives a page of events, newest first."""
        number = events_pb2.EventName.DESCRIPTOR.values_by_name.get(f"EVENT_NAME_{wanted.event}")
        if wanted.event and number is None:
            return [], ""
        request = audit_pb2.ListRequest(
            grant=verdict.manage_grant,
            name=number.number if wanted.event and number else 0,  # type: ignore[arg-type]
            target=wanted.target,
            since=_wire_time(wanted.since),
            until=_wire_time(wanted.until),
            page_size=wanted.page_size,
            page_token=wanted.page_token,
        )
        response = await self._peer.call_idempotent(lambda stub: stub.List, request)
        return [_event(each) for each in response.events], response.next_page_token


def _event(logged: audit_pb2.LoggedEvent) -> Event:
    event = logged.event
    return Event(
        event_id=event.event_id,
        name=events_pb2.EventName.Name(event.name).removeprefix("EVENT_NAME_"),
        time=event.time.ToDatetime(dt.UTC),
        emitter=event.emitter,
        sequence=event.sequence,
        workspace=event.workspace_id,
        actor=event.actor,
        target=event.target,
        purpose=_word(records_pb2.Purpose.Name(event.purpose), "PURPOSE_"),
        record_class=_word(records_pb2.RecordClass.Name(event.record_class), "RECORD_CLASS_"),
        record_version=event.record_version,
        outcome=_word(events_pb2.Outcome.Name(event.outcome), "OUTCOME_"),
        reason=event.reason,
        request_id=event.request_id,
        grant_id=event.grant_id,
        leaf_index=logged.leaf_index,
    )


def _word(name: str, prefix: str) -> str:
    word = name.removeprefix(prefix)
    return "" if word == "UNSPECIFIED" else word.lower()


def _wire_time(moment: dt.datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    wire = Timestamp()
    wire.FromDatetime(moment)
    return wire


def _config(wire: types_pb2.ProviderConfig) -> ProviderConfig:
    endpoints = wire.endpoints
    return ProviderConfig(
        id=wire.id,
        provider=wire.provider,
        display_name=wire.display_name,
        client_id=wire.client_id,
        scopes=tuple(wire.scopes),
        redirect_uris=tuple(wire.redirect_uris),
        issuer=endpoints.issuer,
        authorization_endpoint=endpoints.authorization_endpoint,
        token_endpoint=endpoints.token_endpoint,
        revocation_endpoint=endpoints.revocation_endpoint,
        auth_method=endpoints.token_endpoint_auth_method,
        created_at=wire.create_time.ToDatetime(dt.UTC),
        hosts=wire.hosts_digest,
        questions=tuple(map(_question, wire.values)),
        secret_classes=tuple(wire.client_secret_classes),
        grants=tuple(wire.grants),
        dpop=endpoints.dpop,
    )


def _parameters(values: Pairs) -> list[types_pb2.Parameter]:
    return [types_pb2.Parameter(name=name, value=value) for name, value in values]


def _question(wire: types_pb2.ValueQuestion) -> Question:
    return Question(wire.name, wire.title, wire.description, wire.example, tuple(wire.one_of))


def _provider(wire: pb.Provider) -> Provider:
    questions = tuple(map(_question, wire.values))
    return Provider(wire.name, wire.display_name, tuple(wire.kinds), wire.own, tuple(wire.notes), questions)


def _connection(wire: types_pb2.Connection) -> Connection:
    return Connection(
        id=wire.id,
        state=_STATES[wire.state],
        state_reason=wire.state_reason,
        kind=_KINDS[wire.kind],
        provider=wire.provider,
        provider_config_id=wire.provider_config_id,
        end_user_id=wire.end_user_id,
        scopes=tuple(wire.scopes),
        expires_at=wire.expire_time.ToDatetime(dt.UTC) if wire.HasField("expire_time") else None,
        refreshable=wire.refreshable,
        created_at=wire.create_time.ToDatetime(dt.UTC),
        state_at=wire.state_time.ToDatetime(dt.UTC),
        state_help=wire.state_help,
        failing=_failing(wire.refresh_failure) if wire.HasField("refresh_failure") else None,
        values=tuple((each.name, each.value) for each in wire.values),
        metadata=tuple((each.name, each.value) for each in wire.metadata),
        renewal=_RENEWALS.get(wire.renewal, ""),
        health=_health(wire.health) if wire.HasField("health") else None,
        rotate_at=wire.rotate_time.ToDatetime(dt.UTC) if wire.HasField("rotate_time") else None,
        rotation_due=wire.rotation_due,
        keep_until=wire.keep_until.ToDatetime(dt.UTC) if wire.HasField("keep_until") else None,
    )


def _health(wire: types_pb2.Health) -> Health:
    return Health(wire.state, wire.reason, wire.check_time.ToDatetime(dt.UTC))


def _failing(wire: types_pb2.RefreshFailure) -> Failing:
    retry_at = wire.retry_time.ToDatetime(dt.UTC) if wire.HasField("retry_time") else None
    return Failing(wire.reason, wire.help, wire.attempts, wire.since_time.ToDatetime(dt.UTC), retry_at)
