"""Provider configurations, connections, tokens, the log."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable


from authpipe.gateway.v1 import gateway_pb2 as pb
from authpipe_gateway_edge.domain import logged, words
from authpipe_gateway_edge.domain.importing import Importing
from authpipe_gateway_edge.domain.managing import Managing
from authpipe_gateway_edge.domain.sources import Sources
from authpipe_gateway_edge.domain.serving import Serving
from authpipe_gateway_edge.domain.proving import Proving
from authpipe_gateway_edge.domain.webhooks import Webhooks
from authpipe_gateway_edge.domain.words import Caller
from authpipe_gateway_edge.errors import MalformedRequestError
from authpipe_gateway_edge.servicer.public import (
    Context,
    PublicServicer,
    abort_call,
    after,
    page_size,
    to_wire_time,
)
from authpipe_gateway_edge.servicer.showing import (
    config_shown,
    connection_shown,
    device_shown,
    event_shown,
    provider_shown,
)
from authpipe_gateway_edge.rest.problems import new_request_id
from authpipe_sensitive import Label, Secret

_LONGEST_KEPT_DAYS = 30


class GatewayServicer(PublicServicer):
    """Serves authpipe.gateway.v1.Gateway.

    Args:
        serving: The rules over values.
        managing: The rules over names.
        importing: The rules over what is brought.
        webhooks: The rules over webhooks' signatures.
        proving: The rules over proofs of keys.
        sources: Tells where requests come from.
        public_url: How browsers reach us.
    """

    def __init__(
        self,
        serving: Serving,
        managing: Managing,
        importing: Importing,
        webhooks: Webhooks,
        proving: Proving,
        sources: Sources,
        public_url: str,
    ) -> None:
        super().__init__(sources)
        self._webhooks = webhooks
        self._serving = serving
        self._managing = managing
        self._importing = importing
        self._proving = proving
        self._public_url = public_url

    async def CreateProviderConfig(
        self, request: pb.CreateProviderConfigRequest, context: Context
    ) -> pb.ProviderConfig:
        """Creates a provider configuration."""
        new = words.NewProviderConfig(
            provider=request.provider,
            issuer=request.issuer,
            authorization_endpoint=request.authorization_endpoint,
            token_endpoint=request.token_endpoint,
            revocation_endpoint=request.revocation_endpoint,
            auth_method=request.token_endpoint_auth_method,
            client_id=request.client_id,
            client_secret=Secret(request.client_secret.encode()),
            scopes=tuple(request.scopes),
            redirect_uris=tuple(request.redirect_uris) or (f"{self._public_url}/oauth/callback",),
            display_name=request.display_name,
            bearer_only=request.bearer_only,
        )
        return await self.run(context, lambda caller: after(self._importing.configure(caller, new), config_shown))

    async def GetProviderConfig(self, request: pb.GetProviderConfigRequest, context: Context) -> pb.ProviderConfig:
        """Gives a provider configuration."""
        return await self.run(
            context, lambda caller: after(self._managing.get_config(caller, request.id), config_shown)
        )

    async def ListProviderConfigs(
        self, request: pb.ListProviderConfigsRequest, context: Context
    ) -> pb.ListProviderConfigsResponse:
        """Lists provider configurations."""

        async def work(caller: Caller) -> pb.ListProviderConfigsResponse:
            found, token = await self._managing.list_configs(caller, page_size(request.page_size), request.page_token)
            return pb.ListProviderConfigsResponse(provider_configs=map(config_shown, found), next_page_token=token)

        return await self.run(context, work)

    async def UpdateProviderConfig(
        self, request: pb.UpdateProviderConfigRequest, context: Context
    ) -> pb.ProviderConfig:
        """Changes a provider configuration."""
        return await self.run(
            context,
            lambda caller: after(
                self._managing.update_config(
                    caller, request.id, request.scopes, request.redirect_uris, request.display_name
                ),
                config_shown,
            ),
        )

    async def AddClientSecret(self, request: pb.AddClientSecretRequest, context: Context) -> pb.ProviderConfig:
        """Adds a second client secret."""
        secret = Secret(request.client_secret.encode())
        return await self.run(
            context, lambda caller: after(self._importing.add_secret(caller, request.id, secret), config_shown)
        )

    async def RetireClientSecret(self, request: pb.RetireClientSecretRequest, context: Context) -> pb.ProviderConfig:
        """Retires the older client secret."""
        return await self.run(
            context, lambda caller: after(self._importing.retire_secret(caller, request.id), config_shown)
        )

    async def DeleteProviderConfig(
        self, request: pb.DeleteProviderConfigRequest, context: Context
    ) -> pb.DeleteProviderConfigResponse:
        """Deletes a provider configuration."""
        return await self.run(
            context,
            lambda caller: after(
                self._managing.delete_config(caller, request.id), lambda _: pb.DeleteProviderConfigResponse()
            ),
        )

    async def ListProviders(self, _: pb.ListProvidersRequest, context: Context) -> pb.ListProvidersResponse:
        """Lists the Providers that are known."""

        async def work(caller: Caller) -> pb.ListProvidersResponse:
            return pb.ListProvidersResponse(providers=map(provider_shown, await self._managing.list_providers(caller)))

        return await self.run(context, work)

    async def GetProvider(self, request: pb.GetProviderRequest, context: Context) -> pb.ProviderEntry:
        """Gives what is known of a Provider."""
        return await self.run(
            context,
            lambda caller: after(
                self._managing.get_provider(caller, request.name), lambda text: pb.ProviderEntry(document=text)
            ),
        )

    async def AddProvider(self, request: pb.AddProviderRequest, context: Context) -> pb.Provider:
        """Describes a Provider."""
        return await self.run(
            context, lambda caller: after(self._managing.add_provider(caller, request.document), provider_shown)
        )

    async def DeleteProvider(self, request: pb.DeleteProviderRequest, context: Context) -> pb.DeleteProviderResponse:
        """Deletes such a description."""
        return await self.run(
            context,
            lambda caller: after(
                self._managing.delete_provider(caller, request.name), lambda _: pb.DeleteProviderResponse()
            ),
        )

    async def CreateConnectSession(
        self, request: pb.CreateConnectSessionRequest, context: Context
    ) -> pb.ConnectSession:
        """Makes a connect session."""

        async def work(caller: Caller) -> pb.ConnectSession:
            values = _pairs(request.values)
            token, expires = await self._managing.create_session(
                caller, request.end_user_id, request.provider_config_ids, values, request.connection_id
            )
            return pb.ConnectSession(url=f"{self._public_url}/connect/{token}", expire_time=to_wire_time(expires))

        return await self.run(context, work)

    async def BeginDeviceFlow(self, request: pb.BeginDeviceFlowRequest, context: Context) -> pb.DeviceFlow:
        """Begins a device flow."""
        values = _pairs(request.values)
        return await self.run(
            context,
            lambda caller: after(
                self._managing.begin_device(caller, request.provider_config_id, request.end_user_id, values),
                device_shown,
            ),
        )

    async def GetDeviceFlow(self, request: pb.GetDeviceFlowRequest, context: Context) -> pb.DeviceFlow:
        """Says how far a device flow is."""
        return await self.run(
            context, lambda caller: after(self._managing.device(caller, request.connection_id), device_shown)
        )

    async def ImportConnection(self, request: pb.ImportConnectionRequest, context: Context) -> pb.Connection:
        """Imports a credential."""
        new = words.NewConnection(
            kind=request.kind,
            end_user_id=request.end_user_id,
            provider=request.provider,
            provider_config_id=request.provider_config_id,
            allowed_hosts=tuple(request.allowed_hosts),
            api_key=Secret(request.api_key.encode()),
            username=Secret(request.username.encode()),
            password=Secret(request.password.encode()),
            webhook_secret=Secret(request.webhook_secret.encode()),
            access_token=Secret(request.access_token.encode()),
            refresh_token=Secret(request.refresh_token.encode()),
            token_secret=Secret(request.token_secret.encode()),
            scopes=tuple(request.scopes),
            expires_at=request.expire_time.ToDatetime(dt.UTC) if request.HasField("expire_time") else None,
            values=_pairs(request.values),
            renewal=request.renewal,
            material=tuple((each.name, Secret(each.value.encode())) for each in request.material),
            rotate_at=request.rotate_time.ToDatetime(dt.UTC) if request.HasField("rotate_time") else None,
        )
        return await self.run(
            context, lambda caller: after(self._importing.import_connection(caller, new), connection_shown)
        )

    async def GetConnection(self, request: pb.GetConnectionRequest, context: Context) -> pb.Connection:
        """Gives a connection."""
        return await self.run(
            context, lambda caller: after(self._managing.get_connection(caller, request.id), connection_shown)
        )

    async def ListConnections(self, request: pb.ListConnectionsRequest, context: Context) -> pb.ListConnectionsResponse:
        """Lists connections."""

        async def work(caller: Caller) -> pb.ListConnectionsResponse:
            found, token = await self._managing.list_connections(
                caller, request.end_user_id, page_size(request.page_size), request.page_token
            )
            return pb.ListConnectionsResponse(connections=map(connection_shown, found), next_page_token=token)

        return await self.run(context, work)

    async def GetToken(self, request: pb.GetTokenRequest, context: Context) -> pb.Token:
        """Gives the live credential."""
        if not 0 <= request.min_ttl_seconds <= 86_400:
            await abort_call(context, MalformedRequestError(field=Label("min_ttl_seconds")), new_request_id())

        async def work(caller: Caller) -> pb.Token:
            served = await self._serving.serve(caller, request.connection_id, request.min_ttl_seconds)
            with served.payload:
                value = bytes(served.payload.expose()).decode()
            token = pb.Token(
                connection_id=served.connection,
                kind=served.kind,
                expire_time=to_wire_time(served.expires_at),
                refresh_state=served.refresh,
                refresh_failure=served.refresh_failure,
            )
            match served.kind:
                case "oauth2":
                    data = json.loads(value)
                    token.access_token, token.token_type = data["access_token"], data["token_type"]
                    token.scopes.extend(data["scopes"])
                case "oauth1":
                    data = json.loads(value)
                    token.access_token, token.token_secret = data["access_token"], data["token_secret"]
                case "basic":
                    data = json.loads(value)
                    token.username, token.password = data["username"], data["password"]
                case "api_key":
                    token.api_key = value
                case _:
                    token.webhook_secret = value
            return token

        return await self.run(context, work)

    async def RefreshConnection(self, request: pb.RefreshConnectionRequest, context: Context) -> pb.Connection:
        """Refreshes a token now."""
        return await self.run(
            context, lambda caller: after(self._managing.refresh(caller, request.connection_id), connection_shown)
        )

    async def DisconnectConnection(self, request: pb.DisconnectConnectionRequest, context: Context) -> pb.Connection:
        """Disconnects."""
        keep_days = request.keep_days
        if keep_days > _LONGEST_KEPT_DAYS:
            await abort_call(context, MalformedRequestError(field=Label("keep_days")), new_request_id())
        return await self.run(
            context,
            lambda caller: after(self._managing.disconnect(caller, request.connection_id, keep_days), connection_shown),
        )

    async def EraseEndUser(self, request: pb.EraseEndUserRequest, context: Context) -> pb.EraseEndUserResponse:
        """Erases everything of one end user."""
        return await self.run(
            context,
            lambda caller: after(
                self._managing.erase_end_user(caller, request.end_user_id),
                lambda count: pb.EraseEndUserResponse(disconnected_count=count),
            ),
        )

    async def CheckConnection(self, request: pb.CheckConnectionRequest, context: Context) -> pb.Connection:
        """Tries a credential."""
        return await self.run(
            context, lambda caller: after(self._managing.check(caller, request.connection_id), connection_shown)
        )

    async def ReconnectConnection(self, request: pb.ReconnectConnectionRequest, context: Context) -> pb.Connection:
        """Takes a connection back that was kept."""
        return await self.run(
            context, lambda caller: after(self._managing.reconnect(caller, request.connection_id), connection_shown)
        )

    async def VerifyWebhook(self, request: pb.VerifyWebhookRequest, context: Context) -> pb.VerifyWebhookResponse:
        """Compares a webhook's signature."""
        scheme = None
        if request.HasField("scheme"):
            scheme = words.WebhookScheme(
                *(getattr(request.scheme, name) for name in words.WebhookScheme._fields)
            )._replace(signed=request.scheme.signed or "{body}")
        arrived = words.Arrived(_pairs(request.headers), request.body, scheme)
        return await self.run(
            context,
            lambda caller: after(
                self._webhooks.verify(caller, request.connection_id, arrived),
                lambda reason: pb.VerifyWebhookResponse(valid=not reason, reason=reason),
            ),
        )

    async def ProveKey(self, request: pb.ProveKeyRequest, context: Context) -> pb.ProveKeyResponse:
        """Makes a proof of a key."""
        wanted = words.Provable(request.method, request.url, request.nonce)
        return await self.run(
            context,
            lambda caller: after(
                self._proving.prove(caller, request.connection_id, wanted),
                lambda proof: pb.ProveKeyResponse(proof=proof.expose().decode()),
            ),
        )

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, context: Context) -> pb.ListAuditEventsResponse:
        """Lists audit events."""

        async def work(caller: Caller) -> pb.ListAuditEventsResponse:
            wanted = logged.EventFilter(
                request.event,
                request.target,
                request.actor,
                request.outcome,
                request.some_id,
                request.trail,
                *_times(request),
                page_size(request.page_size),
                request.page_token,
            )
            found = await self._managing.list_events(caller, wanted)
            return pb.ListAuditEventsResponse(
                events=[event_shown(each) for each in found.events],
                next_page_token=found.next_page_token,
                tree_sizes=found.tree_sizes,
            )

        return await self.run(context, work)

    async def ExportAuditLog(self, request: pb.ExportAuditLogRequest, context: Context) -> pb.ExportAuditLogResponse:
        """Exports a page of the log."""

        async def work(caller: Caller) -> pb.ExportAuditLogResponse:
            wanted = logged.Export(request.trail, *_times(request), request.seen_size)
            lines, token = await self._managing.export_page(caller, wanted, request.page_token)
            return pb.ExportAuditLogResponse(lines=lines, next_page_token=token)

        return await self.run(context, work)


def _times(
    request: pb.ListAuditEventsRequest | pb.ExportAuditLogRequest,
) -> tuple[dt.datetime | None, dt.datetime | None]:
    try:
        return (
            request.since.ToDatetime(dt.UTC) if request.HasField("since") else None,
            request.until.ToDatetime(dt.UTC) if request.HasField("until") else None,
        )
    except (ValueError, OverflowError):
        raise MalformedRequestError(field=Label("since or until")) from None


def _pairs(values: Iterable[pb.Value]) -> words.Pairs:
    return tuple((each.name, each.value) for each in values)
