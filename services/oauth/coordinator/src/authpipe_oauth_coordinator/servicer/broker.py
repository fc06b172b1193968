"""The broker: provider configurations, flows, connections."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from authpipe.oauth.v1 import coordinator_pb2 as pb
from authpipe.oauth.v1 import types_pb2
from authpipe_oauth_coordinator.domain.answers import Answers
from authpipe_oauth_coordinator.domain.connections import Connections
from authpipe_oauth_coordinator.domain.device_flows import DeviceFlows
from authpipe_oauth_coordinator.domain.disconnecting import Disconnecting
from authpipe_oauth_coordinator.domain.entries import Entries
from authpipe_oauth_coordinator.domain.failures import Cure, meaning
from authpipe_oauth_coordinator.domain.flows import Callback, Flows, authorization_origin
from authpipe_oauth_coordinator.domain.health import ROTATION_NOTICE, HealthChecks
from authpipe_oauth_coordinator.domain.imports import Brought, Imports
from authpipe_oauth_coordinator.domain.ports import ConfigStore, ConnectionStore
from authpipe_oauth_coordinator.domain.provider_configs import Draft, ProviderConfigs
from authpipe_oauth_coordinator.domain.resealing import Resealing
from authpipe_oauth_coordinator.domain.subjects import Subjects
from authpipe_oauth_coordinator.domain.words import (
    Acting,
    Connection,
    Kind,
    ProviderConfig,
    Renewal,
    State,
    TokenOutcome,
)
from authpipe_oauth_coordinator.errors import MalformedError, NotFoundError
from authpipe_oauth_coordinator.peers import (
    RENEWALS,
    from_wire_endpoints,
    to_wire_dialect,
    to_wire_endpoints,
    to_wire_pairs,
    to_wire_values,
)
from authpipe_oauth_coordinator.servicer.acting import ActingOf
from authpipe_providers import Document, Entry, EntryError, ValueRule
from authpipe_rpc import current_actor, current_caller
from authpipe_sensitive import Label

_USUAL_PAGE, _LONGEST_PAGE = 50, 200
_LONGEST_DOCUMENT = 32_768
_LONGEST_KEPT_DAYS = 30
_STATES = {
    State.ACTIVE: types_pb2.CONNECTION_STATE_ACTIVE,
    State.NEEDS_REAUTH: types_pb2.CONNECTION_STATE_NEEDS_REAUTH,
    State.DISCONNECTING: types_pb2.CONNECTION_STATE_DISCONNECTING,
    State.DISCONNECTED: types_pb2.CONNECTION_STATE_DISCONNECTED,
    State.KEPT: types_pb2.CONNECTION_STATE_KEPT,
}
_KINDS = {
    Kind.OAUTH2: types_pb2.CONNECTION_KIND_OAUTH2,
    Kind.OAUTH1: types_pb2.CONNECTION_KIND_OAUTH1,
    Kind.API_KEY: types_pb2.CONNECTION_KIND_API_KEY,
    Kind.BASIC: types_pb2.CONNECTION_KIND_BASIC,
    Kind.WEBHOOK_SECRET: types_pb2.CONNECTION_KIND_WEBHOOK_SECRET,
}
_KINDS_BACK = {number: kind for kind, number in _KINDS.items()}
_RENEWALS_BACK = {number: renewal for renewal, number in RENEWALS.items()} | {
    types_pb2.RENEWAL_UNSPECIFIED: Renewal.REFRESH_TOKEN
}


class CoordinatorServicer:
    """Serves Coordinator.

    Args:
        configs: The rules over provider configurations.
        entries: What is known of Providers.
        flows: The rules over flows.
        imports: The rules over what customers bring.
        connections: The rules over connections.
        disconnecting: The rules over their end.
        answers: The rules over answers that wait on a worker's disk.
        resealing: The rules over sealing again.
        devices: The rules over device flows.
        health: The rules over trying credentials.
        subjects: The rules over end users.
        config_table: For lists.
        connection_table: For lists.
        acting_of: Says on whose behalf, from a grant.
    """

    def __init__(  # required means argument
        self,
        configs: ProviderConfigs,
        entries: Entries,
        flows: Flows,
        imports: Imports,
        connections: Connections,
        disconnecting: Disconnecting,
        answers: Answers,
        resealing: Resealing,
        devices: DeviceFlows,
        health: HealthChecks,
        subjects: Subjects,
        config_table: ConfigStore,
        connection_table: ConnectionStore,
        acting_of: ActingOf,
    ) -> None:
        self._configs = configs
        self._entries = entries
        self._flows = flows
        self._imports = imports
        self._connections = connections
        self._disconnecting = disconnecting
        self._answers = answers
        self._resealing = resealing
        self._devices = devices
        self._health = health
        self._subjects = subjects
        self._config_table = config_table
        self._connection_table = connection_table
        self._acting_of = acting_of

    async def DraftProviderConfig(
        self, request: pb.DraftProviderConfigRequest, _: object
    ) -> pb.DraftProviderConfigResponse:
        """Pins a Provider's endpoints under a new id."""
        acting = self._acting_of(request.grant, request.request_id, "draft_provider_config")
        endpoints = from_wire_endpoints(request.endpoints) if request.HasField("endpoints") else None
        draft = Draft(
            request.provider,
            request.issuer,
            endpoints,
            request.client_id,
            tuple(request.scopes),
            tuple(request.redirect_uris),
            request.display_name,
            request.token_endpoint_auth_method,
            request.bearer_only,
        )
        return pb.DraftProviderConfigResponse(provider_config=_config(await self._configs.draft(acting, draft)))

    async def ActivateProviderConfig(
        self, request: pb.ActivateProviderConfigRequest, _: object
    ) -> pb.ActivateProviderConfigResponse:
        """Makes a draft usable."""
        acting = self._acting_of(request.grant, request.request_id, "configure_provider", request.id)
        return pb.ActivateProviderConfigResponse(
            provider_config=_config(await self._configs.activate(acting, request.id))
        )

    async def GetProviderConfig(self, request: pb.GetProviderConfigRequest, _: object) -> pb.GetProviderConfigResponse:
        """Gives one provider configuration."""
        acting = self._acting_of(request.grant, "", "read_provider_configs")
        return pb.GetProviderConfigResponse(provider_config=_config(await self._configs.get(acting, request.id)))

    async def ListProviderConfigs(
        self, request: pb.ListProviderConfigsRequest, _: object
    ) -> pb.ListProviderConfigsResponse:
        """Lists provider configurations."""
        acting = self._acting_of(request.grant, "", "read_provider_configs")
        size = _page(request.page_size)
        found = await self._config_table.list_configs(acting.workspace, size + 1, request.page_token)
        token = found[size - 1].id if len(found) > size else ""
        return pb.ListProviderConfigsResponse(provider_configs=map(_config, found[:size]), next_page_token=token)

    async def UpdateProviderConfig(
        self, request: pb.UpdateProviderConfigRequest, _: object
    ) -> pb.UpdateProviderConfigResponse:
        """Changes a provider configuration."""
        acting = self._acting_of(request.grant, request.request_id, "configure_provider", request.id)
        changed = await self._configs.update(
            acting, request.id, tuple(request.scopes), tuple(request.redirect_uris), request.display_name
        )
        return pb.UpdateProviderConfigResponse(provider_config=_config(changed))

    async def ActivateClientSecret(
        self, request: pb.ActivateClientSecretRequest, _: object
    ) -> pb.ActivateClientSecretResponse:
        """Takes a further client secret into use."""
        acting = self._acting_of(request.grant, request.request_id, "configure_provider", request.id)
        changed = await self._configs.activate_secret(acting, request.id, request.record_class)
        return pb.ActivateClientSecretResponse(provider_config=_config(changed))

    async def RetireClientSecret(
        self, request: pb.RetireClientSecretRequest, _: object
    ) -> pb.RetireClientSecretResponse:
        """Takes the older client secret out of use."""
        acting = self._acting_of(request.grant, request.request_id, "configure_provider", request.id)
        changed, retired = await self._configs.retire_secret(acting, request.id)
        return pb.RetireClientSecretResponse(provider_config=_config(changed), retired_class=retired)

    async def DeleteProviderConfig(
        self, request: pb.DeleteProviderConfigRequest, _: object
    ) -> pb.DeleteProviderConfigResponse:
        """Deletes a provider configuration."""
        acting = self._acting_of(request.grant, request.request_id, "configure_provider", request.id)
        await self._configs.delete(acting, request.id)
        return pb.DeleteProviderConfigResponse()

    async def ListProviders(self, request: pb.ListProvidersRequest, _: object) -> pb.ListProvidersResponse:
        """Lists the Providers that are known."""
        acting = self._acting_of(request.grant, "", "read_provider_configs")
        known = await self._entries.known(acting.workspace)
        return pb.ListProvidersResponse(providers=[_provider(entry, own=own) for entry, own in known])

    async def GetProvider(self, request: pb.GetProviderRequest, _: object) -> pb.GetProviderResponse:
        """Gives what is known of a Provider."""
        acting = self._acting_of(request.grant, "", "read_provider_configs")
        found = await self._entries.find(acting.workspace, request.name)
        if found is None:
            raise NotFoundError
        return pb.GetProviderResponse(document=json.dumps(found.document))

    async def AddProvider(self, request: pb.AddProviderRequest, _: object) -> pb.AddProviderResponse:
        """Describes a Provider."""
        acting = self._acting_of(request.grant, request.request_id, "describe_provider")
        added = await self._entries.add(acting, _document(request.document))
        return pb.AddProviderResponse(provider=_provider(added, own=True))

    async def DeleteProvider(self, request: pb.DeleteProviderRequest, _: object) -> pb.DeleteProviderResponse:
        """Deletes such a description."""
        acting = self._acting_of(request.grant, request.request_id, "describe_provider")
        await self._entries.delete(acting, request.name)
        return pb.DeleteProviderResponse()

    async def CreateConnectSession(
        self, request: pb.CreateConnectSessionRequest, _: object
    ) -> pb.CreateConnectSessionResponse:
        """Makes a connect session."""
        acting = self._acting_of(request.grant, request.request_id, "create_connect_session")
        token, session = await self._flows.create_session(
            acting,
            request.end_user_id,
            tuple(request.provider_config_ids),
            _mapping(request.values),
            request.connection_id,
        )
        return pb.CreateConnectSessionResponse(session_token=token, expire_time=_time(session.expires_at))

    async def GetConnectSession(self, request: pb.GetConnectSessionRequest, _: object) -> pb.GetConnectSessionResponse:
        """Gives what the hosted page shows."""
        choices = await self._flows.choices(request.session_token)
        return pb.GetConnectSessionResponse(
            choices=[
                pb.ProviderChoice(
                    provider_config_id=config.id,
                    display_name=config.display_name,
                    authorization_origin=authorization_origin(config),
                    questions=map(_question, questions),
                )
                for config, questions in choices
            ]
        )

    async def BeginFlow(self, request: pb.BeginFlowRequest, _: object) -> pb.BeginFlowResponse:
        """Begins a flow."""
        url = await self._flows.begin(
            request.session_token,
            request.provider_config_id,
            request.browser_binding,
            request.redirect_uri,
            request.request_id,
            _mapping(request.values),
        )
        return pb.BeginFlowResponse(authorization_url=url)

    async def CompleteFlow(self, request: pb.CompleteFlowRequest, _: object) -> pb.CompleteFlowResponse:
        """Ends a flow."""
        callback = Callback(
            request.state,
            request.browser_binding,
            request.code,
            request.iss,
            request.provider_refused,
            request.request_id,
            request.oauth_token,
        )
        connection = await self._flows.complete(callback)
        return pb.CompleteFlowResponse(connection_id=connection.id, provider=connection.provider)

    async def BeginDeviceFlow(self, request: pb.BeginDeviceFlowRequest, _: object) -> pb.BeginDeviceFlowResponse:
        """Begins a device flow."""
        acting = self._acting_of(request.grant, request.request_id, "create_connect_session")
        flow, begun = await self._devices.begin(
            acting, request.provider_config_id, request.end_user_id, _mapping(request.values)
        )
        return pb.BeginDeviceFlowResponse(
            connection_id=flow.connection_id,
            user_code=begun.user_code,
            verification_uri=begun.verification_uri,
            verification_uri_complete=begun.verification_uri_complete,
            expire_time=_time(flow.expires_at),
        )

    async def GetDeviceFlow(self, request: pb.GetDeviceFlowRequest, _: object) -> pb.GetDeviceFlowResponse:
        """Says how far a device flow is."""
        acting = self._acting_of(request.grant, "", "read_connections")
        return pb.GetDeviceFlowResponse(status=(await self._devices.get(acting, request.connection_id)).status)

    async def DraftConnection(self, request: pb.DraftConnectionRequest, _: object) -> pb.DraftConnectionResponse:
        """Reserves an id for an import."""
        acting = self._acting_of(request.grant, request.request_id, "draft_connection")
        kind = _KINDS_BACK.get(request.kind)
        if kind is None:
            raise MalformedError(field=Label("kind"))
        brought = Brought(
            kind,
            request.end_user_id,
            request.provider,
            request.provider_config_id,
            tuple(request.allowed_hosts),
            _mapping(request.values),
            _RENEWALS_BACK[request.renewal],
            request.rotate_time.ToDatetime(dt.UTC) if request.HasField("rotate_time") else None,
        )
        connection = await self._imports.draft(acting, brought)
        return pb.DraftConnectionResponse(
            connection_id=connection.id, provider=connection.provider, hosts_digest=connection.hosts
        )

    async def ActivateConnection(
        self, request: pb.ActivateConnectionRequest, _: object
    ) -> pb.ActivateConnectionResponse:
        """Makes an imported connection usable."""
        acting = self._acting_of(request.grant, request.request_id, "import_connection", request.connection_id)
        expires = request.expire_time.ToDatetime(dt.UTC) if request.HasField("expire_time") else None
        outcome = TokenOutcome("", tuple(request.scopes), expires, request.refreshable)
        connection = await self._imports.activate(acting, request.connection_id, outcome)
        return pb.ActivateConnectionResponse(connection=_connection(connection))

    async def GetConnection(self, request: pb.GetConnectionRequest, _: object) -> pb.GetConnectionResponse:
        """Gives one connection."""
        acting = self._acting_of(request.grant, "", "read_connections")
        return pb.GetConnectionResponse(connection=_connection(await self._connections.get(acting, request.id)))

    async def ListConnections(self, request: pb.ListConnectionsRequest, _: object) -> pb.ListConnectionsResponse:
        """Lists connections."""
        acting = self._acting_of(request.grant, "", "read_connections")
        size = _page(request.page_size)
        found = await self._connection_table.list_connections(
            acting.workspace, request.end_user_id, size + 1, request.page_token
        )
        token = found[size - 1].id if len(found) > size else ""
        return pb.ListConnectionsResponse(connections=map(_connection, found[:size]), next_page_token=token)

    async def EnsureFresh(self, request: pb.EnsureFreshRequest, _: object) -> pb.EnsureFreshResponse:
        """Refreshes unless fresh."""
        if request.force:
            acting = self._acting_of(request.grant, request.request_id, "refresh", request.connection_id)
        else:
            acting = self._acting_of(request.grant, request.request_id, "serve")
        min_ttl = dt.timedelta(seconds=max(0, min(request.min_ttl_seconds, 86_400)))
        connection, refreshed, pending = await self._connections.ensure_fresh(
            acting, request.connection_id, min_ttl, force=request.force
        )
        response = pb.EnsureFreshResponse(refreshed=refreshed, connection=_connection(connection), pending=pending)
        if connection.expires_at is not None:
            response.expire_time.FromDatetime(connection.expires_at)
        return response

    async def GetProxyRoute(self, request: pb.GetProxyRouteRequest, _: object) -> pb.GetProxyRouteResponse:
        """Gives where a Provider's API is."""
        acting = self._acting_of(request.grant, "", "proxy", request.connection_id)
        route = await self._connections.route(acting, request.connection_id, request.worker_thumbprint)
        connection, entry, client = route.connection, route.entry, route.client
        response = pb.GetProxyRouteResponse(
            provider=connection.provider,
            endpoints=to_wire_endpoints(entry.endpoints) if entry.endpoints is not None else None,
            dialect=to_wire_dialect(entry),
            values=to_wire_values(entry, connection.values),
        )
        if client is not None:
            response.provider_config_id, response.client_id = client.id, client.client_id
            response.client_secret_classes.extend(client.secret_classes)  # type: ignore[arg-type]  # the stub's enum is a NewType of int
            response.client_grant = route.client_grant
        return response

    async def GetWebhookScheme(self, request: pb.GetWebhookSchemeRequest, _: object) -> pb.GetWebhookSchemeResponse:
        """Gives how a Provider signs."""
        acting = self._acting_of(request.grant, "", "verify_webhook", request.connection_id)
        scheme = await self._connections.webhook_scheme(acting, request.connection_id)
        wire = types_pb2.WebhookScheme(**scheme._asdict()) if scheme is not None else None
        return pb.GetWebhookSchemeResponse(scheme=wire)

    async def CheckConnection(self, request: pb.CheckConnectionRequest, _: object) -> pb.CheckConnectionResponse:
        """Has a credential tried."""
        acting = self._acting_of(request.grant, request.request_id, "check_health", request.connection_id)
        return pb.CheckConnectionResponse(
            connection=_connection(await self._health.check(acting, request.connection_id))
        )

    async def Reconnect(self, request: pb.ReconnectRequest, _: object) -> pb.ReconnectResponse:
        """Takes a connection back."""
        acting = self._acting_of(request.grant, request.request_id, "reconnect", request.connection_id)
        connection = await self._disconnecting.reconnect(acting, request.connection_id, request.record_grant)
        return pb.ReconnectResponse(connection=_connection(connection))

    async def Disconnect(self, request: pb.DisconnectRequest, _: object) -> pb.DisconnectResponse:
        """Disconnects."""
        acting = self._acting_of(request.grant, request.request_id, "disconnect", request.connection_id)
        keep = dt.timedelta(days=min(request.keep_days, _LONGEST_KEPT_DAYS))
        connection = await self._disconnecting.disconnect(acting, request.connection_id, keep)
        return pb.DisconnectResponse(connection=_connection(connection))

    async def EraseEndUser(self, request: pb.EraseEndUserRequest, _: object) -> pb.EraseEndUserResponse:
        """Erases everything of one end user."""
        acting = self._acting_of(request.grant, request.request_id, "erase_end_user")
        return pb.EraseEndUserResponse(disconnected_count=await self._subjects.erase(acting, request.end_user_id))

    async def ClaimAnswer(self, request: pb.ClaimAnswerRequest, _: object) -> pb.ClaimAnswerResponse:
        """Lets a worker store an answer that it kept."""
        acting = Acting(request.workspace_id, f"service:{current_caller()}", request.request_id)
        grant = await self._answers.claim(acting, request.connection_id, request.fence, request.consumer_thumbprint)
        return pb.ClaimAnswerResponse(grant=grant)

    async def ReportAnswer(self, request: pb.ReportAnswerRequest, _: object) -> pb.ReportAnswerResponse:
        """Hears that such an answer is stored."""
        acting = Acting(request.workspace_id, f"service:{current_caller()}", request.request_id)
        await self._answers.report(acting, request.connection_id, request.fence)
        return pb.ReportAnswerResponse()

    async def ResealRecords(self, request: pb.ResealRecordsRequest, _: object) -> pb.ResealRecordsResponse:
        """Has records sealed again."""
        acting = Acting(request.workspace_id, current_actor(), request.request_id)
        if request.connection_id:
            count = await self._resealing.connection(acting, request.connection_id)
        elif request.provider_config_id:
            count = await self._resealing.provider_config(acting, request.provider_config_id)
        else:
            raise MalformedError(field=Label("target"))
        return pb.ResealRecordsResponse(resealed_count=count)


