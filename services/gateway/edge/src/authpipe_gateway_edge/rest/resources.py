"""The resources of /v1, each operation one call of the domain."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from authpipe_gateway_edge.domain import words
from authpipe_gateway_edge.domain.importing import Importing
from authpipe_gateway_edge.domain.managing import Managing
from authpipe_gateway_edge.domain.words import Caller
from authpipe_gateway_edge.rest import schemas
from authpipe_gateway_edge.rest.tokens import bearer


@dataclass(frozen=True, slots=True)
class Api:
    """What the resources need.

    Args:
        managing: The rules over names.
        importing: The rules over what is brought.
        public_url: How browsers reach us.
    """

    managing: Managing
    importing: Importing
    public_url: str

    @property
    def callback(self) -> str:
        """Our own redirect URI."""
        return f"{self.public_url}/oauth/callback"


def caller_of(request: Request) -> Caller:
    """Gives who asks.

    Raises:
        ApiKeyMissingError: There is no API key.
    """
    return Caller(bearer(request.scope["headers"]), request.state.request_id)


CallerDep = Annotated[Caller, Depends(caller_of)]
PageSize = Annotated[int, Query(ge=1, le=200)]
PageToken = Annotated[str, Query(max_length=200)]
_ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": schemas.ProblemOut, "content": {"application/problem+json": {}}} for code in (400, 401, 403, 404)
}


def router(api: Api) -> APIRouter:  # a list of routes
    """Makes the routes of /v1."""
    routes = APIRouter(prefix="/v1", responses=_ERRORS)

    @routes.post("/provider-configs", status_code=201, tags=["Provider configurations"])
    async def create_provider_config(caller: CallerDep, body: schemas.ProviderConfigIn) -> schemas.ProviderConfigOut:
        """Makes an OAuth client known: by catalog name, issuer or endpoints. The secret is write only."""
        return schemas.ProviderConfigOut.of(await api.importing.configure(caller, body.to_words(api.callback)))

    @routes.get("/provider-configs", tags=["Provider configurations"])
    async def list_provider_configs(
        caller: CallerDep, page_size: PageSize = 50, page_token: PageToken = ""
    ) -> schemas.ProviderConfigPage:
        """Lists provider configurations."""
        found, following = await api.managing.list_configs(caller, page_size, page_token)
        shown = [schemas.ProviderConfigOut.of(each) for each in found]
        return schemas.ProviderConfigPage(provider_configs=shown, next_page_token=following)

    @routes.get("/provider-configs/{config_id}", tags=["Provider configurations"])
    async def get_provider_config(caller: CallerDep, config_id: str) -> schemas.ProviderConfigOut:
        """Gives a provider configuration."""
        return schemas.ProviderConfigOut.of(await api.managing.get_config(caller, config_id))

    @routes.patch("/provider-configs/{config_id}", tags=["Provider configurations"])
    async def update_provider_config(
        caller: CallerDep, config_id: str, body: schemas.ProviderConfigPatch
    ) -> schemas.ProviderConfigOut:
        """Changes scopes, redirect URIs or the name."""
        changed = await api.managing.update_config(
            caller, config_id, body.scopes, body.redirect_uris, body.display_name
        )
        return schemas.ProviderConfigOut.of(changed)

    @routes.delete("/provider-configs/{config_id}", status_code=204, tags=["Provider configurations"])
    async def delete_provider_config(caller: CallerDep, config_id: str) -> Response:
        """Deletes a provider configuration without connections, and its secret."""
        await api.managing.delete_config(caller, config_id)
        return Response(status_code=204)

    @routes.get("/providers", tags=["Providers"])
    async def list_providers(caller: CallerDep) -> schemas.ProviderList:
        """Lists the Providers that are known: the catalog's and your own."""
        found = await api.managing.list_providers(caller)
        return schemas.ProviderList(providers=[schemas.ProviderOut.of(each) for each in found])

    @routes.get("/providers/{name}", tags=["Providers"], response_model=dict[str, Any])
    async def get_provider(caller: CallerDep, name: str) -> Response:
        """Gives what is known of a Provider, by the schema of the catalog."""
        return Response(await api.managing.get_provider(caller, name), media_type="application/json")

    @routes.post("/providers", status_code=201, tags=["Providers"])
    async def add_provider(caller: CallerDep, body: dict[str, Any]) -> schemas.ProviderOut:
        """Describes a Provider of your own, by the schema of the catalog."""
        return schemas.ProviderOut.of(await api.managing.add_provider(caller, json.dumps(body)))

    @routes.delete("/providers/{name}", status_code=204, tags=["Providers"])
    async def delete_provider(caller: CallerDep, name: str) -> Response:
        """Deletes your description of a Provider. Provider configurations keep what they pinned."""
        await api.managing.delete_provider(caller, name)
        return Response(status_code=204)

    @routes.post("/connect-sessions", status_code=201, tags=["Connections"])
    async def create_connect_session(caller: CallerDep, body: schemas.ConnectSessionIn) -> schemas.ConnectSessionOut:
        """Makes a short-lived URL for an end user's browser."""
        token, expires = await api.managing.create_session(
            caller, body.end_user_id, body.provider_config_ids, tuple(sorted(body.values.items())), body.connection_id
        )
        return schemas.ConnectSessionOut(url=f"{api.public_url}/connect/{token}", expire_time=expires)

    @routes.post("/connections", status_code=201, tags=["Connections"])
    async def import_connection(caller: CallerDep, body: schemas.ConnectionIn) -> schemas.ConnectionOut:
        """Imports an API key, a basic pair, a webhook secret or an existing token set."""
        return schemas.ConnectionOut.of(await api.importing.import_connection(caller, body.to_words()))

    @routes.get("/connections", tags=["Connections"])
    async def list_connections(
        caller: CallerDep,
        end_user_id: Annotated[str, Query(max_length=200)] = "",
        page_size: PageSize = 50,
        page_token: PageToken = "",
    ) -> schemas.ConnectionPage:
        """Lists connections, newest first; never a value."""
        found, following = await api.managing.list_connections(caller, end_user_id, page_size, page_token)
        shown = [schemas.ConnectionOut.of(each) for each in found]
        return schemas.ConnectionPage(connections=shown, next_page_token=following)

    @routes.get("/connections/{connection_id}", tags=["Connections"])
    async def get_connection(caller: CallerDep, connection_id: str) -> schemas.ConnectionOut:
        """Gives a connection; never a value."""
        return schemas.ConnectionOut.of(await api.managing.get_connection(caller, connection_id))

    @routes.get("/connections/{connection_id}/token", tags=["Tokens"], response_model=schemas.TokenOut)
    async def get_token(
        caller: CallerDep, connection_id: str, min_ttl: Annotated[int, Query(ge=0, le=86_400)] = 0
    ) -> Response:
        """Gives the live credential; refreshed first when it is expired, or lives no longer than `min_ttl` seconds."""
        raise AssertionError("The hot route answers before this one.")  # pragma: no cover  # here for /openapi.json

    @routes.post("/connections/{connection_id}/refresh", tags=["Tokens"])
    async def refresh_connection(caller: CallerDep, connection_id: str) -> schemas.ConnectionOut:
        """Refreshes the token now."""
        return schemas.ConnectionOut.of(await api.managing.refresh(caller, connection_id))

    @routes.delete("/connections/{connection_id}", tags=["Connections"])
    async def disconnect_connection(caller: CallerDep, connection_id: str) -> schemas.ConnectionOut:
        """Disconnects: not served from this second, revoked at the Provider, erased."""
        return schemas.ConnectionOut.of(await api.managing.disconnect(caller, connection_id))

    @routes.get("/audit/events", tags=["Audit"])
    async def list_audit_events(  # one per filter
        caller: CallerDep,
        event: Annotated[str, Query(max_length=60)] = "",
        target: Annotated[str, Query(max_length=80)] = "",
        since: datetime | None = None,
        until: datetime | None = None,
        page_size: PageSize = 50,
        page_token: PageToken = "",
    ) -> schemas.EventPage:
        """Lists the workspace's log, newest first."""
        wanted = words.EventFilter(event or "", target or "", since, until, page_size or 0, page_token or "")
        found, following = await api.managing.list_events(caller, wanted)
        return schemas.EventPage(events=[_event(each) for each in found], next_page_token=following)

    return routes


def _event(event: words.Event) -> schemas.EventOut:
    return schemas.EventOut(
        event_id=event.event_id,
        event=event.name,
        time=event.time,
        emitter=event.emitter,
        actor=event.actor,
        target=event.target,
        purpose=event.purpose,
        record_class=event.record_class,
        record_version=event.record_version,
        outcome=event.outcome,
        reason=event.reason,
        request_id=event.request_id,
        leaf_index=event.leaf_index,
    )
