"""Everything that is not a value: provider configurations, connections, sessions, the log. Names and masked prefixes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import dataclasses
from collections.abc import Sequence
from datetime import datetime

from authpipe_gateway_edge.domain.ports import Act, AuditLog, Authority, Coordinator, Masked
from authpipe_gateway_edge.domain.logged import EventFilter, Events, Export
from authpipe_gateway_edge.domain.words import (
    Caller,
    Connection,
    DeviceFlow,
    Pairs,
    Provider,
    ProviderConfig,
    Verdict,
    require_id,
    require_plain,
)


class Managing:
    """Acts for a workspace.

    Args:
        authority: May I?
        coordinator: Owns configurations and connections.
        vault: Masked prefixes of credentials.
        secrets: Masked prefixes of client secrets.
        audit: The log.
    """

    def __init__(
        self, authority: Authority, coordinator: Coordinator, vault: Masked, secrets: Masked, audit: AuditLog
    ) -> None:
        self._authority = authority
        self._coordinator = coordinator
        self._vault = vault
        self._secrets = secrets
        self._audit = audit

    async def get_config(self, caller: Caller, config_id: str) -> ProviderConfig:
        """Gives a provider configuration."""
        verdict = await self._authority.authorize(caller, Act.READ_PROVIDER_CONFIGS, "")
        config = await self._coordinator.get_config(verdict, require_id(config_id))
        return (await self._with_masks(verdict, [config]))[0]

    async def list_configs(self, caller: Caller, size: int, token: str) -> tuple[list[ProviderConfig], str]:
        """Lists provider configurations."""
        verdict = await self._authority.authorize(caller, Act.READ_PROVIDER_CONFIGS, "")
        configs, following = await self._coordinator.list_configs(verdict, size, require_plain(token, "page_token"))
        return await self._with_masks(verdict, configs), following

    async def _with_masks(self, verdict: Verdict, configs: Sequence[ProviderConfig]) -> list[ProviderConfig]:
        """Gives provider configurations with the masked prefix of the client secret that is tried first."""
        shown = [config for config in configs if config.secret_classes]
        classes = [config.secret_classes[0] for config in shown]
        masked = await self._secrets.masked(verdict, [config.id for config in shown], classes)
        return [dataclasses.replace(each, masked=masked.get(each.id, "")) for each in configs]

    async def update_config(
        self, caller: Caller, config_id: str, scopes: Sequence[str], uris: Sequence[str], name: str
    ) -> ProviderConfig:
        """Changes a provider configuration."""
        verdict = await self._authority.authorize(caller, Act.CONFIGURE_PROVIDER, require_id(config_id))
        return await self._coordinator.update_config(verdict, config_id, scopes, uris, name, caller.request_id)

    async def delete_config(self, caller: Caller, config_id: str) -> None:
        """Deletes a provider configuration."""
        verdict = await self._authority.authorize(caller, Act.CONFIGURE_PROVIDER, require_id(config_id))
        await self._coordinator.delete_config(verdict, config_id, caller.request_id)

    async def list_providers(self, caller: Caller) -> list[Provider]:
        """Lists the Providers that are known."""
        verdict = await self._authority.authorize(caller, Act.READ_PROVIDER_CONFIGS, "")
        return await self._coordinator.list_providers(verdict)

    async def get_provider(self, caller: Caller, name: str) -> str:
        """Gives the entry of a Provider, a JSON document."""
        verdict = await self._authority.authorize(caller, Act.READ_PROVIDER_CONFIGS, "")
        return await self._coordinator.get_provider(verdict, require_plain(name, "name"))

    async def add_provider(self, caller: Caller, document: str) -> Provider:
        """Describes a Provider of the workspace's own."""
        verdict = await self._authority.authorize(caller, Act.DESCRIBE_PROVIDER, "")
        return await self._coordinator.add_provider(verdict, document, caller.request_id)

    async def delete_provider(self, caller: Caller, name: str) -> None:
        """Deletes such a description."""
        verdict = await self._authority.authorize(caller, Act.DESCRIBE_PROVIDER, "")
        await self._coordinator.delete_provider(verdict, require_plain(name, "name"), caller.request_id)

    async def create_session(
        self, caller: Caller, end_user_id: str, config_ids: Sequence[str], values: Pairs, connection_id: str
    ) -> tuple[str, datetime]:
        """Makes a connect session."""
        verdict = await self._authority.authorize(caller, Act.CREATE_CONNECT_SESSION, "")
        return await self._coordinator.create_session(
            verdict,
            end_user_id,
            [require_id(each) for each in config_ids],
            values,
            require_id(connection_id) if connection_id else "",
            caller.request_id,
        )

    async def get_connection(self, caller: Caller, connection_id: str) -> Connection:
        """Gives a connection."""
        verdict = await self._authority.authorize(caller, Act.READ_CONNECTIONS, "")
        connection = await self._coordinator.get_connection(verdict, require_id(connection_id))
        masked = await self._vault.masked(verdict, [connection.id])
        return dataclasses.replace(connection, masked=masked.get(connection.id, ""))

    async def list_connections(
        self, caller: Caller, end_user_id: str, size: int, token: str
    ) -> tuple[list[Connection], str]:
        """Lists connections."""
        verdict = await self._authority.authorize(caller, Act.READ_CONNECTIONS, "")
        connections, following = await self._coordinator.list_connections(
            verdict, require_plain(end_user_id, "end_user_id"), size, require_plain(token, "page_token")
        )
        masked = await self._vault.masked(verdict, [each.id for each in connections])
        return [dataclasses.replace(each, masked=masked.get(each.id, "")) for each in connections], following

    async def begin_device(self, caller: Caller, config_id: str, end_user_id: str, values: Pairs) -> DeviceFlow:
        """Begins a connection that a person agrees to on another device."""
        verdict = await self._authority.authorize(caller, Act.CREATE_CONNECT_SESSION, "")
        return await self._coordinator.begin_device(
            verdict, require_id(config_id), end_user_id, values, caller.request_id
        )

    async def device(self, caller: Caller, connection_id: str) -> DeviceFlow:
        """Says how far such a connection is."""
        verdict = await self._authority.authorize(caller, Act.READ_CONNECTIONS, "")
        return await self._coordinator.device(verdict, require_id(connection_id))

    async def check(self, caller: Caller, connection_id: str) -> Connection:
        """Has a credential tried."""
        verdict = await self._authority.authorize(caller, Act.CHECK_HEALTH, require_id(connection_id))
        return await self._coordinator.check(verdict, connection_id, caller.request_id)

    async def reconnect(self, caller: Caller, connection_id: str) -> Connection:
        """Takes a connection back that was kept."""
        verdict = await self._authority.authorize(caller, Act.RECONNECT, require_id(connection_id))
        return await self._coordinator.reconnect(verdict, connection_id, caller.request_id)

    async def refresh(self, caller: Caller, connection_id: str) -> Connection:
        """Has a token refreshed now."""
        verdict = await self._authority.authorize(caller, Act.REFRESH, require_id(connection_id))
        fresh = await self._coordinator.ensure_fresh(
            verdict, connection_id, 0, force=True, request_id=caller.request_id
        )
        return fresh.connection

    async def disconnect(self, caller: Caller, connection_id: str, keep_days: int) -> Connection:
        """Disconnects; keeps it sealed for so many days, where that is asked for and it cannot be revoked."""
        verdict = await self._authority.authorize(caller, Act.DISCONNECT, require_id(connection_id))
        return await self._coordinator.disconnect(verdict, connection_id, keep_days, caller.request_id)

    async def erase_end_user(self, caller: Caller, end_user_id: str) -> int:
        """Erases everything of one end user; gives how many connections there were."""
        verdict = await self._authority.authorize(caller, Act.ERASE_END_USER, "")
        return await self._coordinator.erase_end_user(verdict, end_user_id, caller.request_id)

    async def list_events(self, caller: Caller, wanted: EventFilter) -> Events:
        """Lists the workspace's audit events."""
        verdict = await self._authority.authorize(caller, Act.READ_AUDIT, "")
        for name, text in (
            ("event", wanted.event),
            ("target", wanted.target),
            ("actor", wanted.actor),
            ("outcome", wanted.outcome),
            ("id", wanted.some_id),
            ("page_token", wanted.page_token),
        ):
            require_plain(text, name)
        return await self._audit.list_events(verdict, wanted)

    async def export(self, caller: Caller, wanted: Export) -> AsyncIterator[bytes]:
        """Gives an export of the workspace's log, in pieces. The caller's right is looked at for each of them."""
        token = ""
        while True:
            lines, token = await self.export_page(caller, wanted, token)
            yield lines
            if not token:
                return

    async def export_page(self, caller: Caller, wanted: Export, page_token: str) -> tuple[bytes, str]:
        """Gives lines of such an export, and where they ended; empty: that was all."""
        verdict = await self._authority.authorize(caller, Act.READ_AUDIT, "")
        require_plain(page_token, "page_token")
        return await self._audit.export(verdict, wanted, page_token)