def _page(size: int) -> int:
    return min(size, _LONGEST_PAGE) if size > 0 else _USUAL_PAGE


def _time(moment: dt.datetime) -> Timestamp:
    wire = Timestamp()
    wire.FromDatetime(moment)
    return wire


def _config(config: ProviderConfig) -> types_pb2.ProviderConfig:
    return types_pb2.ProviderConfig(
        id=config.id,
        provider=config.provider,
        display_name=config.display_name,
        client_id=config.client_id,
        scopes=config.scopes,
        redirect_uris=config.redirect_uris,
        endpoints=to_wire_endpoints(config.endpoints),
        create_time=_time(config.created_at),
        hosts_digest=config.hosts,
        values=map(_question, config.entry.values),
        client_secret_classes=config.secret_classes,
        grants=config.entry.grants,
        notice=config.notice,
        notice_time=_time(config.noticed_at) if config.noticed_at is not None else None,
    )


def _provider(entry: Entry, *, own: bool) -> pb.Provider:
    kinds = {
        "oauth2": entry.endpoints is not None and not entry.endpoints.temporary_endpoint,
        "oauth1": entry.endpoints is not None and bool(entry.endpoints.temporary_endpoint),
        "api_key": entry.api_key is not None,
        "basic": entry.basic,
        "webhook_secret": entry.webhook is not None,
    }
    return pb.Provider(
        name=entry.name,
        display_name=entry.display_name,
        kinds=[kind for kind, there in kinds.items() if there],
        own=own,
        notes=entry.notes,
        values=map(_question, entry.values),
    )


