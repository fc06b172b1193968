"""SQL for provider configurations; each change in one transaction with its event."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from psycopg.rows import namedtuple_row

from authpipe_database import Database, Outbox, columns
from authpipe_oauth_coordinator.domain.words import ProviderConfig
from authpipe_oauth_coordinator.store.rows import CONFIG, config_values, endpoint_values, read_config
from authpipe_rpc import Coalescer
from authpipe_sensitive import AuditEntry

_GET = f"""
select {", ".join(f"c.{each.strip()}" for each in CONFIG.split(","))}
from unnest(%b::text[], %b::text[]) as w (workspace_id, id) join provider_configs c using (workspace_id, id)
where c.state = 'active'
"""  # fixed columns

# What a changed provider configuration may have mended; their rows are locked in the order in which a batch of refreshes does.
_TRY_AGAIN = (
    "update connections c set refresh_due_at = now(), refresh_not_before = now() from (select workspace_id, id"
    " from connections where workspace_id = :workspace and provider_config_id = :id and state = 'active'"
    " and refresh_failure <> '' order by id for update) as w where c.workspace_id = w.workspace_id and c.id = w.id"
)


class ConfigTable:
    """Provider configurations in PostgreSQL.

    Args:
        database: coordinator's own database.
        outbox: Where events go, in the same transaction.
    """

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox
        self._getting: Coalescer[tuple[str, str], ProviderConfig | None] = Coalescer(self._get)

    async def add_draft_config(self, config: ProviderConfig, entry: AuditEntry) -> None:
        """Stores a draft."""
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    f"insert into provider_configs ({CONFIG}, state) values (:workspace, :id, :provider, :name,"  # fixed columns
                    " :client_id, :scopes, :redirect_uris, :hosts, :created_at, cast(:entry as jsonb),"
                    " :secret_classes, :discovered, '', null, :issuer, :authorization, :token, :revocation, :method, :iss_required,"
                    " cast(:further as jsonb), 'draft')"
                ),
                {**config_values(config), **endpoint_values(config.endpoints)},
            )
            await self._outbox.append(connection, entry)

    async def activate_config(self, workspace: str, config_id: str, entry: AuditEntry) -> ProviderConfig | None:
        """Makes a draft usable; None: there is none."""
        async with self._database.transaction() as connection:
            row = (
                await connection.execute(
                    sa.text(
                        "update provider_configs set state = 'active' where workspace_id = :workspace and id = :id"
                        f" and state in ('draft', 'active') returning {CONFIG}"
                    ),
                    {"workspace": workspace, "id": config_id},
                )
            ).one_or_none()
            if row is None:
                return None
            await self._outbox.append(connection, entry)
        return read_config(row)

    async def get_config(self, workspace: str, config_id: str) -> ProviderConfig | None:
        """Gives a usable provider configuration."""
        return await self._getting.submit((workspace, config_id))

    async def _get(self, names: Sequence[tuple[str, str]]) -> list[ProviderConfig | None]:
        wanted = columns([*dict.fromkeys(names)], 2)
        async with self._database.hot() as hot, hot.cursor(row_factory=namedtuple_row) as cursor:
            rows = await (await cursor.execute(_GET, wanted, binary=True)).fetchall()
        found = {(each.workspace, each.id): each for each in map(read_config, rows)}
        return [found.get(name) for name in names]

    async def list_configs(self, workspace: str, limit: int, after: str) -> list[ProviderConfig]:
        """Gives usable provider configurations, by id."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(
                sa.text(
                    f"select {CONFIG} from provider_configs where workspace_id = :workspace and state = 'active'"  # fixed columns
                    " and id > :after order by id limit :limit"
                ),
                {"workspace": workspace, "after": after, "limit": limit},
            )
            return [read_config(row) for row in rows]

    async def update_config(self, config: ProviderConfig, entry: AuditEntry) -> None:
        """Stores name, scopes and redirect URIs. Connections whose refreshes fail are due: it may be mended."""
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    "update provider_configs set display_name = :name, scopes = :scopes, redirect_uris = :redirect_uris"
                    " where workspace_id = :workspace and id = :id and state = 'active'"
                ),
                {
                    "name": config.display_name,
                    "scopes": list(config.scopes),
                    "redirect_uris": list(config.redirect_uris),
                    "workspace": config.workspace,
                    "id": config.id,
                },
            )
            await connection.execute(
                sa.text(_TRY_AGAIN),
                {"workspace": config.workspace, "id": config.id},
            )
            await self._outbox.append(connection, entry)

    async def change_secrets(
        self, config: ProviderConfig, classes: tuple[int, ...], entry: AuditEntry
    ) -> ProviderConfig | None:
        """Stores which client secrets are in use; None: others were, meanwhile. What failed is tried again at once."""
        names = {"workspace": config.workspace, "id": config.id}
        async with self._database.transaction() as connection:
            row = (
                await connection.execute(
                    sa.text(
                        "update provider_configs set client_secret_classes = :classes where workspace_id = :workspace"
                        f" and id = :id and state = 'active' and client_secret_classes = cast(:before as integer[]) returning {CONFIG}"
                    ),
                    {**names, "classes": list(classes), "before": list(config.secret_classes)},
                )
            ).one_or_none()
            if row is None:
                return None
            await connection.execute(sa.text(_TRY_AGAIN), names)
            await self._outbox.append(connection, entry)
        return read_config(row)

    async def claim_discovered(self, most: int, seconds: float) -> list[ProviderConfig]:
        """Takes up configurations whose metadata was fetched so long ago; they are not taken up again before as long."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(
                sa.text(
                    "update provider_configs set discovered_at = now() where (workspace_id, id) in"
                    " (select workspace_id, id from provider_configs where discovered and state = 'active'"
                    " and discovered_at < now() - make_interval(secs => :seconds)"
                    f" order by discovered_at limit :most for update skip locked) returning {CONFIG}"  # fixed columns
                ),
                {"most": most, "seconds": seconds},
            )
            return [read_config(row) for row in rows]

    async def change_endpoints(self, config: ProviderConfig, entry: AuditEntry) -> None:
        """Stores endpoints and entry, with its event. What failed is tried again at once."""
        names = {"workspace": config.workspace, "id": config.id}
        async with self._database.transaction() as connection:
            result = await connection.execute(
                sa.text(
                    "update provider_configs set entry = cast(:entry as jsonb), authorization_endpoint = :authorization,"
                    " token_endpoint = :token, revocation_endpoint = :revocation, iss_required = :iss_required,"
                    " further_endpoints = cast(:further as jsonb), notice = '', noticed_at = null"
                    " where workspace_id = :workspace and id = :id and state = 'active' and discovered"
                ),
                {**config_values(config), **endpoint_values(config.endpoints)},
            )
            if result.rowcount:
                await connection.execute(sa.text(_TRY_AGAIN), names)
                await self._outbox.append(connection, entry)

    async def note_config(self, config: ProviderConfig, notice: str, entry: AuditEntry) -> None:
        """Stores what the owner of a configuration should know, with its event; empty: nothing any more."""
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    "update provider_configs set notice = :notice, noticed_at = case when :notice = '' then null"
                    " when notice = :notice then noticed_at else now() end where workspace_id = :workspace and id = :id"
                ),
                {"notice": notice, "workspace": config.workspace, "id": config.id},
            )
            await self._outbox.append(connection, entry)

    async def delete_config(self, workspace: str, config_id: str, entry: AuditEntry) -> bool:
        """Deletes a provider configuration without connections; False: it has some."""
        async with self._database.transaction() as connection:
            result = await connection.execute(
                sa.text(
                    "update provider_configs set state = 'deleted' where workspace_id = :workspace and id = :id"
                    " and not exists (select from connections c where c.workspace_id = :workspace"
                    " and c.provider_config_id = :id and c.state <> 'disconnected')"
                ),
                {"workspace": workspace, "id": config_id},
            )
            if result.rowcount != 1:
                return False
            await self._outbox.append(connection, entry)
        return True

    async def forsaken_configs(self) -> list[ProviderConfig]:
        """Gives drafts of a quarter of an hour ago, and deleted ones whose client secret was not erased yet."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(
                sa.text(
                    f"select {CONFIG} from provider_configs where state = 'deleted'"
                    " or (state = 'draft' and created_at < now() - interval '15 minutes') order by created_at limit 50"
                )
            )
            return [read_config(row) for row in rows]

    async def close_forsaken(self, workspace: str, config_id: str, entry: AuditEntry) -> bool:
        """Makes a draft a deleted one; False: it was activated meanwhile."""
        names = {"workspace": workspace, "id": config_id}
        async with self._database.transaction() as connection:
            result = await connection.execute(
                sa.text(
                    "update provider_configs set state = 'deleted' where workspace_id = :workspace and id = :id"
                    " and state = 'draft'"
                ),
                names,
            )
            if result.rowcount:
                await self._outbox.append(connection, entry)
            state = await connection.scalar(
                sa.text("select state from provider_configs where workspace_id = :workspace and id = :id"), names
            )
        return bool(state == "deleted")

    async def note_secret_erased(self, workspace: str, config_id: str, entry: AuditEntry) -> None:
        """Remembers that nothing is left of a deleted provider configuration's client secret, or of a draft's."""
        async with self._database.transaction() as connection:
            result = await connection.execute(
                sa.text(
                    "update provider_configs set state = 'erased' where workspace_id = :workspace and id = :id"
                    " and state = 'deleted'"
                ),
                {"workspace": workspace, "id": config_id},
            )
            if result.rowcount:
                await self._outbox.append(connection, entry)
