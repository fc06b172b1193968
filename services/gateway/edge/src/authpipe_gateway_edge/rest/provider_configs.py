"""Provider configurations and Providers at /v1, each operation one call of the domain."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Response

from authpipe_gateway_edge.rest import schemas
from authpipe_gateway_edge.rest.api import ERRORS, Api, CallerDep, PageSize, PageToken


def router(api: Api) -> APIRouter:  # a list of routes
    """Makes the routes."""
    routes = APIRouter(prefix="/v1", responses=ERRORS)

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

    @routes.post("/provider-configs/{config_id}/client-secrets", status_code=201, tags=["Provider configurations"])
    async def add_client_secret(
        caller: CallerDep, config_id: str, body: schemas.ClientSecretIn
    ) -> schemas.ProviderConfigOut:
        """Adds a second client secret. It is tried before the first, which is used until you retire it."""
        return schemas.ProviderConfigOut.of(await api.importing.add_secret(caller, config_id, body.secret()))

    @routes.post("/provider-configs/{config_id}/client-secrets:retire", tags=["Provider configurations"])
    async def retire_client_secret(caller: CallerDep, config_id: str) -> schemas.ProviderConfigOut:
        """Retires the older one of two client secrets."""
        return schemas.ProviderConfigOut.of(await api.importing.retire_secret(caller, config_id))

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

    return routes
