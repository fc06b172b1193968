"""Events, tree heads, checkpoints: insert only."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes the tables. The process's role may insert and select; it cannot update, delete or truncate."""
    op.execute(
        """
create table events (
    leaf_index bigint primary key, event_id text not null unique, workspace_id text not null, name int not null,
    target text not null, time timestamptz not null, body bytea not null, salt bytea not null,
    leaf_hash bytea not null);
create index events_of_workspace on events (workspace_id, leaf_index desc);
create table tree_heads (size bigint primary key, frontier bytea[] not null);
create table checkpoints (size bigint primary key, note text not null, signed_at timestamptz not null default now());
"""
    )
    role = op.get_bind().exec_driver_sql("select current_database()").scalar()
    op.execute(f"grant select, insert on events, tree_heads, checkpoints to {role};")
