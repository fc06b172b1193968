"""Wrapped keys, version floors, signed checkpoints, outbox."""

from alembic import op

from authpipe_database import OUTBOX_SQL, outbox_grants

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes the tables and gives the process's role what it needs, by its own name: the database's name."""
    op.execute(
        """
create table deks (
    workspace_id text not null, version int not null, kek_version int not null, wrapped bytea not null,
    created_at timestamptz not null default now(),
    primary key (workspace_id, version));
create table connection_keys (
    workspace_id text not null, connection_id text not null, version int not null, dek_version int not null,
    wrapped bytea not null, state text not null check (state in ('active', 'restricted', 'destroyed')),
    fence bigint not null default 0, refresh_not_before_ms bigint not null default 0,
    last_forced_ms bigint not null default 0, last_forced_grant text not null default '',
    last_check_ms bigint not null default 0, last_check_grant text not null default '',
    created_at timestamptz not null default now(),
    primary key (workspace_id, connection_id));
create table floors (
    workspace_id text not null, connection_id text not null, record_class int not null,
    floor bigint not null default 0, prepared bigint not null default 0,
    primary key (workspace_id, connection_id, record_class));
create table signed_checkpoints (
    origin text primary key, tree_size bigint not null, root_hash bytea not null);
"""
    )
    op.execute(OUTBOX_SQL)
    role = op.get_bind().exec_driver_sql("select current_database()").scalar()
    op.execute(
        f"""
grant select, insert on deks to {role};
grant select, insert, update on connection_keys to {role};
grant select, insert, update on floors to {role};
grant select, insert, update on signed_checkpoints to {role};
"""
        + outbox_grants(str(role))
    )
