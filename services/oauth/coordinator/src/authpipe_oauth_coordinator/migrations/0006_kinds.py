"""How tokens are come by, two client secrets, all endpoints, what was kept, health, rotation, device flows, careful retries."""

from alembic import op

revision = "0006"
down_revision = "0005"

_FURTHER = """jsonb_strip_nulls(jsonb_build_object(
    'refresh_endpoint', nullif(entry #>> '{oauth2,refresh_endpoint}', ''),
    'pushed_endpoint', nullif(entry #>> '{oauth2,pushed_authorization_request_endpoint}', ''),
    'device_endpoint', nullif(entry #>> '{oauth2,device_authorization_endpoint}', ''),
    'introspection_endpoint', nullif(entry #>> '{oauth2,introspection_endpoint}', ''),
    'userinfo_endpoint', nullif(entry #>> '{oauth2,userinfo_endpoint}', '')))"""


def upgrade() -> None:
    """Adds the columns. `retried` stays for processes of the version before; nobody else reads it."""
    op.execute(
        f"""
alter table provider_configs add column further_endpoints jsonb not null default '{{}}',
    add column client_secret_classes int[] not null default '{{6}}';
update provider_configs set further_endpoints = {_FURTHER};
update provider_configs set client_secret_classes = '{{}}' where token_endpoint_auth_method = 'none';
alter table flows add column further_endpoints jsonb not null default '{{}}';
alter table leases add column retries int not null default 0, add column again_at timestamptz;
update leases set retries = 1, again_at = unfinished_since where retried;
alter table connections drop constraint connections_state_check;
alter table connections add constraint connections_state_check
    check (state in ('draft', 'active', 'needs_reauth', 'disconnecting', 'disconnected', 'kept'));
alter table connections add column renewal text not null default 'refresh_token',
    add column health_state text not null default '', add column health_reason text not null default '',
    add column health_at timestamptz, add column health_refusals int not null default 0,
    add column health_ever_passed boolean not null default false,
    add column health_due_at timestamptz default now(), add column rotate_at timestamptz,
    add column rotation_told boolean not null default false, add column keep_until timestamptz;
create index connections_kept on connections (keep_until) where state = 'kept';
create index connections_checks on connections (health_due_at) where state in ('active', 'needs_reauth') and health_due_at is not null;
create index connections_rotation on connections (rotate_at) where state = 'active' and not rotation_told;
create table device_flows (
    workspace_id text not null, connection_id text not null, provider_config_id text not null,
    expires_at timestamptz not null, interval_seconds int not null,
    status text not null check (status in ('pending', 'connected', 'denied', 'expired')),
    next_at timestamptz not null, primary key (workspace_id, connection_id));
create index device_flows_pending on device_flows (next_at) where status = 'pending';
"""
    )
    role = op.get_bind().exec_driver_sql("select current_database()").scalar()
    op.execute(f"grant select, insert, update on device_flows to {role}")