def _document(text: str) -> Document:
    if len(text) > _LONGEST_DOCUMENT:
        raise EntryError(field=Label("document"), cause=Label("TOO_LONG"))
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise EntryError(field=Label("document"), cause=Label("NO_JSON")) from None
    if not isinstance(found, dict):
        raise EntryError(field=Label("document"), cause=Label("NO_OBJECT"))
    return found


def _is_soon(moment: dt.datetime | None) -> bool:
    return moment is not None and moment - dt.datetime.now(dt.UTC) < ROTATION_NOTICE


def _question(rule: ValueRule) -> types_pb2.ValueQuestion:
    return types_pb2.ValueQuestion(
        name=rule.name, title=rule.title, description=rule.description, example=rule.example, one_of=rule.one_of
    )


def _mapping(parameters: Iterable[types_pb2.Parameter]) -> dict[str, str]:
    return {each.name: each.value for each in parameters}


def _connection(connection: Connection) -> types_pb2.Connection:
    failing = connection.failing
    wire = types_pb2.Connection(
        id=connection.id,
        state=_STATES[connection.state],
        state_reason=connection.state_reason,
        kind=_KINDS[connection.kind],
        provider=connection.provider,
        provider_config_id=connection.provider_config_id,
        end_user_id=connection.end_user_id,
        scopes=connection.scopes,
        expire_time=_time(connection.expires_at) if connection.expires_at else None,
        refreshable=connection.refreshable,
        create_time=_time(connection.created_at),
        state_time=_time(connection.state_at),
        values=to_wire_pairs(connection.values),
        metadata=to_wire_pairs(connection.metadata),
        renewal=RENEWALS[connection.renewal],
        rotate_time=_time(connection.rotate_at) if connection.rotate_at else None,
        rotation_due=_is_soon(connection.rotate_at),
        keep_until=_time(connection.keep_until) if connection.keep_until else None,
    )
    if connection.health is not None and connection.health.state:
        wire.health.state, wire.health.reason = connection.health.state, connection.health.reason
        wire.health.check_time.FromDatetime(connection.health.at)
    if connection.state is State.NEEDS_REAUTH:
        wire.state_help = meaning(connection.state_reason).helps
    if connection.state is State.ACTIVE and failing is not None:
        found = meaning(failing.reason)
        if found.cure is Cure.CUSTOMER:
            wire.state, wire.state_reason = types_pb2.CONNECTION_STATE_CONFIGURATION_ERROR, failing.reason
            wire.state_time.FromDatetime(failing.since)
            wire.state_help = found.helps
        wire.refresh_failure.reason = failing.reason
        wire.refresh_failure.help = found.helps
        wire.refresh_failure.attempts = failing.attempts
        wire.refresh_failure.since_time.FromDatetime(failing.since)
        if connection.refresh_due_at is not None:
            wire.refresh_failure.retry_time.FromDatetime(connection.refresh_due_at)
    return wire
