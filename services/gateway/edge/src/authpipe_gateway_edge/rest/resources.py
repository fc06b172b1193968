"""Connections, their tokens, sessions and the log at /v1, each operation one call of the domain."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from authpipe_gateway_edge.rest import schemas
from authpipe_gateway_edge.rest.api import ERRORS, Api, CallerDep, PageSize, PageToken


def router(api: Api) -> APIRouter:  # a list of routes
    """Makes the routes of /v1."""
    routes = APIRouter(prefix="/v1", responses=ERRORS)

    @routes.post("/connect-sessions", status_code=201, tags=["Connections"])
    async def create_connect_session(caller: CallerDep, body: schemas.ConnectSessionIn) -> schemas.ConnectSessionOut:
        """Makes a short-lived URL for an end user's browser."""
        token, expires = await api.managing.create_session(
            caller, body.end_user_id, body.provider_config_ids, tuple(sorted(body.values.items())), body.connection_id
        )
        return schemas.ConnectSessionOut(url=f"{api.public_url}/connect/{token}", expire_time=expires)

    @routes.post("/device-flows", status_code=201, tags=["Connections"])
    async def begin_device_flow(caller: CallerDep, body: schemas.DeviceFlowIn) -> schemas.DeviceFlowOut:
        """Begins a connection that a person agrees to on another device (RFC 8628)."""
        values = tuple(sorted(body.values.items()))
        flow = await api.managing.begin_device(caller, body.provider_config_id, body.end_user_id, values)
        return schemas.DeviceFlowOut.of(flow)

    @routes.get("/device-flows/{connection_id}", tags=["Connections"])
    async def get_device_flow(caller: CallerDep, connection_id: str) -> schemas.DeviceFlowOut:
        """Says how far such a connection is: pending, connected, denied or expired."""
        return schemas.DeviceFlowOut.of(await api.managing.device(caller, connection_id))

    @routes.post("/connections", status_code=201, tags=["Connections"])
    async def import_connection(caller: CallerDep, body: schemas.ConnectionIn) -> schemas.ConnectionOut:
        """Imports an API key, a basic pair, a webhook secret, a token set, or what tokens are asked for with."""
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

    @routes.post("/connections/{connection_id}/health-checks", tags=["Connections"])
    async def check_connection(caller: CallerDep, connection_id: str) -> schemas.ConnectionOut:
        """Tries the credential with the harmless request of its Provider's entry, once a minute at most."""
        return schemas.ConnectionOut.of(await api.managing.check(caller, connection_id))

    @routes.post("/connections/{connection_id}/webhook-signatures:verify", tags=["Connections"])
    async def verify_webhook(caller: CallerDep, connection_id: str, body: schemas.WebhookIn) -> schemas.WebhookOut:
        """Says whether what came is signed with the connection's webhook secret, which is not handed out."""
        reason = await api.webhooks.verify(caller, connection_id, body.to_words())
        return schemas.WebhookOut(valid=not reason, reason=reason)

    @routes.post("/connections/{connection_id}/dpop-proofs", tags=["Tokens"])
    async def prove_key(
        caller: CallerDep, connection_id: str, body: schemas.ProofIn, response: Response
    ) -> schemas.ProofOut:
        """Makes a proof of the key that the connection's token is bound to (RFC 9449), for one request of your own."""
        proof = await api.proving.prove(caller, connection_id, body.to_words())
        response.headers["cache-control"] = "no-store"
        return schemas.ProofOut(proof=proof.expose().decode())

    @routes.post("/connections/{connection_id}/reconnect", tags=["Connections"])
    async def reconnect_connection(caller: CallerDep, connection_id: str) -> schemas.ConnectionOut:
        """Takes a connection back that was kept when it was disconnected."""
        return schemas.ConnectionOut.of(await api.managing.reconnect(caller, connection_id))

    @routes.delete("/connections/{connection_id}", tags=["Connections"])
    async def disconnect_connection(
        caller: CallerDep, connection_id: str, keep_days: Annotated[int, Query(ge=0, le=30)] = 0
    ) -> schemas.ConnectionOut:
        """Disconnects: not served from this second, revoked, erased.

        With `keep_days` what cannot be revoked is kept sealed for so long, opens for nobody, and can be taken back.
        """
        return schemas.ConnectionOut.of(await api.managing.disconnect(caller, connection_id, keep_days))

    @routes.delete("/end-users/{end_user_id:path}", tags=["Connections"])
    async def erase_end_user(caller: CallerDep, end_user_id: str) -> schemas.ErasedOut:
        """Erases everything of one end user, for good.

        Every connection is disconnected and nothing of it is kept; nothing leads from the person to the audit log any more.
        """
        return schemas.ErasedOut(disconnected_count=await api.managing.erase_end_user(caller, end_user_id))

    return routes
