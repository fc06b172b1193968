"""Provider configurations, sessions, flows, connections, leases, outbox."""

from alembic import op

from authpipe_database import OUTBOX_SQL, outbox_grants

revision = "0001"
down_revision = None

_ENDPOINTS = """
    issuer text not null, authorization_endpoint text not null, token_endpoint text not null,
    revocation_endpoint text not null, token_endpoint_auth_method text not null, iss_required boolean not null,
"""


def upgrade() -> None:
    """Makes the tables and gives the process's role what it needs, by its own name: the database's name."""
    op.execute(
        f"""
create table provider_configs (
    workspace_id text not null, id text not null,
    state text not null check (state in ('draft', 'active', 'deleted', 'erased')),
    provider text not null, display_name text not null, client_id text not null, scopes text[] not null,
    redirect_uris text[] not null, hosts_digest bytea not null, created_at timestamptz not null, {_ENDPOINTS}
    primary key (workspace_id, id));
create index provider_configs_forsaken on provider_configs (created_at) where state in ('draft', 'deleted');
create table connect_sessions (
    workspace_id text not null, session_hash bytea not null unique, end_user_id text not null,
    provider_config_ids text[] not null, expires_at timestamptz not null, primary key (workspace_id, session_hash));
create table flows (
    workspace_id text not null, state_hash bytea not null unique, connection_id text not null,
    provider_config_id text not null, end_user_id text not null, binding_hash bytea not null,
    redirect_uri text not null, expires_at timestamptz not null, used_at timestamptz,
    swept boolean not null default false, {_ENDPOINTS}
    primary key (workspace_id, state_hash));
create index flows_unswept on flows (expires_at) where not swept;
create table connections (
    workspace_id text not null, id text not null,
    state text not null check (state in ('draft', 'active', 'needs_reauth', 'disconnecting', 'disconnected')),
    state_reason text not null, state_at timestamptz not null, kind text not null, provider text not null,
    provider_config_id text not null, end_user_id text not null, scopes text[] not null, expires_at timestamptz,
    refreshable boolean not null, hosts_digest bytea not null, refreshed_at timestamptz not null,
    created_at timestamptz not null);
create index connections_newest on connections (workspace_id, created_at desc, id desc);
-- After it: of two indexes that look as good, which these do until there are statistics, PostgreSQL takes the later one.
alter table connections add primary key (workspace_id, id);
create index connections_unfinished on connections (state_at) where state in ('draft', 'disconnecting');
create table leases (
    workspace_id text not null, connection_id text not null, holder text not null, fence bigint not null,
    lives_until timestamptz not null, primary key (workspace_id, connection_id));
"""
    )
    op.execute(OUTBOX_SQL)
    role = op.get_bind().exec_driver_sql("select current_database()").scalar()
    op.execute(
        f"""
grant select, insert, update on provider_configs, flows, connections, leases to {role};
grant select, insert on connect_sessions to {role};
"""
        + outbox_grants(str(role))
    )
