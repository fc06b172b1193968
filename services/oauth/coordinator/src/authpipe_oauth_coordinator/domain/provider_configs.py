"""Provider configurations: endpoints are pinned when one is made, and lead to no other hosts after that.

A credential is bound to the set of hosts it may be sent to, so an endpoint elsewhere would not open it; who wants one makes
another provider configuration (case 22). Metadata that was found by issuer is fetched again (discovering.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from authpipe_envelope import RecordClass, hosts_digest
from authpipe_oauth_coordinator.domain.entries import Entries
from authpipe_oauth_coordinator.domain.ports import Clock, ConfigStore, Records, Worker
from authpipe_oauth_coordinator.domain.urls import require_endpoint, require_redirect_uris
from authpipe_oauth_coordinator.domain.words import audit_entry, Acting, ProviderConfig
from authpipe_oauth_coordinator.errors import (
    EndpointError,
    InUseError,
    MalformedError,
    NotFoundError,
    OneSecretError,
    TwoSecretsError,
    UnknownProviderError,
)
from authpipe_providers import Endpoints, Entry, client_hosts, read, urls
from authpipe_sensitive import Label
from authpipe_sensitive.duties import note_nothing_done

_METHODS = {
    "client_secret_basic",
    "client_secret_post",
    "client_secret_jwt",
    "private_key_jwt",
    "tls_client_auth",
    "none",
}
# How a Provider that is in no catalog may be asked; whether it answers is its own to say.
_GRANTS = ["authorization_code", "client_credentials", "jwt_bearer", "token_exchange"]
_FIRST = (int(RecordClass.CLIENT_SECRET),)
_OTHER = {
    int(RecordClass.CLIENT_SECRET): int(RecordClass.CLIENT_SECRET_2),
    int(RecordClass.CLIENT_SECRET_2): int(RecordClass.CLIENT_SECRET),
}


@dataclass(frozen=True, slots=True)
class Draft:
    """What a customer says about an OAuth client: one of provider, issuer and endpoints.

    With `bearer_only` tokens are not bound to a key, though the Provider does that.
    """

    provider: str
    issuer: str
    endpoints: Endpoints | None
    client_id: str
    scopes: tuple[str, ...]
    redirect_uris: tuple[str, ...]
    display_name: str
    auth_method: str = ""
    bearer_only: bool = False


class ProviderConfigs:
    """The rules over provider configurations."""

    def __init__(  # required means argument
        self,
        store: ConfigStore,
        worker: Worker,
        secrets: Records,
        entries: Entries,
        clock: Clock,
        new_id: Callable[[str], str],
    ) -> None:
        self._store = store
        self._worker = worker
        self._secrets = secrets
        self._entries = entries
        self._clock = clock
        self._new_id = new_id

    async def draft(self, acting: Acting, draft: Draft) -> ProviderConfig:
        """Pins a Provider's endpoints under a new id.

        Raises:
            MalformedError: Not exactly one of provider, issuer and endpoints, or a field of another form.
            UnknownProviderError: The catalog does not have it.
            EndpointError: An endpoint may not be called.
        """
        if sum((bool(draft.provider), bool(draft.issuer), draft.endpoints is not None)) != 1:
            raise MalformedError(field=Label("provider"))
        if not 1 <= len(draft.client_id) <= 500 or not draft.client_id.isprintable():
            raise MalformedError(field=Label("client_id"))
        redirect_uris = require_redirect_uris(draft.redirect_uris)
        known = await self._resolve(acting, draft)
        if known.endpoints is None:
            raise MalformedError(field=Label("provider"))
        endpoints = dataclasses.replace(known.endpoints, dpop=known.endpoints.dpop and not draft.bearer_only)
        config = ProviderConfig(
            workspace=acting.workspace,
            id=self._new_id("pc"),
            provider=known.name,
            display_name=_name(draft.display_name or known.display_name),
            client_id=draft.client_id,
            scopes=_scopes(draft.scopes or known.default_scopes),
            redirect_uris=redirect_uris,
            endpoints=endpoints,
            hosts=hosts_digest(client_hosts(urls(known), known.values)),
            created_at=self._clock(),
            entry=known,
            secret_classes=() if endpoints.auth_method == "none" else _FIRST,
            discovered=bool(draft.issuer),
        )
        await self._store.add_draft_config(config, audit_entry("PROVIDER_CONFIG_DRAFTED", acting, config.id))
        return config

    async def _resolve(self, acting: Acting, draft: Draft) -> Entry:
        if draft.provider:
            known = await self._entries.find(acting.workspace, draft.provider)
            if known is None or known.endpoints is None:
                raise UnknownProviderError
            if not draft.auth_method:
                return known
            if draft.auth_method not in known.client_authentication:
                raise MalformedError(field=Label("token_endpoint_auth_method"))
            return dataclasses.replace(
                known, endpoints=dataclasses.replace(known.endpoints, auth_method=draft.auth_method)
            )
        if draft.issuer:
            require_endpoint(draft.issuer)
            endpoints = await self._worker.discover(draft.issuer, acting.request_id)
            # RFC 8414, section 3.3: the metadata's issuer is the one it was asked for, to the letter.
            if endpoints.issuer != draft.issuer:
                raise EndpointError
            return described(dataclasses.replace(endpoints, auth_method=draft.auth_method or endpoints.auth_method))
        if draft.endpoints is None:
            raise MalformedError(field=Label("endpoints"))
        method = draft.endpoints.auth_method or "client_secret_basic"
        return described(dataclasses.replace(draft.endpoints, issuer="", iss_required=False, auth_method=method))

    async def activate(self, acting: Acting, config_id: str) -> ProviderConfig:
        """Makes a draft usable."""
        entry = audit_entry("PROVIDER_CONFIG_CREATED", acting, config_id)
        return _found(await self._store.activate_config(acting.workspace, config_id, entry))

    async def get(self, acting: Acting, config_id: str) -> ProviderConfig:
        """Gives one."""
        return _found(await self._store.get_config(acting.workspace, config_id))

    async def update(
        self, acting: Acting, config_id: str, scopes: tuple[str, ...], redirect_uris: tuple[str, ...], name: str
    ) -> ProviderConfig:
        """Changes scopes, redirect URIs or the name; what is empty stays."""
        config = await self.get(acting, config_id)
        changed = dataclasses.replace(
            config,
            scopes=_scopes(scopes) if scopes else config.scopes,
            redirect_uris=require_redirect_uris(redirect_uris) if redirect_uris else config.redirect_uris,
            display_name=_name(name) if name else config.display_name,
        )
        await self._store.update_config(changed, audit_entry("PROVIDER_CONFIG_CHANGED", acting, config_id))
        return changed

    async def activate_secret(self, acting: Acting, config_id: str, record_class: int) -> ProviderConfig:
        """Takes a further client secret into use, before the one there is.

        Raises:
            TwoSecretsError: Two are in use.
            MalformedError: It was stored in another place, or the client is a public one.
        """
        config = await self.get(acting, config_id)
        if config.secret_classes[:1] == (record_class,):
            note_nothing_done()  # it was said before, and the answer was lost
            return config
        if len(config.secret_classes) > 1:
            raise TwoSecretsError
        if not config.secret_classes or record_class != _OTHER[config.secret_classes[0]]:
            raise MalformedError(field=Label("record_class"))
        entry = audit_entry("CLIENT_SECRET_ADDED", acting, config_id)
        changed = await self._store.change_secrets(config, (record_class, *config.secret_classes), entry)
        if changed is None:
            raise TwoSecretsError
        return changed

    async def retire_secret(self, acting: Acting, config_id: str) -> tuple[ProviderConfig, int]:
        """Takes the older one of two client secrets out of use; gives its record class, whose record is then overwritten.

        Raises:
            OneSecretError: There is but one.
        """
        config = await self.get(acting, config_id)
        if len(config.secret_classes) < 2:
            raise OneSecretError
        entry = audit_entry("CLIENT_SECRET_RETIRED", acting, config_id)
        changed = await self._store.change_secrets(config, config.secret_classes[:1], entry)
        if changed is None:
            raise OneSecretError
        return changed, config.secret_classes[1]

    async def delete(self, acting: Acting, config_id: str) -> None:
        """Deletes one without connections, then its secret.

        Raises:
            InUseError: It has connections.
        """
        await self.get(acting, config_id)
        entry = audit_entry("PROVIDER_CONFIG_DELETED", acting, config_id)
        if not await self._store.delete_config(acting.workspace, config_id, entry):
            raise InUseError
        await self._erase_secret(acting, config_id)

    async def sweep(self) -> None:
        """Erases the client secrets of drafts that nobody activated, and of deletions that were interrupted."""
        for config in await self._store.forsaken_configs():
            acting = Acting(config.workspace, "service:oauth/coordinator", self._new_id("req"))
            # A draft is closed before its secret goes: an activation that comes now finds nothing to activate.
            entry = audit_entry("PROVIDER_CONFIG_DELETED", acting, config.id)
            if await self._store.close_forsaken(config.workspace, config.id, entry):
                await self._erase_secret(acting, config.id)

    async def _erase_secret(self, acting: Acting, config_id: str) -> None:
        await self._secrets.delete(acting.workspace, config_id, acting.request_id)
        await self._store.note_secret_erased(
            acting.workspace, config_id, audit_entry("CLIENT_SECRET_ERASED", acting, config_id)
        )


def described(endpoints: Endpoints) -> Entry:
    """Describes a Provider that is in no catalog."""
    if endpoints.auth_method not in _METHODS:
        raise MalformedError(field=Label("token_endpoint_auth_method"))
    host = require_endpoint(endpoints.token_endpoint)
    further = (
        endpoints.authorization_endpoint,
        endpoints.refresh_endpoint,
        endpoints.revocation_endpoint,
        endpoints.pushed_endpoint,
        endpoints.device_endpoint,
        endpoints.introspection_endpoint,
        endpoints.userinfo_endpoint,
    )
    for url in further:
        if url:
            require_endpoint(url)
    document = {
        "name": host,
        "display_name": host,
        "oauth2": {
            "issuer": endpoints.issuer,
            "authorization_endpoint": endpoints.authorization_endpoint,
            "token_endpoint": endpoints.token_endpoint,
            "refresh_endpoint": endpoints.refresh_endpoint,
            "revocation_endpoint": endpoints.revocation_endpoint,
            "pushed_authorization_request_endpoint": endpoints.pushed_endpoint,
            "device_authorization_endpoint": endpoints.device_endpoint,
            "introspection_endpoint": endpoints.introspection_endpoint,
            "userinfo_endpoint": endpoints.userinfo_endpoint,
            "client_authentication": [endpoints.auth_method],
            "iss_required": endpoints.iss_required,
            "dpop": endpoints.dpop,
            "grants": [*_GRANTS, *(["device_code"] if endpoints.device_endpoint else [])],
        },
    }
    return read(document)


def _found(config: ProviderConfig | None) -> ProviderConfig:
    if config is None:
        raise NotFoundError
    return config


def _name(name: str) -> str:
    if not 1 <= len(name) <= 200 or not name.isprintable():
        raise MalformedError(field=Label("display_name"))
    return name


def _scopes(scopes: tuple[str, ...]) -> tuple[str, ...]:
    # RFC 6749, section 3.3: scope-token.
    for scope in scopes:
        if not scope or len(scope) > 300 or any(not 0x21 <= ord(char) <= 0x7E or char in '"\\' for char in scope):
            raise MalformedError(field=Label("scopes"))
    return tuple(dict.fromkeys(scopes))
