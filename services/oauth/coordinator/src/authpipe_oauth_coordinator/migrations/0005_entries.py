"""What is known of a Provider, pinned with each provider configuration, and what fills the placeholders of its URLs."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds the columns; what was pinned before is described by its endpoints."""
    op.execute(
        """
alter table provider_configs add column entry jsonb;
update provider_configs set entry = jsonb_build_object(
    'name', provider, 'display_name', display_name, 'oauth2', jsonb_strip_nulls(jsonb_build_object(
        'issuer', issuer, 'authorization_endpoint', authorization_endpoint, 'token_endpoint', token_endpoint,
        'revocation_endpoint', revocation_endpoint, 'iss_required', iss_required,
        'client_authentication', jsonb_build_array(token_endpoint_auth_method), 'rotation', rotation,
        'grace_seconds', nullif(grace_seconds, 0))));
alter table provider_configs alter column entry set not null, drop column rotation, drop column grace_seconds;
alter table connect_sessions add column values jsonb not null default '{}';
alter table connect_sessions add column connection_id text not null default '';
alter table flows add column values jsonb not null default '{}';
alter table connections add column values jsonb not null default '{}';
alter table connections add column metadata jsonb not null default '{}';
alter table connections add column entry jsonb;
create table provider_entries (
    workspace_id text not null, name text not null, entry jsonb not null, created_at timestamptz not null,
    primary key (workspace_id, name));
"""
    )
    role = op.get_bind().exec_driver_sql("select current_database()").scalar()
    op.execute(f"grant select, insert, delete on provider_entries to {role}")
