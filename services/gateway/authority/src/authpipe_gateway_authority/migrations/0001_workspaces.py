"""Workspaces, API keys, outbox."""

from alembic import op

from authpipe_database import OUTBOX_SQL, outbox_grants

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes the tables and gives the process's role what it needs, by its own name: the database's name."""
    op.execute(
        """
create table workspaces (
    workspace_id text primary key, display_name text not null, epoch int not null,
    is_frozen boolean not null, mac bytea not null, created_at timestamptz not null default now());
create table api_keys (
    workspace_id text not null references workspaces, api_key_id text not null, display_name text not null,
    key_hash bytea not null unique, scopes text[] not null, state text not null, epoch int not null,
    mac bytea not null, created_at timestamptz not null default now(),
    primary key (workspace_id, api_key_id));
"""
    )
    op.execute(OUTBOX_SQL)
    role = op.get_bind().exec_driver_sql("select current_database()").scalar()
    op.execute(f"grant select, insert, update on workspaces, api_keys to {role};" + outbox_grants(str(role)))
