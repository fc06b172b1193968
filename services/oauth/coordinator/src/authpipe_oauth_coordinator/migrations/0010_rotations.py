"""Rotations of tokens: what is to be refreshed, and how far it is."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Makes the tables. Connection ids are random: in their order Providers and workspaces are mixed."""
    role = op.get_bind().exec_driver_sql("select current_database()").scalar()
    op.execute(
        f"""
create table rotations (
    id text primary key, workspace_id text not null, actor text not null, request_id text not null,
    source text not null, target text not null, irreplaceable bigint not null, total bigint not null,
    rotated bigint not null default 0, failed bigint not null default 0,
    began_at timestamptz not null default now(), ended_at timestamptz);
create index rotations_open on rotations (id) where ended_at is null;
create table rotation_items (
    workspace_id text not null, rotation_id text not null references rotations, connection_id text not null,
    provider text not null, attempts int not null default 0, outcome text not null default '',
    claimed_until timestamptz not null default '-infinity', primary key (workspace_id, rotation_id, connection_id));
create index rotation_items_open on rotation_items (connection_id) where outcome = '';
create index rotation_items_of on rotation_items (rotation_id, outcome);
grant select, insert, update on rotations to {role};
grant select, insert, update, delete on rotation_items to {role};
"""
    )
