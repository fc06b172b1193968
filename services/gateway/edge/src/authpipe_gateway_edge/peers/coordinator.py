"""coordinator, in edge's own words."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections import OrderedDict
from collections.abc import Sequence


from authpipe.oauth.v1 import coordinator_pb2 as pb
from authpipe.oauth.v1 import coordinator_pb2_grpc, types_pb2
from authpipe_gateway_edge.domain.words import (
    Choice,
    Connection,
    DeviceFlow,
    Freshness,
    NewConnection,
    NewProviderConfig,
    Pairs,
    Provider,
    ProviderConfig,
    ProxyRoute,
    Verdict,
    WebhookScheme,
)
from authpipe_gateway_edge.peers.reading import (
    KIND_NUMBERS,
    RENEWAL_NUMBERS,
    read_config,
    read_connection,
    read_provider,
    read_question,
    to_parameters,
    to_time,
)
from authpipe_rpc import Peer

_CACHED_ROUTES, _ROUTE_SECONDS = 10_000, 30.0


class CoordinatorPeer:
    """coordinator.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[coordinator_pb2_grpc.CoordinatorAsyncStub]) -> None:
        self._peer = peer
        self._routes: OrderedDict[tuple[str, str, str], tuple[float, ProxyRoute]] = OrderedDict()
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
        return read_config((await self._peer.call(lambda stub: stub.DraftProviderConfig, request)).provider_config)

    async def activate_config(self, verdict: Verdict, config_id: str, request_id: str) -> ProviderConfig:
        """Makes a draft usable."""
        request = pb.ActivateProviderConfigRequest(grant=verdict.manage_grant, id=config_id, request_id=request_id)
        response = await self._peer.call_idempotent(lambda stub: stub.ActivateProviderConfig, request)
        return read_config(response.provider_config)

    async def get_config(self, verdict: Verdict, config_id: str) -> ProviderConfig:
        """Gives one."""
        request = pb.GetProviderConfigRequest(grant=verdict.manage_grant, id=config_id)
        return read_config(
            (await self._peer.call_idempotent(lambda stub: stub.GetProviderConfig, request)).provider_config
        )

    async def list_configs(self, verdict: Verdict, size: int, token: str) -> tuple[list[ProviderConfig], str]:
        """Lists them."""
        request = pb.ListProviderConfigsRequest(grant=verdict.manage_grant, page_size=size, page_token=token)
        response = await self._peer.call_idempotent(lambda stub: stub.ListProviderConfigs, request)
        return [read_config(each) for each in response.provider_configs], response.next_page_token

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
        return read_config((await self._peer.call(lambda stub: stub.UpdateProviderConfig, request)).provider_config)

    async def activate_secret(
        self, verdict: Verdict, config_id: str, record_class: int, request_id: str
    ) -> ProviderConfig:
        """Takes a further client secret into use."""
        request = pb.ActivateClientSecretRequest(
            grant=verdict.manage_grant, id=config_id, record_class=record_class, request_id=request_id
        )
        response = await self._peer.call_idempotent(lambda stub: stub.ActivateClientSecret, request)
        return read_config(response.provider_config)

    async def retire_secret(self, verdict: Verdict, config_id: str, request_id: str) -> tuple[ProviderConfig, int]:
        """Takes the older client secret out of use; gives where it is stored."""
        request = pb.RetireClientSecretRequest(grant=verdict.manage_grant, id=config_id, request_id=request_id)
        response = await self._peer.call(lambda stub: stub.RetireClientSecret, request)
        return read_config(response.provider_config), response.retired_class

    async def begin_device(
        self, verdict: Verdict, config_id: str, end_user_id: str, values: Pairs, request_id: str
    ) -> DeviceFlow:
        """Begins a device flow."""
        request = pb.BeginDeviceFlowRequest(
            grant=verdict.manage_grant,
            provider_config_id=config_id,
            end_user_id=end_user_id,
            values=to_parameters(values),
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
        return read_connection((await self._peer.call(lambda stub: stub.CheckConnection, request)).connection)

    async def reconnect(self, verdict: Verdict, connection_id: str, request_id: str) -> Connection:
        """Takes a connection back that was kept."""
        request = pb.ReconnectRequest(
            grant=verdict.manage_grant,
            record_grant=verdict.record_grant,
            connection_id=connection_id,
            request_id=request_id,
        )
        return read_connection((await self._peer.call_idempotent(lambda stub: stub.Reconnect, request)).connection)

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
            values=to_parameters(values),
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
                tuple(map(read_question, each.questions)),
            )
            for each in response.choices
        ]

    async def list_providers(self, verdict: Verdict) -> list[Provider]:
        """Lists what is known."""
        request = pb.ListProvidersRequest(grant=verdict.manage_grant)
        response = await self._peer.call_idempotent(lambda stub: stub.ListProviders, request)
        return [read_provider(each) for each in response.providers]

    async def get_provider(self, verdict: Verdict, name: str) -> str:
        """Gives the entry of a Provider."""
        request = pb.GetProviderRequest(grant=verdict.manage_grant, name=name)
        return (await self._peer.call_idempotent(lambda stub: stub.GetProvider, request)).document

    async def add_provider(self, verdict: Verdict, document: str, request_id: str) -> Provider:
        """Describes a Provider."""
        request = pb.AddProviderRequest(grant=verdict.manage_grant, document=document, request_id=request_id)
        return read_provider((await self._peer.call(lambda stub: stub.AddProvider, request)).provider)

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
            values=to_parameters(values),
        )
        return (await self._peer.call(lambda stub: stub.BeginFlow, request)).authorization_url

    async def complete(
        self, state: str, binding: bytes, code: str, iss: str, oauth_token: str, *, denied: bool, request_id: str
    ) -> str:
        """Ends a flow; gives the connection."""
        request = pb.CompleteFlowRequest(
            state=state,
            browser_binding=binding,
            code=code,
            iss=iss,
            provider_refused=denied,
            request_id=request_id,
            oauth_token=oauth_token,
        )
        return (await self._peer.call(lambda stub: stub.CompleteFlow, request)).connection_id

    async def draft_connection(self, verdict: Verdict, new: NewConnection, request_id: str) -> tuple[str, str, bytes]:
        """Reserves an id; gives it with provider and hosts digest."""
        request = pb.DraftConnectionRequest(
            grant=verdict.manage_grant,
            kind=KIND_NUMBERS[new.kind],
            end_user_id=new.end_user_id,
            provider=new.provider,
            provider_config_id=new.provider_config_id,
            allowed_hosts=new.allowed_hosts,
            request_id=request_id,
            values=to_parameters(new.values),
            renewal=RENEWAL_NUMBERS[new.renewal],
            rotate_time=to_time(new.rotate_at),
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
            expire_time=to_time(new.expires_at),
            refreshable=bool(new.refresh_token),
            request_id=request_id,
        )
        return read_connection((await self._peer.call(lambda stub: stub.ActivateConnection, request)).connection)

    async def get_connection(self, verdict: Verdict, connection_id: str) -> Connection:
        """Gives a connection."""
        request = pb.GetConnectionRequest(grant=verdict.manage_grant, id=connection_id)
        return read_connection((await self._peer.call_idempotent(lambda stub: stub.GetConnection, request)).connection)

    async def list_connections(
        self, verdict: Verdict, end_user_id: str, size: int, token: str
    ) -> tuple[list[Connection], str]:
        """Lists connections."""
        request = pb.ListConnectionsRequest(
            grant=verdict.manage_grant, end_user_id=end_user_id, page_size=size, page_token=token
        )
        response = await self._peer.call_idempotent(lambda stub: stub.ListConnections, request)
        return [read_connection(each) for each in response.connections], response.next_page_token

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
        return Freshness(read_connection(response.connection), response.pending)

    async def proxy_route(self, verdict: Verdict, connection_id: str, worker_thumbprint: str) -> ProxyRoute:
        """Gives where a Provider's API is, as it was a moment ago at most: what may be sent there is not decided by it.

        A grant that it carries is good for a minute, which is twice as long as it is kept.
        """
        key, now = (verdict.workspace, connection_id, worker_thumbprint), time.monotonic()
        kept = self._routes.get(key)
        if kept is not None and now < kept[0]:
            return kept[1]
        request = pb.GetProxyRouteRequest(
            grant=verdict.manage_grant, connection_id=connection_id, worker_thumbprint=worker_thumbprint
        )
        response = await self._peer.call_idempotent(lambda stub: stub.GetProxyRoute, request)
        route = ProxyRoute(response.SerializeToString())
        self._routes[key] = (now + _ROUTE_SECONDS, route)
        while len(self._routes) > _CACHED_ROUTES:
            self._routes.popitem(last=False)
        return route

    async def erase_end_user(self, verdict: Verdict, end_user_id: str, request_id: str) -> int:
        """Erases everything of one end user; gives how many connections there were."""
        request = pb.EraseEndUserRequest(grant=verdict.manage_grant, end_user_id=end_user_id, request_id=request_id)
        return (await self._peer.call_idempotent(lambda stub: stub.EraseEndUser, request)).disconnected_count

    async def disconnect(self, verdict: Verdict, connection_id: str, keep_days: int, request_id: str) -> Connection:
        """Disconnects."""
        request = pb.DisconnectRequest(
            grant=verdict.manage_grant, connection_id=connection_id, request_id=request_id, keep_days=keep_days
        )
        return read_connection((await self._peer.call_idempotent(lambda stub: stub.Disconnect, request)).connection)
